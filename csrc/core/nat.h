/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Translation of addresses and ports, as rules of the operator's tables say it for connections that
 * begin (RFC 3022; the choice of ports as in RFC 4787, which keeps one if it is free).
 *
 * A connection has up to three names: its VM's (inner), the one under which it is tracked and judged,
 * and the others' (outer). Destinations are translated before policy, sources behind it, in both
 * directions: so policy knows the VM by its own address and its peer by the peer's. Two entries in the
 * port's table of connections lead from either end's name to the other's, and so they move with the
 * VM, and count against its quota. They are made once policy has let the first frame pass.
 */
#ifndef VNET_NAT_H
#define VNET_NAT_H

#include "tables.h"

/* Which frames an entry is for: those of this direction. */
enum vnet_nat_way { VNET_NAT_EGRESS = 1, VNET_NAT_INGRESS = 2 };

/* A frame between the two steps. */
struct vnet_nat {
	struct vnet_walk walk;     /* what mangle.h wants to know */
	struct vnet_conn_key key;  /* its connection as the frame has it, and the way */
	struct vnet_conn_key peer; /* the same as the other end has it, and the other way */
	__u32 quoted;              /* where the IP header is that an ICMP error quotes; 0: it is none */
	__u32 ports;               /* as in VNET_OP_NAT: those for the source; 0: any */
	__u64 now, expires_ns;     /* of its entries, with `flags` */
	__u8 flags;
	__u8 is_new;
	__u8 is_taken;   /* the name under which it would be tracked is another one's */
	__u8 may_choose; /* a port for the source */
	__u8 is_fresh;   /* its entries need no look */
	__u8 is_sender;  /* of an error: who sends it is the connection's end */
	__u8 zero[2];
};

/* How often another port is tried. */
#define VNET_NAT_TRIES 64
#define VNET_NAT_FIRST_PORT 1024

#include "nat_env.h"

/* An entry has the other name in the places of the windows and of the mark. */
VNET_INLINE __u8 *vnet_nat_address(struct vnet_conn *conn, int remote)
{
	return (__u8 *)&conn->window[remote];
}

VNET_INLINE void vnet_nat_peer(struct vnet_conn_key *peer, const struct vnet_conn_key *key,
			       struct vnet_conn *conn)
{
	*peer = *key;
	__builtin_memcpy(peer->local, vnet_nat_address(conn, 0), 16);
	__builtin_memcpy(peer->remote, vnet_nat_address(conn, 1), 16);
	peer->local_port = conn->mark & 0xffff;
	peer->remote_port = conn->mark >> 16;
	peer->way = VNET_NAT_EGRESS + VNET_NAT_INGRESS - key->way;
}

/* The name under which it is tracked: the destination is translated, the source is not. */
VNET_INLINE void vnet_nat_tracked(struct vnet_conn_key *tracked, const struct vnet_nat *nat)
{
	*tracked = nat->key;
	tracked->way = 0;
	if (nat->key.way == VNET_NAT_EGRESS) {
		__builtin_memcpy(tracked->remote, nat->peer.remote, 16);
		tracked->remote_port = nat->peer.remote_port;
	} else {
		__builtin_memcpy(tracked->local, nat->peer.local, 16);
		tracked->local_port = nat->peer.local_port;
	}
}

/* -- the frame */

VNET_INLINE void vnet_nat_set_address(struct vnet_ctx *ctx, struct vnet_nat *nat, __u32 field,
				      const __u8 *address)
{
	const __u64 *words = (const __u64 *)address;

	if (nat->walk.fields.family == 4) {
		vnet_set_field(ctx, &nat->walk, field, words[1] >> 32);
		return;
	}
	vnet_set_field(ctx, &nat->walk, field + 2, words[0]);
	vnet_set_field(ctx, &nat->walk, field, words[1]);
}

VNET_INLINE void vnet_nat_set(struct vnet_ctx *ctx, struct vnet_nat *nat, __u32 field,
			      const __u8 *address, __u16 port)
{
	vnet_nat_set_address(ctx, nat, field, address);
	if (!nat->quoted && vnet_has_ports(nat->key.proto))
		vnet_set_field(ctx, &nat->walk,
			       field == VNET_SET_SOURCE ? VNET_SET_SOURCE_PORT
							: VNET_SET_DESTINATION_PORT,
			       port);
}

