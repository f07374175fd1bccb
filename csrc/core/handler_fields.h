/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the operator's tables can ask of a frame: struct vnet_fields, from its headers, its port and
 * its connection. A frame from a VM is checked first: no table sees what a VM says in somebody
 * else's name.
 */
#ifndef VNET_HANDLER_FIELDS_H
#define VNET_HANDLER_FIELDS_H

#include "handler_abi.h"
#include "handler_env.h"
#include "pipeline.h"

/* A frame on its way through the tables. Its tag is off meanwhile, so that headers stay in place. */
struct vnet_walk {
	struct vnet_fields fields; /* of the frame as it is now */
	struct vnet_conn_key key;  /* of its connection, when fields.state has TRACKED */
	__u32 l4;                  /* offset of its transport header */
	__u32 action;              /* with which it leaves, and the tag, as vnet_way_out() */
	__u32 ifindex;
	__u32 reason; /* why it is dropped */
	__u16 tci;    /* of its tag, when fields.vlan has VNET_VLAN_PRESENT */
	__u16 zero;
	__u32 nat[2]; /* handlers that say what its source and its destination are translated to */
	__u32 unused;
};

#define VNET_DEI 0x1000 /* of a tag; the fields have VNET_VLAN_PRESENT in its place */

VNET_INLINE void vnet_walk_tag(struct vnet_walk *walk, __u16 tci)
{
	walk->tci = tci;
	walk->fields.vlan = (tci & ~VNET_DEI) | VNET_VLAN_PRESENT;
}

VNET_INLINE int vnet_walk_tagged(const struct vnet_walk *walk)
{
	return walk->fields.vlan & VNET_VLAN_PRESENT;
}

VNET_INLINE __u32 vnet_walk_direction(const struct vnet_walk *walk)
{
	return walk->fields.kind & VNET_KIND_EGRESS ? VNET_EGRESS : VNET_INGRESS;
}

VNET_INLINE __u8 vnet_walk_fragment(const struct vnet_walk *walk)
{
	return walk->fields.kind & VNET_KIND_FRAGMENT;
}

/* Addresses, with the tag taken off. */
VNET_INLINE __u32 vnet_walk_ethernet(struct vnet_ctx *ctx, struct vnet_walk *walk,
				     struct vnet_packet *p)
{
	__u32 reason = vnet_parse_ethernet(ctx, p);
	__u16 tci;

	if (reason != VNET_REASON_VLAN)
		return reason;
	if (vnet_load_tag(ctx, &tci) || vnet_pop_tag(ctx))
		return reason;
	vnet_walk_tag(walk, tci);
	return vnet_parse_ethernet(ctx, p);
}

/* All that a VM may not say in the name of others; the same as without tables. */
VNET_INLINE __u32 vnet_walk_guard(struct vnet_ctx *ctx, struct vnet_port *port,
				  const struct vnet_packet *p)
{
	__u32 reason;

	if (!vnet_may_send_from(port, p->source_mac))
		return VNET_REASON_MAC_SPOOF;
	if (p->source_mac == port->mac)
		vnet_activate(port);
	if (p->ethertype == VNET_ETH_ARP || p->ethertype == VNET_ETH_RARP)
		return vnet_guard_arp_pair(ctx, port, p);
	if (!p->family)
		return p->source_mac == port->mac ? VNET_REASON_NONE : VNET_REASON_MAC_SPOOF;
	reason = vnet_guard_pair(ctx, port, p);
	if (!reason)
		reason = vnet_guard_source(ctx, port, p);
	if (reason)
		return reason;
	if (vnet_is_dhcp_answer(p))
		return VNET_REASON_DHCP_SERVER;
	return vnet_is_nd(p) ? vnet_guard_nd(ctx, port, p) : VNET_REASON_NONE;
}

VNET_INLINE void vnet_fill_arp(struct vnet_ctx *ctx, struct vnet_fields *fields)
{
	__u8 arp[28];

	if (vnet_load(ctx, VNET_ETH_LEN, arp, sizeof(arp)) || vnet_be16(arp) != 1 ||
	    vnet_be16(arp + 2) != VNET_ETH_IPV4 || arp[4] != 6 || arp[5] != 4 || arp[6])
		return;
	fields->type = arp[7];
	vnet_map_ipv4(fields->source, arp + 14);
	vnet_map_ipv4(fields->destination, arp + 24);
}

VNET_INLINE void vnet_fill_ip(struct vnet_ctx *ctx, struct vnet_fields *fields,
			      const struct vnet_packet *p)
{
	__u8 head[2] = {0};

	__builtin_memcpy(fields->source, p->source, 16);
	__builtin_memcpy(fields->destination, p->destination, 16);
	fields->family = p->family;
	fields->proto = p->proto;
	fields->kind |= p->fragment;
	vnet_load(ctx, VNET_ETH_LEN, head, sizeof(head));
	fields->dscp = p->family == 4 ? head[1] >> 2 : (head[0] & 0x0f) << 2 | head[1] >> 6;
	if (vnet_has_ports(p->proto)) {
		fields->source_port = p->source_port;
		fields->destination_port = p->destination_port;
	}
	fields->tcp_flags = p->tcp_flags;
	if (vnet_is_icmp(p)) {
		fields->type = p->type;
		fields->code = p->code;
	}
}

VNET_INLINE struct vnet_conn *vnet_walk_conn(struct vnet_ctx *ctx, const struct vnet_port *port,
					     const struct vnet_conn_key *key)
{
	struct vnet_conn *conn = vnet_conn_find(ctx, port->local_id, key);

	return conn && conn->expires_ns > vnet_now(ctx) ? conn : NULL;
}

