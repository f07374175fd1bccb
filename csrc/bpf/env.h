/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the core asks of its surroundings, in the kernel. csrc/native/env.h answers it outside. */
#ifndef VNET_ENV_H
#define VNET_ENV_H

#include <linux/bpf.h>
#include <linux/types.h>
/* After the kernel's types, which it needs. */
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "maps.h"

/* Programs of XDP say so before they include anything. */
#ifdef VNET_XDP
#define vnet_ctx xdp_md
#else
#define vnet_ctx __sk_buff
#endif
/* A function of its own, verified for itself. Its pointers may be NULL as far as that knows. */
#define VNET_OUTLINE __attribute__((noinline))
/* Verified with each of its callers, for which it saves stack: what it has there is gone behind it. */
#define VNET_APART static __attribute__((noinline))

/*
 * The compiler takes these fields for numbers of 32 bits and may cut them to that once more, which
 * to the verifier is the end of a pointer.
 */
#define VNET_FRAME_POINTER(name)                                                                   \
	VNET_INLINE const __u8 *vnet_frame_##name(struct vnet_ctx *ctx)                            \
	{                                                                                          \
		const __u8 *pointer;                                                               \
                                                                                                   \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                              \
			     : "=r"(pointer)                                                       \
			     : "r"(ctx), "i"(offsetof(struct vnet_ctx, name)));                    \
		return pointer;                                                                    \
	}
VNET_FRAME_POINTER(data)
VNET_FRAME_POINTER(data_end)

/*
 * Words of a frame, however it is aligned: the verifier refuses that only where the processor
 * could not do it, and byte by byte a header costs more than its connection's look-up.
 */
VNET_INLINE __u16 vnet_get16(const __u8 *from)
{
	return *(const __u16 *)from;
}

VNET_INLINE __u32 vnet_get32(const __u8 *from)
{
	return *(const __u32 *)from;
}

VNET_INLINE __u64 vnet_get64(const __u8 *from)
{
	return *(const __u64 *)from;
}

#ifdef VNET_XDP
#include "xdp_env.h"
#else
#include "tc_env.h"
#endif

/* Ticks are enough for lives of seconds, and cost a fraction of the exact clock. */
VNET_INLINE __u64 vnet_now(struct vnet_ctx *ctx)
{
	return bpf_ktime_get_coarse_ns();
}

/* A tick is more than a frame's time at any rate worth a limit. */
VNET_INLINE __u64 vnet_now_exact(struct vnet_ctx *ctx)
{
	return bpf_ktime_get_ns();
}

VNET_INLINE struct vnet_meters *vnet_meters_of(struct vnet_ctx *ctx, __u32 local_id)
{
	return bpf_map_lookup_elem(&vnet_meters, &local_id);
}

VNET_INLINE const struct vnet_settings *vnet_settings(struct vnet_ctx *ctx)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&vnet_setup, &only);
}

VNET_INLINE struct vnet_iface *vnet_iface(struct vnet_ctx *ctx, __u32 ifindex)
{
	return bpf_map_lookup_elem(&vnet_ifaces, &ifindex);
}

VNET_INLINE __u32 *vnet_hint(struct vnet_ctx *ctx, __u32 index)
{
	return bpf_map_lookup_elem(&vnet_hints, &index);
}

VNET_INLINE struct vnet_port *vnet_port(struct vnet_ctx *ctx, __u32 local_id)
{
	return bpf_map_lookup_elem(&vnet_ports, &local_id);
}

VNET_INLINE struct vnet_port *vnet_opener(struct vnet_ctx *ctx, __u32 local_id)
{
	return vnet_port(ctx, local_id);
}

VNET_INLINE __u32 *vnet_uplink(struct vnet_ctx *ctx, __u32 network)
{
	return bpf_map_lookup_elem(&vnet_uplinks, &network);
}

VNET_INLINE struct vnet_segment *vnet_segment(struct vnet_ctx *ctx, __u32 network)
{
	return bpf_map_lookup_elem(&vnet_segments, &network);
}

VNET_INLINE __u32 *vnet_vlan(struct vnet_ctx *ctx, const struct vnet_vlan_key *key)
{
	return bpf_map_lookup_elem(&vnet_vlans, key);
}

VNET_INLINE struct vnet_binding *vnet_binding(struct vnet_ctx *ctx,
					      const struct vnet_binding_key *key)
{
	return bpf_map_lookup_elem(&vnet_bindings, key);
}

VNET_INLINE __u32 *vnet_find_mac(struct vnet_ctx *ctx, const struct vnet_mac_key *key)
{
	return bpf_map_lookup_elem(&vnet_fdb, key);
}

VNET_INLINE void vnet_put_mac_place(struct vnet_ctx *ctx, const struct vnet_mac_key *key, __u32 id)
{
	bpf_map_update_elem(&vnet_fdb, key, &id, BPF_ANY);
}

