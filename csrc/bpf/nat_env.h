/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What nat.h asks of its surroundings, in the kernel. */
#ifndef VNET_NAT_ENV_H
#define VNET_NAT_ENV_H

/* One frame at a time is between the two steps on a CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_nat);
} vnet_nats SEC(".maps");

VNET_INLINE struct vnet_nat *vnet_nat(struct __sk_buff *skb)
{
	__u32 only = 0;

	/* Else a function that does nothing else with its context is called without one. */
	__asm__ volatile("" : : "r"(skb));
	return bpf_map_lookup_elem(&vnet_nats, &only);
}

/* As vnet_conn_find(), for a name that is not the frame's. */
VNET_INLINE const struct vnet_conn *vnet_conn_seek(struct __sk_buff *skb, __u32 local_id,
						   const struct vnet_conn_key *key)
{
	return vnet_conn_find(skb, local_id, key);
}

/* 0: it is there now; 1: another one that lives is; -1: there is no room. */
VNET_INLINE int vnet_conn_claim(struct __sk_buff *skb, __u32 local_id,
				const struct vnet_conn_key *key, const struct vnet_conn *conn)
{
	void *table = bpf_map_lookup_elem(&vnet_conns, &local_id);
	const struct vnet_conn *have;

	if (!table)
		return -1;
	if (!bpf_map_update_elem(table, key, conn, BPF_NOEXIST))
		return 0;
	have = bpf_map_lookup_elem(table, key);
	if (!have)
		return -1;
	if (have->expires_ns > vnet_now(skb))
		return 1;
	return bpf_map_update_elem(table, key, conn, BPF_ANY) ? -1 : 0;
}

#endif
