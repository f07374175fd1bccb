/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A field of a frame is set in place, and every checksum that covers it stays as right or as wrong
 * as it was (RFC 1624). What the frame does not have is not set.
 */
#ifndef VNET_MANGLE_H
#define VNET_MANGLE_H

#include "handler_fields.h"

#define VNET_AT_IPV4_TOS (VNET_ETH_LEN + 1)
#define VNET_AT_IPV4_TTL (VNET_ETH_LEN + 8)
#define VNET_AT_IPV4_SUM (VNET_ETH_LEN + 10)
#define VNET_AT_IPV4_SOURCE (VNET_ETH_LEN + 12)
#define VNET_AT_IPV4_DESTINATION (VNET_ETH_LEN + 16)
#define VNET_AT_IPV6_NEXT (VNET_ETH_LEN + 6)
#define VNET_AT_IPV6_SOURCE (VNET_ETH_LEN + 8)
#define VNET_AT_IPV6_DESTINATION (VNET_ETH_LEN + 24)

/* Where the checksum over the addresses is, 0 when there is none. */
VNET_INLINE __u32 vnet_sum_at(const struct vnet_walk *walk)
{
	const struct vnet_fields *fields = &walk->fields;

	if (vnet_walk_fragment(walk) == VNET_LATER)
		return 0;
	if (fields->proto == VNET_TCP)
		return walk->l4 + 16;
	if (fields->proto == VNET_UDP || fields->proto == VNET_UDPLITE ||
	    fields->proto == VNET_DCCP)
		return walk->l4 + 6;
	return fields->proto == VNET_ICMPV6 && fields->family == 6 ? walk->l4 + 2 : 0;
}

/* UDP's 0 means that there is no checksum; it is then left alone, and never made. */
VNET_INLINE __u64 vnet_sum_flags(const struct vnet_walk *walk)
{
	return walk->fields.proto == VNET_UDP ? VNET_SUM_ZERO_IS_NONE : 0;
}

/* Four octets of an address. */
VNET_INLINE void vnet_set_octets(struct vnet_ctx *ctx, const struct vnet_walk *walk, __u32 offset,
				 __u32 to)
{
	__u32 at = vnet_sum_at(walk), from;
	int is_ipv4 = walk->fields.family == 4;

	if (vnet_load(ctx, offset, &from, sizeof(from)) || from == to)
		return;
	if (is_ipv4)
		vnet_fix_sum(ctx, VNET_AT_IPV4_SUM, from, to, sizeof(to));
	if (at)
		vnet_fix_transport_sum(ctx, at, from, to,
				       VNET_SUM_ADDRESS | vnet_sum_flags(walk) | sizeof(to));
	/* Of IPv6 no header checksum makes up for what changes. */
	vnet_patch(ctx, offset, &to, sizeof(to), is_ipv4 ? 0 : VNET_PATCH_COUNTED);
}

VNET_INLINE void vnet_set_address(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 ipv4,
				  __u32 ipv6, int word, __u64 to)
{
	__u64 *field = &walk->fields.word[word];

	if (walk->fields.family == 4 && ipv4) {
		vnet_set_octets(ctx, walk, ipv4, (__u32)to);
		*field = (*field & 0xffffffff) | to << 32;
	} else if (walk->fields.family == 6) {
		vnet_set_octets(ctx, walk, ipv6, (__u32)to);
		vnet_set_octets(ctx, walk, ipv6 + 4, (__u32)(to >> 32));
		*field = to;
	}
}

VNET_INLINE void vnet_set_port(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 offset,
			       __u16 *field, __u16 number)
{
	__u8 proto = walk->fields.proto;
	__u16 from, to = __builtin_bswap16(number);

	if ((proto != VNET_TCP && proto != VNET_UDP) || vnet_walk_fragment(walk) == VNET_LATER ||
	    vnet_load(ctx, walk->l4 + offset, &from, sizeof(from)))
		return;
	*field = number;
	if (from == to)
		return;
	vnet_fix_transport_sum(ctx, vnet_sum_at(walk), from, to,
			       vnet_sum_flags(walk) | sizeof(to));
	vnet_patch(ctx, walk->l4 + offset, &to, sizeof(to), 0);
}

