/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the operator's tables ask of their surroundings, in the kernel. */
#ifndef VNET_HANDLER_ENV_H
#define VNET_HANDLER_ENV_H

#include "classifier_lookup.h"
#include "handler_abi.h"

/* max_entries of all are set by who makes them; user space has all but the ring in its memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_handler);
} vnet_handlers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_packet_rate);
} vnet_packet_rates SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, VNET_PACKET_RING);
} vnet_packets SEC(".maps");

/* What only this host's own programs can say of a frame; random, since others write there too. */
const volatile __u32 vnet_token[2] = {1, 1};

#define VNET_SUM_ADDRESS BPF_F_PSEUDO_HDR
#define VNET_SUM_ZERO_IS_NONE BPF_F_MARK_MANGLED_0
#define VNET_PATCH_COUNTED BPF_F_RECOMPUTE_CSUM

VNET_INLINE struct vnet_image *vnet_image(struct __sk_buff *skb)
{
	/* Else a function that does nothing else with its context is called without one. */
	__asm__ volatile("" : : "r"(skb));
	return NULL;
}

VNET_INLINE struct vnet_handler *vnet_handler(struct __sk_buff *skb, __u32 index)
{
	return bpf_map_lookup_elem(&vnet_handlers, &index);
}

VNET_INLINE struct vnet_rate *vnet_handler_rate(struct __sk_buff *skb, struct vnet_handler *handler)
{
	return &handler->rate;
}

VNET_INLINE struct vnet_packet_rate *vnet_packet_rate(struct __sk_buff *skb, __u32 local_id)
{
	return bpf_map_lookup_elem(&vnet_packet_rates, &local_id);
}

VNET_INLINE int vnet_packet_store(struct __sk_buff *skb, struct vnet_packet_in *in, __u32 room)
{
	struct vnet_packet_in *slot = bpf_ringbuf_reserve(&vnet_packets, sizeof(*slot) + room, 0);
	__u32 captured = in->captured;

	if (!slot)
		return -1;
	in->time_ns = bpf_ktime_get_ns();
	*slot = *in;
	if (captured) {
		/* From 1 to `room`: the compiler must not see that it is so already. */
		captured--;
		__asm__ volatile("" : "+r"(captured));
		captured = (captured & (room - 1)) + 1;
		if (bpf_skb_load_bytes(skb, 0, slot + 1, captured)) {
			bpf_ringbuf_discard(slot, 0);
			return -1;
		}
	}
	bpf_ringbuf_submit(slot, 0);
	return 0;
}

/* The verifier wants sizes that are constant, each a power of two. */
VNET_INLINE int vnet_packet_write(struct __sk_buff *skb, struct vnet_packet_in *in)
{
	if (in->captured <= 128)
		return vnet_packet_store(skb, in, 128);
	if (in->captured <= 2048)
		return vnet_packet_store(skb, in, 2048);
	if (in->captured <= 16384)
		return vnet_packet_store(skb, in, 16384);
	return vnet_packet_store(skb, in, 65536);
}

/* Whether the frame is to go past the tables; once only. */
VNET_INLINE int vnet_is_past(struct __sk_buff *skb)
{
	if (skb->cb[3] != vnet_token[0] || skb->cb[4] != vnet_token[1])
		return 0;
	skb->cb[3] = 0;
	return 1;
}

VNET_INLINE void vnet_let_past(struct __sk_buff *skb)
{
	skb->cb[3] = vnet_token[0];
	skb->cb[4] = vnet_token[1];
}

VNET_INLINE void vnet_emit_past(struct __sk_buff *skb, __u32 ifindex)
{
	vnet_let_past(skb);
	vnet_emit(skb, ifindex);
	skb->cb[3] = 0;
}

VNET_INLINE void vnet_walk_seen(struct __sk_buff *skb, __u32 table, const struct vnet_hit *hit)
{
}

VNET_INLINE int vnet_patch(struct __sk_buff *skb, __u32 offset, const void *from, __u32 length,
			   __u64 flags)
{
	return (int)bpf_skb_store_bytes(skb, offset, from, length, flags);
}

VNET_INLINE int vnet_fix_sum(struct __sk_buff *skb, __u32 offset, __u32 from, __u32 to, __u32 size)
{
	return (int)bpf_l3_csum_replace(skb, offset, from, to, size);
}

VNET_INLINE int vnet_fix_transport_sum(struct __sk_buff *skb, __u32 offset, __u32 from, __u32 to,
				       __u64 flags)
{
	return (int)bpf_l4_csum_replace(skb, offset, from, to, flags);
}

#endif
