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

#define vnet_ctx __sk_buff
/* A function of its own, verified for itself. Its pointers may be NULL as far as that knows. */
#define VNET_OUTLINE __attribute__((noinline))

VNET_INLINE int vnet_load(struct __sk_buff *skb, __u32 offset, void *to, __u32 length)
{
	return bpf_skb_load_bytes(skb, offset, to, length);
}

/* Ends what was peeked at before. The sum of a frame whose sum the hardware gave stays right. */
VNET_INLINE int vnet_store(struct __sk_buff *skb, __u32 offset, const void *from, __u32 length)
{
	return bpf_skb_store_bytes(skb, offset, from, length, BPF_F_RECOMPUTE_CSUM);
}

/*
 * The compiler takes these fields for numbers of 32 bits and may cut them to that once more, which
 * to the verifier is the end of a pointer.
 */
#define VNET_FRAME_POINTER(name)                                                                   \
	VNET_INLINE const __u8 *vnet_frame_##name(struct __sk_buff *skb)                           \
	{                                                                                          \
		const __u8 *pointer;                                                               \
                                                                                                   \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                              \
			     : "=r"(pointer)                                                       \
			     : "r"(skb), "i"(offsetof(struct __sk_buff, name)));                   \
		return pointer;                                                                    \
	}
VNET_FRAME_POINTER(data)
VNET_FRAME_POINTER(data_end)

/*
 * Headers at fixed places are mostly in the linear part already, and are read where they are.
 * Otherwise the kernel moves them there, which ends what was peeked at before.
 */
VNET_INLINE const __u8 *vnet_peek(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	const __u8 *data = vnet_frame_data(skb);

	if (data + offset + length <= vnet_frame_data_end(skb))
		return data + offset;
	if (bpf_skb_pull_data(skb, offset + length))
		return NULL;
	data = vnet_frame_data(skb);
	return data + offset + length <= vnet_frame_data_end(skb) ? data + offset : NULL;
}

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

VNET_INLINE __u32 vnet_length(struct __sk_buff *skb)
{
	return skb->len;
}

VNET_INLINE __u32 vnet_ifindex(struct __sk_buff *skb)
{
	return skb->ifindex;
}

VNET_INLINE int vnet_tagged(struct __sk_buff *skb)
{
	return skb->vlan_present;
}

/* The 802.1Q tag, whether the kernel has taken it off the frame or not; -1 for any other tag. */
VNET_INLINE int vnet_load_tag(struct __sk_buff *skb, __u16 *tci)
{
	__be16 tag[2];

	if (skb->vlan_present) {
		*tci = skb->vlan_tci;
		return skb->vlan_proto == bpf_htons(0x8100) ? 0 : -1;
	}
	if (bpf_skb_load_bytes(skb, 12, tag, sizeof(tag)) || tag[0] != bpf_htons(0x8100))
		return -1;
	*tci = bpf_ntohs(tag[1]);
	return 0;
}

/* The kernel's own functions keep checksums and segmentation offload right. */
VNET_INLINE int vnet_pop_tag(struct __sk_buff *skb)
{
	return (int)bpf_skb_vlan_pop(skb);
}

VNET_INLINE int vnet_push_tag(struct __sk_buff *skb, __u16 tci)
{
	return (int)bpf_skb_vlan_push(skb, bpf_htons(0x8100), tci);
}

/* Of 16-bit words as they lie there, to be folded; a multiple of 4 bytes. */
VNET_INLINE __u32 vnet_sum(const void *bytes, __u32 length, __u32 seed)
{
	return bpf_csum_diff(NULL, 0, (__be32 *)bytes, length, seed);
}

/* The frame becomes these bytes, and whoever else looks at it keeps the old ones. */
VNET_INLINE int vnet_rewrite(struct __sk_buff *skb, const __u8 *frame, __u32 length)
{
	int error = (int)bpf_skb_change_tail(skb, length, 0);

	return error ? error
		     : (int)bpf_skb_store_bytes(skb, 0, frame, length, BPF_F_RECOMPUTE_CSUM);
}

/* Ticks are enough for lives of seconds, and cost a fraction of the exact clock. */
VNET_INLINE __u64 vnet_now(struct __sk_buff *skb)
{
	return bpf_ktime_get_coarse_ns();
}

/* A tick is more than a frame's time at any rate worth a limit. */
VNET_INLINE __u64 vnet_now_exact(struct __sk_buff *skb)
{
	return bpf_ktime_get_ns();
}

VNET_INLINE __u32 vnet_gso_size(struct __sk_buff *skb)
{
	return skb->gso_size;
}

VNET_INLINE struct vnet_meters *vnet_meters_of(struct __sk_buff *skb, __u32 local_id)
{
	return bpf_map_lookup_elem(&vnet_meters, &local_id);
}

VNET_INLINE const struct vnet_settings *vnet_settings(struct __sk_buff *skb)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&vnet_setup, &only);
}

