/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The DS field of a packet (RFC 2474): its class of service on the way. The two bits of ECN beside
 * it (RFC 3168) stay. IPv4's header checksum is brought up to date (RFC 1624, equation 3).
 */
#ifndef VNET_MARK_H
#define VNET_MARK_H

#include "parse.h"

VNET_INLINE void vnet_put16(__u8 *to, __u16 value)
{
	to[0] = value >> 8;
	to[1] = value & 0xff;
}

/* The checksum once a word of what it covers has changed. */
VNET_INLINE __u16 vnet_checksum_changed(__u16 checksum, __u16 from, __u16 to)
{
	__u32 sum = (__u16)~checksum + (__u32)(__u16)~from + to;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

VNET_INLINE void vnet_mark_ipv4(struct vnet_ctx *ctx, __u32 dscp)
{
	__u8 first[2], checksum[2];
	__u16 old, new;

	if (vnet_load(ctx, VNET_ETH_LEN, first, sizeof(first)) ||
	    vnet_load(ctx, VNET_ETH_LEN + 10, checksum, sizeof(checksum)))
		return;
	old = vnet_be16(first);
	new = (old & 0xff03) | dscp << 2;
	if (old == new)
		return;
	vnet_put16(first, new);
	vnet_put16(checksum, vnet_checksum_changed(vnet_be16(checksum), old, new));
	if (!vnet_store(ctx, VNET_ETH_LEN, first, sizeof(first)))
		vnet_store(ctx, VNET_ETH_LEN + 10, checksum, sizeof(checksum));
}

VNET_INLINE void vnet_mark_ipv6(struct vnet_ctx *ctx, __u32 dscp)
{
	__u8 first[2];
	__u16 old, new;

	if (vnet_load(ctx, VNET_ETH_LEN, first, sizeof(first)))
		return;
	old = vnet_be16(first);
	new = (old & 0xf03f) | dscp << 6;
	if (old == new)
		return;
	vnet_put16(first, new);
	vnet_store(ctx, VNET_ETH_LEN, first, sizeof(first));
}

/* A frame whose headers are sound; what is not IP stays as it is. */
VNET_INLINE void vnet_mark(struct vnet_ctx *ctx, __u32 dscp)
{
	__u8 ethertype[2];

	if (vnet_load(ctx, 12, ethertype, sizeof(ethertype)))
		return;
	if (vnet_be16(ethertype) == VNET_ETH_IPV4)
		vnet_mark_ipv4(ctx, dscp);
	else if (vnet_be16(ethertype) == VNET_ETH_IPV6)
		vnet_mark_ipv6(ctx, dscp);
}

#endif