/*
 * Four octets of an address in a quoted header. Its checksum makes up for what changes in IPv4;
 * otherwise the error's own does. That of the quoted transport header is left alone: most of it was
 * not quoted.
 */
VNET_INLINE void vnet_nat_quote_octets(struct vnet_ctx *ctx, const struct vnet_nat *nat, __u32 at,
				       __u32 to)
{
	__u32 from;

	if (vnet_load(ctx, at, &from, sizeof(from)) || from == to)
		return;
	if (nat->key.family == 4)
		vnet_fix_sum(ctx, nat->quoted + 10, from, to, sizeof(to));
	else
		vnet_fix_transport_sum(ctx, nat->walk.l4 + 2, from, to, sizeof(to));
	vnet_patch(ctx, at, &to, sizeof(to), 0);
}

/* The source of the quoted packet, or its destination. */
VNET_OUTLINE int vnet_nat_quote(struct vnet_ctx *ctx, __u32 is_source, __u64 high, __u64 low,
				__u32 port)
{
	struct vnet_nat *nat = vnet_nat(ctx);
	__u32 transport, at;
	__u16 from, to = __builtin_bswap16((__u16)port);
	__u8 first = 0;

	if (!nat)
		return 0;
	if (nat->key.family == 4) {
		if (vnet_load(ctx, nat->quoted, &first, sizeof(first)))
			return 0;
		vnet_nat_quote_octets(ctx, nat, nat->quoted + (is_source ? 12 : 16), low >> 32);
		transport = nat->quoted + (first & 15) * 4;
	} else {
		at = nat->quoted + (is_source ? 8 : 24);
		vnet_nat_quote_octets(ctx, nat, at, (__u32)high);
		vnet_nat_quote_octets(ctx, nat, at + 4, high >> 32);
		vnet_nat_quote_octets(ctx, nat, at + 8, (__u32)low);
		vnet_nat_quote_octets(ctx, nat, at + 12, low >> 32);
		transport = nat->quoted + 40;
	}
	at = transport + (is_source ? 0 : 2);
	if ((nat->key.proto != VNET_TCP && nat->key.proto != VNET_UDP) ||
	    vnet_load(ctx, at, &from, sizeof(from)) || from == to)
		return 0;
	vnet_fix_transport_sum(ctx, nat->walk.l4 + 2, from, to, sizeof(to));
	vnet_patch(ctx, at, &to, sizeof(to), 0);
	return 0;
}

/*
 * One end's new address and port: of the frame, and of what an error quotes, which went the other way.
 * A router's error keeps the router's address.
 */
VNET_INLINE void vnet_nat_rewrite(struct vnet_ctx *ctx, struct vnet_nat *nat, int is_source)
{
	int remote = (nat->key.way == VNET_NAT_EGRESS) != is_source;
	const __u8 *address = remote ? nat->peer.remote : nat->peer.local;
	__u16 port = remote ? nat->peer.remote_port : nat->peer.local_port;
	const __u64 *words = (const __u64 *)address;

	if (nat->quoted)
		vnet_nat_quote(ctx, !is_source, words[0], words[1], port);
	if (!is_source || !nat->quoted || nat->is_sender)
		vnet_nat_set(ctx, nat, is_source ? VNET_SET_SOURCE : VNET_SET_DESTINATION, address,
			     port);
}

/* -- before policy */

/* What a rule says of one end, into these places of the other name; the ports. */
VNET_INLINE __u32 vnet_nat_read(struct vnet_ctx *ctx, __u32 index, __u32 field, __u8 family,
				__u8 *address)
{
	const struct vnet_handler *handler = index ? vnet_handler(ctx, index) : NULL;
	__u64 *words = (__u64 *)address;
	const struct vnet_op *op;
	__u64 high = 0;

	if (!handler)
		return ~0U;
	for (int i = 0; i < VNET_MAX_OPS; i++) {
		op = &handler->actions.op[i];
		if (op->code != VNET_OP_NAT)
			continue;
		if (op->field == field + 2)
			high = op->wide;
		if (op->field != field || op->arg != family)
			continue;
		words[0] = family == 4 ? 0 : high;
		words[1] = family == 4 ? op->wide << 32 | 0xffff0000U : op->wide;
		return op->value;
	}
	return ~0U;
}

