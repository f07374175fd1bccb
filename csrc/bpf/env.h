/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the core asks of its surroundings, in the kernel. csrc/native/env.h answers it outside. */
#ifndef VNET_ENV_H
#define VNET_ENV_H

#include <linux/bpf.h>
#include <linux/types.h>
/* After the kernel's types, which it needs. */
#include <bpf/bpf_helpers.h>

#include "maps.h"

#define vnet_ctx __sk_buff

/*
 * Headers at fixed places are mostly in the linear part and are read without a call; the helper
 * gets the rest, from wherever the kernel has put it.
 */
VNET_INLINE int vnet_load(struct __sk_buff *skb, __u32 offset, void *to, __u32 length)
{
	if (__builtin_constant_p(offset)) {
		const __u8 *data = (void *)(long)skb->data;

		if (data + offset + length <= (__u8 *)(long)skb->data_end) {
			__builtin_memcpy(to, data + offset, length);
			return 0;
		}
	}
	return bpf_skb_load_bytes(skb, offset, to, length);
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

/* Ticks are enough for lives of seconds, and cost a fraction of the exact clock. */
VNET_INLINE __u64 vnet_now(struct __sk_buff *skb)
{
	return bpf_ktime_get_coarse_ns();
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

VNET_INLINE __u32 *vnet_uplink(struct __sk_buff *skb, __u32 network)
{
	return bpf_map_lookup_elem(&vnet_uplinks, &network);
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

VNET_INLINE struct vnet_conn *vnet_conn_find(struct __sk_buff *skb, __u32 local_id,
					     const struct vnet_conn_key *key)
{
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);

	return table ? bpf_map_lookup_elem(table, key) : NULL;
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

#endif