/* Two octets of the IP header, of which `mask` become `bits`. */
VNET_INLINE void vnet_set_bits(struct vnet_ctx *ctx, const struct vnet_walk *walk, __u32 offset,
			       __u16 bits, __u16 mask)
{
	int is_ipv4 = walk->fields.family == 4;
	__u16 from, to;

	if (vnet_load(ctx, offset, &from, sizeof(from)))
		return;
	to = (from & ~__builtin_bswap16(mask)) | __builtin_bswap16(bits);
	if (is_ipv4)
		vnet_fix_sum(ctx, VNET_AT_IPV4_SUM, from, to, sizeof(to));
	vnet_patch(ctx, offset, &to, sizeof(to), is_ipv4 ? 0 : VNET_PATCH_COUNTED);
}

VNET_INLINE void vnet_set_dscp(struct vnet_ctx *ctx, struct vnet_walk *walk, __u16 dscp)
{
	if (!walk->fields.family)
		return;
	dscp &= 0x3f;
	walk->fields.dscp = dscp;
	if (walk->fields.family == 4)
		vnet_set_bits(ctx, walk, VNET_AT_IPV4_TOS - 1, dscp << 2, 0x00fc);
	else
		vnet_set_bits(ctx, walk, VNET_ETH_LEN, dscp << 6, 0x0fc0);
}

VNET_INLINE void vnet_set_hops(struct vnet_ctx *ctx, const struct vnet_walk *walk, __u8 hops)
{
	if (walk->fields.family == 4)
		vnet_set_bits(ctx, walk, VNET_AT_IPV4_TTL, hops << 8, 0xff00);
	else if (walk->fields.family == 6)
		vnet_set_bits(ctx, walk, VNET_AT_IPV6_NEXT, hops, 0x00ff);
}

VNET_INLINE void vnet_set_mac(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 offset, int word,
			      __u64 mac)
{
	__u64 octets = mac & ((1ULL << 48) - 1);

	walk->fields.word[word] = (walk->fields.word[word] & ~((1ULL << 48) - 1)) | octets;
	vnet_patch(ctx, offset, &octets, 6, 0);
}

/* In the connection's entry too, as far as there is one yet. */
VNET_INLINE void vnet_set_mark(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 mark)
{
	struct vnet_conn_key key = walk->key;
	struct vnet_conn *conn;

	walk->fields.mark = mark;
	if (!(walk->fields.state & VNET_CONN_BIT_TRACKED) || !key.family)
		return;
	conn = vnet_conn_find(ctx, walk->fields.in_port, &key);
	if (!conn || conn->mark == mark)
		return;
	conn->mark = mark;
	conn->changed_ns = vnet_now(ctx);
}

/* Not inlined, as it is called from within a loop that the verifier would follow. */
VNET_OUTLINE int vnet_set_field(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 field, __u64 to)
{
	if (!walk)
		return 0;
	switch (field) {
	case VNET_SET_SOURCE_MAC:
		vnet_set_mac(ctx, walk, 6, VNET_WORD_SOURCE_MAC, to);
		break;
	case VNET_SET_TARGET_MAC:
		vnet_set_mac(ctx, walk, 0, VNET_WORD_TARGET_MAC, to);
		break;
	case VNET_SET_SOURCE:
		vnet_set_address(ctx, walk, VNET_AT_IPV4_SOURCE, VNET_AT_IPV6_SOURCE + 8,
				 VNET_WORD_SOURCE, to);
		break;
	case VNET_SET_DESTINATION:
		vnet_set_address(ctx, walk, VNET_AT_IPV4_DESTINATION, VNET_AT_IPV6_DESTINATION + 8,
				 VNET_WORD_DESTINATION, to);
		break;
	case VNET_SET_SOURCE_HIGH:
		vnet_set_address(ctx, walk, 0, VNET_AT_IPV6_SOURCE, VNET_WORD_SOURCE_HIGH, to);
		break;
	case VNET_SET_DESTINATION_HIGH:
		vnet_set_address(ctx, walk, 0, VNET_AT_IPV6_DESTINATION,
				 VNET_WORD_DESTINATION_HIGH, to);
		break;
	case VNET_SET_SOURCE_PORT:
		vnet_set_port(ctx, walk, 0, &walk->fields.source_port, to);
		break;
	case VNET_SET_DESTINATION_PORT:
		vnet_set_port(ctx, walk, 2, &walk->fields.destination_port, to);
		break;
	case VNET_SET_DSCP:
		vnet_set_dscp(ctx, walk, to);
		break;
	case VNET_SET_HOP_LIMIT:
		vnet_set_hops(ctx, walk, to);
		break;
	case VNET_SET_METADATA:
		walk->fields.metadata = to;
		break;
	case VNET_SET_MARK:
		vnet_set_mark(ctx, walk, to);
		break;
	}
	return 0;
}

#endif