/* A connection that begins, as its rules want it; whether anything of it changes. */
VNET_INLINE int vnet_nat_choose(struct vnet_ctx *ctx, struct vnet_nat *nat, __u32 source,
				__u32 destination)
{
	int egress = nat->key.way == VNET_NAT_EGRESS;
	int ported = nat->key.proto == VNET_TCP || nat->key.proto == VNET_UDP;
	__u32 from, to;

	nat->peer = nat->key;
	nat->peer.way = VNET_NAT_EGRESS + VNET_NAT_INGRESS - nat->key.way;
	from = vnet_nat_read(ctx, source, VNET_NAT_SOURCE, nat->key.family,
			     egress ? nat->peer.local : nat->peer.remote);
	to = vnet_nat_read(ctx, destination, VNET_NAT_DESTINATION, nat->key.family,
			   egress ? nat->peer.remote : nat->peer.local);
	if (to != ~0U && (to & 0xffff) && ported) {
		if (egress)
			nat->peer.remote_port = to & 0xffff;
		else
			nat->peer.local_port = to & 0xffff;
	}
	nat->may_choose = from != ~0U && ported;
	nat->ports = nat->may_choose ? from : 0;
	nat->is_new = 1;
	return from != ~0U || to != ~0U;
}

/* Not an answer: its question was not translated, or is not known. */
VNET_INLINE int vnet_nat_may_begin(const struct vnet_packet *p)
{
	if (p->fragment == VNET_LATER || vnet_is_echo_reply(p))
		return 0;
	return p->proto != VNET_TCP || !(p->tcp_flags & VNET_TCP_RST ||
					 (p->tcp_flags & VNET_TCP_SYN && p->tcp_flags & VNET_TCP_ACK));
}

VNET_INLINE struct vnet_conn *vnet_nat_find(struct vnet_ctx *ctx, __u32 local_id,
					    const struct vnet_conn_key *key)
{
	struct vnet_conn *conn = vnet_conn_find(ctx, local_id, key);

	return conn && conn->expires_ns > vnet_now(ctx) ? conn : NULL;
}

/* Whether a connection that is not over has this name. */
VNET_INLINE int vnet_nat_is_taken(struct vnet_ctx *ctx, __u32 local_id,
				  const struct vnet_conn_key *key)
{
	const struct vnet_conn *conn = vnet_conn_seek(ctx, local_id, key);

	return conn && conn->expires_ns > vnet_now(ctx) && conn->state != VNET_STATE_TIME_WAIT &&
	       conn->state != VNET_STATE_CLOSE;
}

/* Of about a second, in ns: once in it entries are seen to. Never 0, as of one from another host. */
#define VNET_NAT_TICK_SHIFT 30

VNET_INLINE __u32 vnet_nat_tick(__u64 now)
{
	return (__u32)(now >> VNET_NAT_TICK_SHIFT) | 1U << 31;
}

/* The connection of the frame, in the name that it has it by; 0: it has none that is translated. */
VNET_INLINE int vnet_nat_key_of(struct vnet_ctx *ctx, const struct vnet_port *port,
				struct vnet_nat *nat, struct vnet_packet *p, __u8 direction,
				struct vnet_conn_key *key)
{
	/* Copies of such a frame run through here themselves, before it does the second step. */
	if (vnet_is_group(p))
		return 0;
	if (vnet_is_icmp_error(p)) {
		if (p->fragment || !vnet_quoted_key(ctx, p, direction, key) ||
		    !vnet_same(p->destination, direction == VNET_INGRESS ? key->local : key->remote))
			return 0;
		nat->quoted = p->l4 + 8;
		nat->is_sender = vnet_same(p->source, direction == VNET_INGRESS ? key->remote
										 : key->local);
		return 1;
	}
	if (!vnet_makes_connection(p) ||
	    (p->fragment == VNET_LATER && !vnet_fragment_recall(ctx, port, p)))
		return 0;
	vnet_conn_key_of(key, p, direction);
	return 1;
}