/* An ICMP error is of the connection that it quotes. */
VNET_INLINE void vnet_fill_related(struct vnet_ctx *ctx, struct vnet_walk *walk,
				   const struct vnet_port *port, const struct vnet_packet *p,
				   __u8 direction)
{
	struct vnet_conn_key key;
	struct vnet_conn *conn;

	if (p->fragment || !vnet_quoted_key(ctx, p, direction, &key) ||
	    !vnet_same(p->destination, direction == VNET_INGRESS ? key.local : key.remote))
		return;
	conn = vnet_walk_conn(ctx, port, &key);
	if (!conn)
		return;
	walk->key = key;
	walk->fields.state = VNET_CONN_BIT_TRACKED | VNET_CONN_BIT_RELATED;
	walk->fields.mark = conn->mark;
}

/* Of a frame whose connection is not there. */
VNET_INLINE __u8 vnet_state_without(const struct vnet_packet *p)
{
	__u8 opening = p->tcp_flags & (VNET_TCP_SYN | VNET_TCP_ACK);

	if (vnet_is_echo_reply(p) ||
	    (p->proto == VNET_TCP && opening == (VNET_TCP_SYN | VNET_TCP_ACK)))
		return VNET_CONN_BIT_TRACKED | VNET_CONN_BIT_INVALID;
	return VNET_CONN_BIT_TRACKED | VNET_CONN_BIT_NEW;
}

VNET_INLINE __u8 vnet_state_within(const struct vnet_conn *conn, __u8 direction)
{
	__u8 bits = VNET_CONN_BIT_TRACKED;

	if (direction != vnet_conn_origin(conn))
		return bits | VNET_CONN_BIT_REPLY | VNET_CONN_BIT_ESTABLISHED;
	return bits | (conn->flags & VNET_CONN_REPLIED ? VNET_CONN_BIT_ESTABLISHED
						       : VNET_CONN_BIT_NEW);
}

/* Looks only: what becomes of the connection is for later. A later fragment gets its ports in `p`. */
VNET_INLINE void vnet_fill_state(struct vnet_ctx *ctx, struct vnet_walk *walk,
				 const struct vnet_port *port, struct vnet_packet *p,
				 __u8 direction)
{
	const __u8 invalid = VNET_CONN_BIT_TRACKED | VNET_CONN_BIT_INVALID;
	struct vnet_conn_key key; /* Linux 6.1 takes it from the stack only */
	struct vnet_conn *conn;

	if (vnet_is_icmp_error(p))
		return vnet_fill_related(ctx, walk, port, p, direction);
	if (p->fragment == VNET_LATER && !vnet_fragment_recall(ctx, port, p)) {
		walk->fields.state = invalid;
		return;
	}
	if (!vnet_makes_connection(p))
		return;
	vnet_conn_key_of(&key, p, direction);
	walk->key = key;
	if (p->proto == VNET_TCP && p->fragment != VNET_LATER &&
	    !vnet_tcp_flags_valid(p->tcp_flags)) {
		walk->fields.state = invalid;
		return;
	}
	conn = vnet_walk_conn(ctx, port, &key);
	if (conn && (conn->state == VNET_STATE_TIME_WAIT || conn->state == VNET_STATE_CLOSE) &&
	    p->fragment != VNET_LATER &&
	    (p->tcp_flags & (VNET_TCP_SYN | VNET_TCP_ACK)) == VNET_TCP_SYN)
		conn = NULL;
	if (!conn || vnet_is_crossed(p, conn, direction)) {
		walk->fields.state = vnet_state_without(p);
		return;
	}
	walk->fields.state = vnet_state_within(conn, direction);
	walk->fields.mark = conn->mark;
}

/* Everything before the first table: NONE, or why the frame must go. */
VNET_OUTLINE __u32 vnet_walk_begin(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 local_id,
				   __u32 direction)
{
	struct vnet_port *port = vnet_port(ctx, local_id);
	struct vnet_packet p;
	__u32 reason;

	if (!port || !walk)
		return VNET_REASON_NO_PORT;
	reason = vnet_walk_ethernet(ctx, walk, &p);
	if (reason)
		return reason;
	if (p.ethertype == VNET_ETH_IPV4 || p.ethertype == VNET_ETH_IPV6)
		reason = vnet_parse_ip(ctx, &p);
	/* Of an open port anything may pass; what cannot be read has no fields. */
	if (reason && !(port->flags & VNET_PORT_OPEN))
		return reason;
	if (reason)
		p.family = 0;
	walk->fields.word[VNET_WORD_SOURCE_MAC] = p.source_mac | (__u64)p.ethertype << 48;
	walk->fields.word[VNET_WORD_TARGET_MAC] =
		p.target_mac | (__u64)walk->fields.vlan << 48;
	walk->fields.in_port = port->local_id;
	walk->fields.network = port->network;
	walk->fields.kind = direction == VNET_EGRESS ? VNET_KIND_EGRESS : 0;
	if (direction == VNET_EGRESS) {
		reason = VNET_REASON_NONE;
		if (port->flags & VNET_PORT_OPEN)
			vnet_activate(port);
		else
			reason = vnet_walk_guard(ctx, port, &p);
		if (reason)
			return reason;
	}
	walk->l4 = p.l4;
	if (p.ethertype == VNET_ETH_ARP)
		vnet_fill_arp(ctx, &walk->fields);
	if (!p.family)
		return VNET_REASON_NONE;
	vnet_fill_ip(ctx, &walk->fields, &p);
	if (!(port->flags & VNET_PORT_OPEN))
		vnet_fill_state(ctx, walk, port, &p, direction & 1);
	return VNET_REASON_NONE;
}

#endif