VNET_INLINE void vnet_remove_mac_place(struct vnet_ctx *ctx, const struct vnet_mac_key *key)
{
	bpf_map_delete_elem(&vnet_fdb, key);
}

VNET_INLINE __u32 *vnet_member(struct vnet_ctx *ctx, const struct vnet_member_key *key)
{
	return bpf_map_lookup_elem(&vnet_members, key);
}

VNET_INLINE int vnet_has_address(struct vnet_ctx *ctx, const struct vnet_address_key *key)
{
	return bpf_map_lookup_elem(&vnet_addresses, key) != NULL;
}

VNET_INLINE int vnet_is_pair(struct vnet_ctx *ctx, const struct vnet_pair_key *key)
{
	return bpf_map_lookup_elem(&vnet_pairs, key) != NULL;
}

VNET_INLINE struct vnet_policy *vnet_policy(struct vnet_ctx *ctx, __u32 id)
{
	return bpf_map_lookup_elem(&vnet_policies, &id);
}

VNET_INLINE struct vnet_rule *vnet_rule(struct vnet_ctx *ctx, const struct vnet_rule_key *key)
{
	return bpf_map_lookup_elem(&vnet_rules, key);
}

VNET_INLINE int vnet_is_peer(struct vnet_ctx *ctx, const struct vnet_peer_key *key)
{
	return bpf_map_lookup_elem(&vnet_peers, key) != NULL;
}

VNET_INLINE struct vnet_conn *vnet_conn_find(struct vnet_ctx *ctx, __u32 local_id,
					     const struct vnet_conn_key *key)
{
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);

	return table ? bpf_map_lookup_elem(table, key) : NULL;
}

/* Room for a connection that is yet to be added. */
VNET_INLINE struct vnet_conn *vnet_conn_draft(struct vnet_ctx *ctx)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&vnet_new_conns, &only);
}

VNET_INLINE int vnet_conn_add(struct vnet_ctx *ctx, __u32 local_id,
			      const struct vnet_conn_key *key, const struct vnet_conn *conn)
{
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);

	return table ? (int)bpf_map_update_elem(table, key, conn, BPF_ANY) : -1;
}

VNET_INLINE void vnet_conn_remove(struct vnet_ctx *ctx, __u32 local_id,
				  const struct vnet_conn_key *key)
{
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);

	if (table)
		bpf_map_delete_elem(table, key);
}

VNET_INLINE struct vnet_counters *vnet_counters(struct vnet_ctx *ctx, __u32 local_id)
{
	return bpf_map_lookup_elem(&vnet_counts, &local_id);
}

VNET_INLINE struct vnet_fragment *vnet_fragment_find(struct vnet_ctx *ctx, __u32 local_id,
						     const struct vnet_fragment_key *key)
{
	void *table = bpf_map_lookup_elem(&vnet_fragments, &local_id);

	return table ? bpf_map_lookup_elem(table, key) : NULL;
}

VNET_INLINE void vnet_fragment_add(struct vnet_ctx *ctx, __u32 local_id,
				   const struct vnet_fragment_key *key,
				   const struct vnet_fragment *first)
{
	void *table = bpf_map_lookup_elem(&vnet_fragments, &local_id);

	if (table)
		bpf_map_update_elem(table, key, first, BPF_ANY);
}

#define vnet_loop(count, step, state) ((void)bpf_loop(count, step, state, 0))

VNET_INLINE void vnet_count(__u64 *counter, __u64 value)
{
	__sync_fetch_and_add(counter, value);
}

struct vnet_sweep {
	__u64 now;
	__u32 unreplied;
	__u32 seen;
	__u32 from;
};

struct bpf_map;

static long vnet_sweep_entry(struct bpf_map *table, const struct vnet_conn_key *key,
			     struct vnet_conn *conn, struct vnet_sweep *sweep)
{
	if (sweep->seen++ < sweep->from)
		return 0;
	if (vnet_sweep_one(conn, sweep->now, &sweep->unreplied))
		bpf_map_delete_elem(table, key);
	return sweep->seen >= sweep->from + VNET_SWEEP_ENTRIES;
}

/*
 * A full table makes room by itself, so that new connections are taken while no agent runs. The
 * work is bounded, and rare: see vnet_sweep_due().
 */
VNET_INLINE void vnet_conn_sweep(struct vnet_ctx *ctx, __u32 local_id, __u64 now)
{
	struct vnet_port *port = bpf_map_lookup_elem(&vnet_ports, &local_id);
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);
	struct vnet_sweep sweep = {.now = now};
	__u64 last;

	if (!port || !table)
		return;
	sweep.from = vnet_sweep_from(port->quota, now);
	last = port->sweep_ns;
	if (!vnet_sweep_due(port->quota, last, now))
		return;
	if (__sync_val_compare_and_swap(&port->sweep_ns, last, now) == last)
		bpf_for_each_map_elem(table, vnet_sweep_entry, &sweep, 0);
}

#endif