/*
 * The first step, with the handlers that the tables have for the frame's source and destination.
 * Whether there is a second, vnet_nat_end(), once policy has let it pass.
 */
VNET_OUTLINE int vnet_nat_begin(struct vnet_ctx *ctx, __u32 local_id, __u32 direction, __u32 source,
				__u32 destination)
{
	const struct vnet_port *port = vnet_port(ctx, local_id);
	struct vnet_nat *nat = vnet_nat(ctx);
	struct vnet_conn_key key __attribute__((aligned(8)));
	struct vnet_packet p;
	struct vnet_conn *conn;

	if (!port || !nat || vnet_parse_ethernet(ctx, &p) ||
	    (p.ethertype != VNET_ETH_IPV4 && p.ethertype != VNET_ETH_IPV6) || vnet_parse_ip(ctx, &p))
		return 0;
	__builtin_memset(nat, 0, sizeof(*nat));
	nat->walk.fields.family = p.family;
	nat->walk.fields.kind = p.fragment;
	nat->walk.l4 = p.l4;
	if (!vnet_nat_key_of(ctx, port, nat, &p, direction & 1, &key))
		return 0;
	nat->walk.fields.proto = p.proto;
	key.way = direction == VNET_EGRESS ? VNET_NAT_EGRESS : VNET_NAT_INGRESS;
	nat->key = key;
	conn = vnet_nat_find(ctx, local_id, &key);
	if (conn && conn->state == VNET_STATE_NAT) {
		vnet_nat_peer(&nat->peer, &nat->key, conn);
		nat->is_fresh = conn->flags & VNET_CONN_ASSURED &&
				!(p.tcp_flags & (VNET_TCP_SYN | VNET_TCP_FIN | VNET_TCP_RST)) &&
				conn->generation == vnet_nat_tick(vnet_now(ctx));
	} else {
		if (!(source | destination) || nat->quoted || !vnet_nat_may_begin(&p))
			return 0;
		/* What goes on without translation since before there was the rule. */
		key.way = 0;
		if (vnet_nat_find(ctx, local_id, &key) ||
		    !vnet_nat_choose(ctx, nat, source, destination))
			return 0;
		vnet_nat_tracked(&key, nat);
		nat->is_taken = vnet_nat_is_taken(ctx, local_id, &key);
	}
	if (p.fragment == VNET_FIRST)
		vnet_fragment_remember(ctx, port, &p);
	vnet_nat_rewrite(ctx, nat, 0);
	return 1;
}

/* -- behind policy: functions of their own, since what calls them has used most of the stack */

/* Its entries last as the connection does, or as it would where nothing is tracked. */
VNET_APART int vnet_nat_live(struct vnet_ctx *ctx, __u32 local_id, struct vnet_nat *nat)
{
	const struct vnet_settings *settings = vnet_settings(ctx);
	int egress = nat->key.way == VNET_NAT_EGRESS, tcp = nat->key.proto == VNET_TCP;
	struct vnet_conn_key key __attribute__((aligned(8)));
	struct vnet_conn *conn;
	__u8 state;

	if (!settings)
		return -1;
	nat->now = vnet_now(ctx);
	vnet_nat_tracked(&key, nat);
	conn = vnet_nat_find(ctx, local_id, &key);
	if (conn) {
		nat->expires_ns = conn->expires_ns;
		nat->flags = conn->flags & ~VNET_CONN_IMPORTED;
		/* Of one that ends each frame counts: see is_fresh. */
		if (conn->state != VNET_STATE_ESTABLISHED && conn->state != VNET_STATE_REPLIED)
			nat->flags &= ~VNET_CONN_ASSURED;
		return 0;
	}
	key = nat->key;
	conn = vnet_nat_find(ctx, local_id, &key);
	nat->flags = conn ? conn->flags & ~VNET_CONN_IMPORTED : egress ? VNET_CONN_EGRESS : 0;
	if (egress != !!(nat->flags & VNET_CONN_EGRESS))
		nat->flags |= VNET_CONN_REPLIED | VNET_CONN_ASSURED;
	if (nat->flags & VNET_CONN_REPLIED)
		state = tcp ? VNET_STATE_ESTABLISHED : VNET_STATE_REPLIED;
	else
		state = tcp ? VNET_STATE_SYN_SENT : VNET_STATE_UNREPLIED;
	nat->expires_ns = nat->now + vnet_state_life(settings, state);
	return 0;
}

