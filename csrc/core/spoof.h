/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A VM speaks only for itself: source MAC always; with known addresses also the sources of IPv4,
 * IPv6, ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861). Of the link-local addresses
 * only the one derived from the MAC (RFC 4291, EUI-64) is the VM's without being listed: any
 * other could be its router's.
 */
#ifndef VNET_SPOOF_H
#define VNET_SPOOF_H

#include "parse.h"

#define VNET_ND_ROUTER_SOLICIT 133
#define VNET_ND_ROUTER_ADVERT 134
#define VNET_ND_SOLICIT 135
#define VNET_ND_ADVERT 136
#define VNET_ND_REDIRECT 137
#define VNET_ND_OPTIONS 4

VNET_INLINE int vnet_is_unspecified(const __u8 *address)
{
	const __u64 *words = (const __u64 *)address;

	return words[0] == 0 && words[1] == 0;
}

VNET_INLINE int vnet_is_own_link_local(const struct vnet_port *port, const __u8 *address)
{
	__u64 mac = port->mac;

	return address[0] == 0xfe && address[1] == 0x80 && address[2] == 0 && address[3] == 0 &&
	       address[4] == 0 && address[5] == 0 && address[6] == 0 && address[7] == 0 &&
	       address[8] == ((mac & 0xff) ^ 2) && address[9] == (mac >> 8 & 0xff) &&
	       address[10] == (mac >> 16 & 0xff) && address[11] == 0xff && address[12] == 0xfe &&
	       address[13] == (mac >> 24 & 0xff) && address[14] == (mac >> 32 & 0xff) &&
	       address[15] == (mac >> 40 & 0xff);
}

/* Whether the port may use the address; yes when its addresses are not known. */
VNET_APART int vnet_owns(struct vnet_ctx *ctx, const struct vnet_port *port, const __u8 *address)
{
	struct vnet_address_key key;

	if (!(port->flags & VNET_PORT_ADDRESSES))
		return 1;
	key.local_id = port->local_id;
	key.zero = 0;
	__builtin_memcpy(key.address, address, 16);
	return vnet_has_address(ctx, &key) || vnet_is_own_link_local(port, address);
}

VNET_INLINE __u32 vnet_guard_arp(struct vnet_ctx *ctx, const struct vnet_port *port)
{
	__u8 arp[28];
	__u8 sender[16];

	if (vnet_load(ctx, VNET_ETH_LEN, arp, sizeof(arp)))
		return VNET_REASON_MALFORMED;
	/* Ethernet and IPv4 only. */
	if (vnet_be16(arp) != 1 || vnet_be16(arp + 2) != VNET_ETH_IPV4 || arp[4] != 6 ||
	    arp[5] != 4)
		return VNET_REASON_MALFORMED;
	if (vnet_mac(arp + 8) != port->mac)
		return VNET_REASON_ARP_SPOOF;
	if (vnet_be32(arp + 14) == 0) /* probe, or QEMU's announcement */
		return VNET_REASON_NONE;
	vnet_map_ipv4(sender, arp + 14);
	return vnet_owns(ctx, port, sender) ? VNET_REASON_NONE : VNET_REASON_ARP_SPOOF;
}

/* The link-layer addresses among the options of a neighbour discovery message. */
VNET_INLINE __u32 vnet_guard_nd_options(struct vnet_ctx *ctx, const struct vnet_port *port,
					const struct vnet_packet *p, __u32 offset)
{
	__u8 option[8];

	for (int i = 0; i < VNET_ND_OPTIONS; i++) {
		if (offset >= p->end)
			return VNET_REASON_NONE;
		if (vnet_load_ip(ctx, p, offset, option, sizeof(option)) || option[1] == 0)
			return VNET_REASON_MALFORMED;
		if ((option[0] == 1 || option[0] == 2) && vnet_mac(option + 2) != port->mac)
			return VNET_REASON_ND_SPOOF;
		offset += option[1] * 8;
	}
	return offset >= p->end ? VNET_REASON_NONE : VNET_REASON_ND_SPOOF;
}

VNET_INLINE __u32 vnet_guard_nd(struct vnet_ctx *ctx, const struct vnet_port *port,
				const struct vnet_packet *p)
{
	__u8 target[16];

	if (p->type == VNET_ND_ROUTER_ADVERT || p->type == VNET_ND_REDIRECT)
		return VNET_REASON_ROUTER_ADVERT;
	if (p->hops != 255 || p->code != 0 || p->fragment)
		return VNET_REASON_MALFORMED;
	if (!(port->flags & VNET_PORT_ADDRESSES))
		return VNET_REASON_NONE;
	if (p->type == VNET_ND_ROUTER_SOLICIT)
		return vnet_guard_nd_options(ctx, port, p, p->l4 + 8);
	if (vnet_load_ip(ctx, p, p->l4 + 8, target, sizeof(target)))
		return VNET_REASON_MALFORMED;
	/* An advertisement claims its target; so does a probe for duplicates, sent from ::. */
	if ((p->type == VNET_ND_ADVERT || vnet_is_unspecified(p->source)) &&
	    !vnet_owns(ctx, port, target))
		return VNET_REASON_ND_SPOOF;
	return vnet_guard_nd_options(ctx, port, p, p->l4 + 24);
}

VNET_INLINE int vnet_is_nd(const struct vnet_packet *p)
{
	return p->family == 6 && p->proto == VNET_ICMPV6 && p->fragment != VNET_LATER &&
	       p->type >= VNET_ND_ROUTER_SOLICIT && p->type <= VNET_ND_REDIRECT;
}

VNET_INLINE int vnet_is_mld(const struct vnet_packet *p)
{
	return p->family == 6 && p->proto == VNET_ICMPV6 && p->fragment != VNET_LATER &&
	       ((p->type >= 130 && p->type <= 132) || p->type == 143);
}

VNET_INLINE int vnet_is_udp(const struct vnet_packet *p, __u16 source, __u16 destination)
{
	return p->proto == VNET_UDP && p->fragment != VNET_LATER && p->source_port == source &&
	       p->destination_port == destination;
}

VNET_INLINE int vnet_is_dhcp_request(const struct vnet_packet *p)
{
	return p->family == 4 ? vnet_is_udp(p, 68, 67) : vnet_is_udp(p, 546, 547);
}

VNET_INLINE int vnet_is_dhcp_answer(const struct vnet_packet *p)
{
	return p->family == 4 ? vnet_is_udp(p, 67, 68) : vnet_is_udp(p, 547, 546);
}

/* The source address of a frame from the VM. */
VNET_INLINE __u32 vnet_guard_source(struct vnet_ctx *ctx, const struct vnet_port *port,
				    const struct vnet_packet *p)
{
	if (!(port->flags & VNET_PORT_ADDRESSES))
		return VNET_REASON_NONE;
	if (p->family == 4 && vnet_be32(p->source + 12) == 0)
		return vnet_is_dhcp_request(p) && vnet_be32(p->destination + 12) == 0xffffffff
			       ? VNET_REASON_NONE
			       : VNET_REASON_IP_SPOOF;
	if (p->family == 6 && vnet_is_unspecified(p->source))
		return vnet_is_nd(p) || vnet_is_mld(p) ? VNET_REASON_NONE : VNET_REASON_IP_SPOOF;
	return vnet_owns(ctx, port, p->source) ? VNET_REASON_NONE : VNET_REASON_IP_SPOOF;
}

#endif
