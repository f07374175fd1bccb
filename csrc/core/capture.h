/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames for whoever looks on: a copy with its verdict goes to a ring, at the end of the programs
 * and only for ports with VNET_PORT_CAPTURED. Nothing waits for the reader: what finds no room, or
 * is beyond the port's rate, is counted as lost.
 */
#ifndef VNET_CAPTURE_H
#define VNET_CAPTURE_H

#include "capture_abi.h"
#include "parse.h"

/*
 * The protocol behind IPv6 extension headers, as far as they can be read. Everything here takes
 * little of the stack, which it shares with the programs that call it.
 */
VNET_INLINE __u8 vnet_capture_skip(struct vnet_ctx *ctx, __u8 proto)
{
	__u32 offset = VNET_ETH_LEN + 40;
	__u8 header[4];

	for (int i = 0; i < VNET_EXTENSIONS; i++) {
		if (!vnet_is_extension(proto) || vnet_load(ctx, offset, header, sizeof(header)))
			break;
		if (proto == 44 && vnet_be16(header + 2) & 0xfff8)
			return header[0]; /* a later fragment: what follows is no header */
		offset += proto == 44 ? 8 : proto == 51 ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
		proto = header[0];
	}
	return proto;
}

/* One word of the remote address, all in network order. */
VNET_INLINE int vnet_capture_matches_word(struct vnet_ctx *ctx, const struct vnet_capture *capture,
					  __u32 offset, int index)
{
	const __u32 *want = (const __u32 *)capture->remote, *mask = (const __u32 *)capture->mask;
	__u32 word;

	return !mask[index] ||
	       (!vnet_load(ctx, offset, &word, sizeof(word)) && (word & mask[index]) == want[index]);
}

/*
 * The remote end is the peer: who sends to the VM, or whom the VM sends to. Malformed packets match
 * too, as far as they can be read.
 */
VNET_INLINE int vnet_capture_matches(struct vnet_ctx *ctx, const struct vnet_capture *capture,
				     __u32 direction)
{
	__u32 address, ethertype, family;
	__u8 bytes[2];

	if (vnet_load(ctx, 12, bytes, sizeof(bytes)))
		return 0;
	ethertype = vnet_be16(bytes);
	family = ethertype == VNET_ETH_IPV4 ? 4 : ethertype == VNET_ETH_IPV6 ? 6 : 0;
	if (!family || (capture->family && capture->family != family))
		return 0;
	if (vnet_load(ctx, VNET_ETH_LEN + (family == 4 ? 9 : 6), bytes, 1))
		return 0;
	if (family == 6)
		bytes[0] = vnet_capture_skip(ctx, bytes[0]);
	if (capture->proto && capture->proto != bytes[0])
		return 0;
	if (!capture->family)
		return 1;
	if (family == 4)
		return vnet_capture_matches_word(ctx, capture, direction == VNET_EGRESS ? 30 : 26, 3);
	address = direction == VNET_EGRESS ? 38 : 22;
	return vnet_capture_matches_word(ctx, capture, address, 0) &&
	       vnet_capture_matches_word(ctx, capture, address + 4, 1) &&
	       vnet_capture_matches_word(ctx, capture, address + 8, 2) &&
	       vnet_capture_matches_word(ctx, capture, address + 12, 3);
}

VNET_INLINE int vnet_capture_wants(struct vnet_ctx *ctx, const struct vnet_capture *capture,
				   __u32 direction, __u32 action)
{
	if (!(capture->directions & 1U << direction))
		return 0;
	if (capture->drops_only && action != VNET_DROP)
		return 0;
	return (!capture->proto && !capture->family) ||
	       vnet_capture_matches(ctx, capture, direction);
}

/*
 * Whether the rate has room for one more (the generic cell rate algorithm, ITU-T I.371). CPUs that
 * race may let one more each pass.
 */
VNET_INLINE int vnet_capture_take(struct vnet_capture *capture, __u64 now)
{
	__u64 due = capture->due_ns;

	if (due < now)
		due = now;
	if (due - now > capture->burst_ns)
		return 0;
	capture->due_ns = due + capture->interval_ns;
	return 1;
}

/* Out of line, so that the way of a frame that nobody looks at is as short as without it. */
VNET_OUTLINE int vnet_capture_frame(struct vnet_ctx *ctx, __u32 local_id, __u32 what)
{
	struct vnet_capture *capture = vnet_capture_find(ctx, local_id);
	__u32 captured = vnet_length(ctx);

	if (!capture || !captured || !vnet_capture_wants(ctx, capture, what & 1, what >> 8 & 0xff))
		return 0;
	vnet_count(&capture->matched, 1);
	if (!vnet_capture_take(capture, vnet_now(ctx))) {
		vnet_count(&capture->over, 1);
		return 0;
	}
	if (captured > capture->snap)
		captured = capture->snap;
	if (vnet_capture_write(ctx, local_id, what, captured))
		vnet_count(&capture->full, 1);
	return 0;
}

VNET_INLINE void vnet_capture(struct vnet_ctx *ctx, const struct vnet_port *port, __u32 direction,
			      __u32 action, __u32 reason)
{
	if (__builtin_expect(port->flags & VNET_PORT_CAPTURED, 0))
		vnet_capture_frame(ctx, port->local_id,
				   direction | (action & 0xff) << 8 | reason << 16);
}

#endif
