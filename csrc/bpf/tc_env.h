/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The part of env.h that tc programs have of their own: what touches the frame. */
#ifndef VNET_TC_ENV_H
#define VNET_TC_ENV_H

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

/* Sent by the agent, in the place of one that was held or came from the VM's last host. */
VNET_INLINE int vnet_is_replayed(struct __sk_buff *skb)
{
	return skb->mark == VNET_REPLAY_MARK && !skb->ingress_ifindex;
}

/* Not from a port of this host. */
VNET_INLINE int vnet_is_from_outside(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ingress_ifindex;
	const struct vnet_iface *iface = bpf_map_lookup_elem(&vnet_ifaces, &ifindex);

	return ifindex && (!iface || iface->kind != VNET_IFACE_PORT);
}

VNET_INLINE __u32 vnet_gso_size(struct __sk_buff *skb)
{
	return skb->gso_size;
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

VNET_INLINE void vnet_emit(struct __sk_buff *skb, __u32 ifindex)
{
	bpf_clone_redirect(skb, ifindex, 0);
}

#include "capture_env.h"

#endif