/* An entry that leads to the other name, yet to be added; NULL when there is no room for one. */
VNET_INLINE struct vnet_conn *vnet_nat_draft(struct vnet_ctx *ctx, const struct vnet_nat *nat,
					     const struct vnet_conn_key *other)
{
	struct vnet_conn *conn = vnet_conn_draft(ctx);

	if (!conn)
		return NULL;
	__builtin_memset(conn, 0, sizeof(*conn));
	conn->state = VNET_STATE_NAT;
	conn->flags = nat->flags;
	conn->generation = vnet_nat_tick(nat->now);
	conn->expires_ns = nat->expires_ns;
	conn->changed_ns = nat->now;
	vnet_conn_set_age(conn, nat->now, 0);
	conn->mark = other->local_port | (__u32)other->remote_port << 16;
	__builtin_memcpy(vnet_nat_address(conn, 0), other->local, 16);
	__builtin_memcpy(vnet_nat_address(conn, 1), other->remote, 16);
	return conn;
}

/* An entry that is there, and lasts on; 0: it is not there. */
VNET_APART int vnet_nat_renew(struct vnet_ctx *ctx, __u32 local_id, const struct vnet_nat *nat,
			       const struct vnet_conn_key *of)
{
	struct vnet_conn_key key __attribute__((aligned(8))) = *of;
	struct vnet_conn *conn = vnet_nat_find(ctx, local_id, &key);

	if (!conn)
		return 0;
	conn->expires_ns = nat->expires_ns;
	conn->generation = vnet_nat_tick(nat->now);
	if (conn->flags != nat->flags) {
		conn->flags = nat->flags;
		conn->changed_ns = nat->now;
	}
	return 1;
}

VNET_APART __u32 vnet_nat_add(struct vnet_ctx *ctx, __u32 local_id, const struct vnet_nat *nat,
			       const struct vnet_conn_key *from, const struct vnet_conn_key *other)
{
	struct vnet_conn_key key __attribute__((aligned(8))) = *from;
	struct vnet_conn *conn = vnet_nat_draft(ctx, nat, other);

	if (!conn)
		return VNET_REASON_QUOTA;
	if (!vnet_conn_add(ctx, local_id, &key, conn))
		return VNET_REASON_NONE;
	vnet_conn_sweep(ctx, local_id, nat->now);
	return vnet_conn_add(ctx, local_id, &key, conn) ? VNET_REASON_QUOTA : VNET_REASON_NONE;
}

VNET_APART void vnet_nat_remove(struct vnet_ctx *ctx, __u32 local_id,
				const struct vnet_conn_key *of)
{
	struct vnet_conn_key key __attribute__((aligned(8))) = *of;

	vnet_conn_remove(ctx, local_id, &key);
}

struct vnet_nat_claim {
	struct vnet_ctx *ctx;
	__u32 local_id;
	__u32 reason; /* why there is none yet */
	__u16 port;   /* the source's own */
};

/* The port that is tried: first the frame's own, where the rule lets it have that. */
VNET_INLINE __u16 vnet_nat_candidate(const struct vnet_nat *nat, __u16 own, __u32 try)
{
	__u32 first = nat->ports ? nat->ports & 0xffff : VNET_NAT_FIRST_PORT;
	__u32 last = nat->ports ? nat->ports >> 16 : 65535;
	__u32 mixed;

	if (!nat->may_choose || (!try && (!nat->ports || (own >= first && own <= last))))
		return own;
	mixed = (__u32)(nat->now >> 10) + own * 0x9e3779b1U + try * 0x85ebca77U;
	mixed = (mixed ^ mixed >> 15) * 0x2c1b3c6dU;
	return first + (mixed ^ mixed >> 12) % (last - first + 1);
}

VNET_INLINE int vnet_nat_keeps_source(const struct vnet_nat *nat, __u16 own)
{
	if (nat->key.way == VNET_NAT_EGRESS)
		return nat->peer.local_port == own && vnet_same(nat->peer.local, nat->key.local);
	return nat->peer.remote_port == own && vnet_same(nat->peer.remote, nat->key.remote);
}

