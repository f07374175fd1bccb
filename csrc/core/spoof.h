/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A VM speaks only for itself: source MAC always; with known addresses also the sources of IPv4,
 * IPv6, ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861). Allowed address pairs are further
 * addresses, or prefixes of them, each with one MAC: the VM's or another one, as for VRRP (RFC 9568). Of the link-local addresses
 * only the one derived from the MAC (RFC 4291, EUI-64) is the VM's without being listed: any
 * other could be its router's.
 */
#ifndef VNET_SPOOF_H
#define VNET_SPOOF_H

#include "find.h"
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

/*
 * Whether the port may use the address with the MAC, 0 for any of its MACs; with its own yes when its
 * addresses are not known. One key at a time: callers' stacks have no room for both.
 */
VNET_APART int vnet_owns_with(struct vnet_ctx *ctx, const struct vnet_port *port, __u64 mac,
			      const __u8 *address)
{
	union {
		struct vnet_address_key exact;
		struct vnet_pair_key pair;
	} key;

	if (!mac || mac == port->mac) {
		if (!(port->flags & VNET_PORT_ADDRESSES))
			return 1;
		key.exact.local_id = port->local_id;
		key.exact.zero = 0;
		__builtin_memcpy(key.exact.address, address, 16);
		if (vnet_has_address(ctx, &key.exact) || vnet_is_own_link_local(port, address))
			return 1;
	}
	if (!(port->flags & VNET_PORT_PAIRS))
		return 0;
	key.pair.prefix = VNET_PAIR_PREFIX;
	key.pair.local_id = port->local_id;
	key.pair.mac = mac;
	__builtin_memcpy(key.pair.address, address, 16);
	return vnet_is_pair(ctx, &key.pair);
}

VNET_INLINE int vnet_owns(struct vnet_ctx *ctx, const struct vnet_port *port, const __u8 *address)
{
	return vnet_owns_with(ctx, port, 0, address);
}

VNET_INLINE __u32 vnet_guard_arp(struct vnet_ctx *ctx, const struct vnet_port *port,
				 __u64 source_mac)
{
	__u8 arp[28];
	__u8 sender[16];
	int probes;

	if (vnet_load(ctx, VNET_ETH_LEN, arp, sizeof(arp)))
		return VNET_REASON_MALFORMED;
	/* Ethernet and IPv4 only. */
	if (vnet_be16(arp) != 1 || vnet_be16(arp + 2) != VNET_ETH_IPV4 || arp[4] != 6 ||
	    arp[5] != 4)
		return VNET_REASON_MALFORMED;
	if (vnet_mac(arp + 8) != source_mac)
		return VNET_REASON_ARP_SPOOF;
	probes = vnet_be32(arp + 14) == 0;
	if (probes && source_mac == port->mac) /* or QEMU's announcement */
		return VNET_REASON_NONE;
	vnet_map_ipv4(sender, probes ? arp + 24 : arp + 14);
	return vnet_owns_with(ctx, port, source_mac, sender) ? VNET_REASON_NONE
							     : VNET_REASON_ARP_SPOOF;
}

/* The link-layer addresses among the options of a neighbour discovery message. */
VNET_INLINE __u32 vnet_guard_nd_options(struct vnet_ctx *ctx, const struct vnet_packet *p,
					__u32 offset)
{
	__u8 option[8];

	for (int i = 0; i < VNET_ND_OPTIONS; i++) {
		if (offset >= p->end)
			return VNET_REASON_NONE;
		if (vnet_load_ip(ctx, p, offset, option, sizeof(option)) || option[1] == 0)
			return VNET_REASON_MALFORMED;
		if ((option[0] == 1 || option[0] == 2) && vnet_mac(option + 2) != p->source_mac)
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
		return vnet_guard_nd_options(ctx, p, p->l4 + 8);
	if (vnet_load_ip(ctx, p, p->l4 + 8, target, sizeof(target)))
		return VNET_REASON_MALFORMED;
	/* An advertisement claims its target; so does a probe for duplicates, sent from ::. */
	if ((p->type == VNET_ND_ADVERT || vnet_is_unspecified(p->source)) &&
	    !vnet_owns_with(ctx, port, p->source_mac, target))
		return VNET_REASON_ND_SPOOF;
	return vnet_guard_nd_options(ctx, p, p->l4 + 24);
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
	return vnet_owns_with(ctx, port, p->source_mac, p->source) ? VNET_REASON_NONE
								   : VNET_REASON_IP_SPOOF;
}

/*
 * A MAC of an allowed address pair, which several ports may have, is where it spoke last. A port's own
 * MAC is nobody else's.
 */
VNET_APART void vnet_learn_mac(struct vnet_ctx *ctx, const struct vnet_port *port, __u64 mac)
{
	struct vnet_mac_key key = {.mac = mac, .network = port->network};
	const struct vnet_port *holder;
	__u32 *id = vnet_find_mac(ctx, &key);

	if (id && *id == port->local_id)
		return;
	holder = id ? vnet_port(ctx, *id) : NULL;
	if (!holder || holder->mac != mac)
		vnet_put_mac_place(ctx, &key, port->local_id);
}

/* It spoke elsewhere. */
VNET_APART void vnet_forget_mac(struct vnet_ctx *ctx, __u32 network, __u64 mac)
{
	struct vnet_mac_key key = {.mac = mac, .network = network};
	struct vnet_port *holder;
	__u32 *id = vnet_find_mac(ctx, &key);

	holder = id ? vnet_port(ctx, *id) : NULL;
	if (holder && holder->mac != mac)
		vnet_remove_mac_place(ctx, &key);
	else if (holder && holder->flags & VNET_PORT_RELAYED)
		holder->seen_outside = 1;
}

/*
 * A frame with another MAC than the port's own is of an allowed address pair, with the pair's address.
 * Where it came from is where that MAC is now.
 */
VNET_INLINE __u32 vnet_guard_pair(struct vnet_ctx *ctx, const struct vnet_port *port,
				  const struct vnet_packet *p)
{
	if (p->source_mac == port->mac)
		return VNET_REASON_NONE;
	if (!vnet_owns_with(ctx, port, p->source_mac, p->source))
		return VNET_REASON_MAC_SPOOF;
	vnet_learn_mac(ctx, port, p->source_mac);
	return VNET_REASON_NONE;
}

/* The same of ARP, with the addresses that it says. */
VNET_INLINE __u32 vnet_guard_arp_pair(struct vnet_ctx *ctx, const struct vnet_port *port,
				      const struct vnet_packet *p)
{
	__u32 reason = vnet_guard_arp(ctx, port, p->source_mac);

	if (!reason && p->source_mac != port->mac)
		vnet_learn_mac(ctx, port, p->source_mac);
	return reason;
}

VNET_INLINE int vnet_may_send_from(const struct vnet_port *port, __u64 mac)
{
	return mac == port->mac || port->flags & VNET_PORT_PAIRS;
}

/* Whether a frame to this MAC is for the port. */
VNET_INLINE int vnet_is_for(struct vnet_ctx *ctx, const struct vnet_port *port, __u64 mac)
{
	return mac == port->mac || (port->flags & VNET_PORT_PAIRS &&
				    vnet_look_up_mac(ctx, port->network, mac) == port->local_id);
}

#endif