VNET_INLINE struct vnet_iface *vnet_iface(struct __sk_buff *skb, __u32 ifindex)
{
	return bpf_map_lookup_elem(&vnet_ifaces, &ifindex);
}

VNET_INLINE struct vnet_port *vnet_port(struct __sk_buff *skb, __u32 local_id)
{
	return bpf_map_lookup_elem(&vnet_ports, &local_id);
}

VNET_INLINE struct vnet_port *vnet_opener(struct __sk_buff *skb, __u32 local_id)
{
	return vnet_port(skb, local_id);
}

VNET_INLINE __u32 *vnet_uplink(struct __sk_buff *skb, __u32 network)
{
	return bpf_map_lookup_elem(&vnet_uplinks, &network);
}

VNET_INLINE struct vnet_segment *vnet_segment(struct __sk_buff *skb, __u32 network)
{
	return bpf_map_lookup_elem(&vnet_segments, &network);
}

VNET_INLINE __u32 *vnet_vlan(struct __sk_buff *skb, const struct vnet_vlan_key *key)
{
	return bpf_map_lookup_elem(&vnet_vlans, key);
}

VNET_INLINE struct vnet_binding *vnet_binding(struct __sk_buff *skb,
					      const struct vnet_binding_key *key)
{
	return bpf_map_lookup_elem(&vnet_bindings, key);
}

VNET_INLINE __u32 *vnet_find_mac(struct __sk_buff *skb, const struct vnet_mac_key *key)
{
	return bpf_map_lookup_elem(&vnet_fdb, key);
}

VNET_INLINE __u32 *vnet_member(struct __sk_buff *skb, const struct vnet_member_key *key)
{
	return bpf_map_lookup_elem(&vnet_members, key);
}

VNET_INLINE int vnet_has_address(struct __sk_buff *skb, const struct vnet_address_key *key)
{
	return bpf_map_lookup_elem(&vnet_addresses, key) != NULL;
}

VNET_INLINE struct vnet_policy *vnet_policy(struct __sk_buff *skb, __u32 id)
{
	return bpf_map_lookup_elem(&vnet_policies, &id);
}

VNET_INLINE struct vnet_rule *vnet_rule(struct __sk_buff *skb, const struct vnet_rule_key *key)
{
	return bpf_map_lookup_elem(&vnet_rules, key);
}

VNET_INLINE int vnet_is_peer(struct __sk_buff *skb, const struct vnet_peer_key *key)
{
	return bpf_map_lookup_elem(&vnet_peers, key) != NULL;
}

VNET_INLINE struct vnet_conn *vnet_conn_find(struct __sk_buff *skb, __u32 local_id,
					     const struct vnet_conn_key *key)
{
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);

	return table ? bpf_map_lookup_elem(table, key) : NULL;
}

/* The mark that the operator's tables give a new connection: only programs behind them ask. */
VNET_INLINE __u32 vnet_new_mark(struct __sk_buff *skb)
{
#ifdef VNET_BEHIND_TABLES
	return skb->cb[2];
#else
	return 0;
#endif
}

/* Room for a connection that is yet to be added. */
VNET_INLINE struct vnet_conn *vnet_conn_draft(struct __sk_buff *skb)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&vnet_new_conns, &only);
}

VNET_INLINE int vnet_conn_add(struct __sk_buff *skb, __u32 local_id,
			      const struct vnet_conn_key *key, const struct vnet_conn *conn)
{
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);

	return table ? (int)bpf_map_update_elem(table, key, conn, BPF_ANY) : -1;
}

VNET_INLINE void vnet_conn_remove(struct __sk_buff *skb, __u32 local_id,
				  const struct vnet_conn_key *key)
{
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);

	if (table)
		bpf_map_delete_elem(table, key);
}

VNET_INLINE struct vnet_counters *vnet_counters(struct __sk_buff *skb, __u32 local_id)
{
	return bpf_map_lookup_elem(&vnet_counts, &local_id);
}

VNET_INLINE struct vnet_fragment *vnet_fragment_find(struct __sk_buff *skb, __u32 local_id,
						     const struct vnet_fragment_key *key)
{
	void *table = bpf_map_lookup_elem(&vnet_fragments, &local_id);

	return table ? bpf_map_lookup_elem(table, key) : NULL;
}

VNET_INLINE void vnet_fragment_add(struct __sk_buff *skb, __u32 local_id,
				   const struct vnet_fragment_key *key,
				   const struct vnet_fragment *first)
{
	void *table = bpf_map_lookup_elem(&vnet_fragments, &local_id);

	if (table)
		bpf_map_update_elem(table, key, first, BPF_ANY);
}

#define vnet_loop(count, step, state) ((void)bpf_loop(count, step, state, 0))

VNET_INLINE void vnet_emit(struct __sk_buff *skb, __u32 ifindex)
{
	bpf_clone_redirect(skb, ifindex, 0);
}

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
VNET_INLINE void vnet_conn_sweep(struct __sk_buff *skb, __u32 local_id, __u64 now)
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

#include "capture_env.h"

#endif
