/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The part of env.h that a capture needs. */
#ifndef VNET_CAPTURE_ENV_H
#define VNET_CAPTURE_ENV_H

#include <bpf/bpf_endian.h>

VNET_INLINE struct vnet_capture *vnet_capture_find(struct __sk_buff *skb, __u32 local_id)
{
	return bpf_map_lookup_elem(&vnet_captures, &local_id);
}

/*
 * The verifier wants the size of a slot as a constant: `room`, a power of two, is the smallest one
 * that is enough.
 */
VNET_INLINE int vnet_capture_store(struct __sk_buff *skb, void *ring, __u32 local_id, __u32 what,
				   __u32 captured, __u32 room)
{
	struct vnet_capture_record *slot = bpf_ringbuf_reserve(ring, sizeof(*slot) + room, 0);

	if (!slot)
		return -1;
	vnet_capture_fill(slot, local_id, what, skb->len, captured);
	slot->time_ns = bpf_ktime_get_ns();
	slot->gso_size = skb->gso_size;
	if (skb->vlan_present) {
		slot->vlan_tci = skb->vlan_tci;
		slot->vlan_proto = bpf_ntohs(skb->vlan_proto);
	}
	/* From 1 to `room`: the compiler must not see that it is so already. */
	captured--;
	__asm__ volatile("" : "+r"(captured));
	captured = (captured & (room - 1)) + 1;
	if (bpf_skb_load_bytes(skb, 0, slot + 1, captured)) {
		bpf_ringbuf_discard(slot, 0);
		return -1;
	}
	bpf_ringbuf_submit(slot, 0);
	return 0;
}

VNET_INLINE int vnet_capture_write(struct __sk_buff *skb, __u32 local_id, __u32 what,
				   __u32 captured)
{
	__u32 zero = 0;
	void *ring = bpf_map_lookup_elem(&vnet_rings, &zero);

	if (!ring)
		return -1;
	if (captured <= 128)
		return vnet_capture_store(skb, ring, local_id, what, captured, 128);
	if (captured <= 256)
		return vnet_capture_store(skb, ring, local_id, what, captured, 256);
	if (captured <= 2048)
		return vnet_capture_store(skb, ring, local_id, what, captured, 2048);
	if (captured <= 16384)
		return vnet_capture_store(skb, ring, local_id, what, captured, 16384);
	return vnet_capture_store(skb, ring, local_id, what, captured, 65536);
}

#endif