/* 1: no further try. */
static long vnet_nat_try(__u32 try, void *state)
{
	struct vnet_nat_claim *claim = state;
	struct vnet_nat *nat = vnet_nat(claim->ctx);
	struct vnet_conn_key key __attribute__((aligned(8)));
	struct vnet_conn *conn;
	__u16 port;
	int taken;

	if (!nat)
		return 1;
	port = vnet_nat_candidate(nat, claim->port, try);
	if (nat->key.way == VNET_NAT_EGRESS)
		nat->peer.local_port = port;
	else
		nat->peer.remote_port = port;
	conn = vnet_nat_draft(claim->ctx, nat, &nat->key);
	if (!conn)
		return 1;
	key = nat->peer;
	/* A connection that has this name without translation keeps it; unless it is this one. */
	key.way = 0;
	taken = !vnet_nat_keeps_source(nat, claim->port) &&
		vnet_nat_is_taken(claim->ctx, claim->local_id, &key);
	key.way = nat->peer.way;
	if (!taken)
		taken = vnet_conn_claim(claim->ctx, claim->local_id, &key, conn);
	if (taken < 0) {
		vnet_conn_sweep(claim->ctx, claim->local_id, nat->now);
		taken = vnet_conn_claim(claim->ctx, claim->local_id, &key, conn);
	}
	claim->reason = taken < 0 ? VNET_REASON_QUOTA : taken ? VNET_REASON_NAT : VNET_REASON_NONE;
	return taken <= 0 || !nat->may_choose;
}

VNET_OUTLINE __u32 vnet_nat_make(struct vnet_ctx *ctx, __u32 local_id)
{
	struct vnet_nat *nat = vnet_nat(ctx);
	struct vnet_nat_claim claim = {
		.ctx = ctx, .local_id = local_id, .reason = VNET_REASON_QUOTA};
	__u32 reason;

	if (!nat)
		return VNET_REASON_QUOTA;
	if (nat->is_taken)
		return VNET_REASON_NAT;
	claim.port = nat->key.way == VNET_NAT_EGRESS ? nat->key.local_port : nat->key.remote_port;
	vnet_loop(VNET_NAT_TRIES, vnet_nat_try, &claim);
	if (claim.reason)
		return claim.reason;
	reason = vnet_nat_add(ctx, local_id, nat, &nat->key, &nat->peer);
	if (reason)
		vnet_nat_remove(ctx, local_id, &nat->peer);
	return reason;
}

/* The second step, for a frame that goes on: NONE, or why it must not. */
VNET_OUTLINE __u32 vnet_nat_end(struct vnet_ctx *ctx, __u32 local_id)
{
	struct vnet_nat *nat = vnet_nat(ctx);
	__u32 reason = VNET_REASON_NONE;

	if (!nat || (!nat->quoted && !nat->is_fresh && vnet_nat_live(ctx, local_id, nat)))
		return VNET_REASON_QUOTA;
	if (nat->is_new) {
		reason = vnet_nat_make(ctx, local_id);
	} else if (!nat->quoted && !nat->is_fresh) {
		if (!vnet_nat_renew(ctx, local_id, nat, &nat->key))
			reason = vnet_nat_add(ctx, local_id, nat, &nat->key, &nat->peer);
		if (!reason && !vnet_nat_renew(ctx, local_id, nat, &nat->peer))
			reason = vnet_nat_add(ctx, local_id, nat, &nat->peer, &nat->key);
	}
	if (!reason)
		vnet_nat_rewrite(ctx, nat, 1);
	return reason;
}

/* What becomes of a frame that vnet_nat_begin() had before, once the rest has said `action`. */
VNET_APART __u32 vnet_nat_leave(struct vnet_ctx *ctx, const struct vnet_port *port,
				 __u32 direction, __u32 action, struct vnet_verdict *verdict)
{
	if (action == VNET_DROP)
		return action;
	verdict->reason = vnet_nat_end(ctx, port->local_id);
	if (!verdict->reason)
		return action;
	vnet_count_drop(vnet_counters(ctx, port->local_id), verdict->reason);
	vnet_capture(ctx, port, direction, VNET_DROP, verdict->reason);
	return VNET_DROP;
}

#endif
