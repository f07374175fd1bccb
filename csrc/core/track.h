/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What becomes of an IP frame at a port: one lookup when its connection is known and its verdict
 * fresh; else source address, policy, and a new connection.
 */
#ifndef VNET_TRACK_H
#define VNET_TRACK_H

#include "classify.h"
#include "parse.h"
#include "spoof.h"
#include "steady.h"

/* Next state after a segment; RFC 793 as seen from between the two ends. */
VNET_INLINE __u8 vnet_tcp_next(struct vnet_conn *conn, __u8 flags, __u8 direction)
{
	__u8 own_fin = VNET_FIN << direction, peer_fin = VNET_FIN << !direction;
	int reply = direction != vnet_conn_origin(conn);
	__u8 state = conn->state;

	if (flags & VNET_TCP_RST) {
		conn->closing |= VNET_RST << direction;
		return VNET_STATE_CLOSE;
	}
	if (state == VNET_STATE_CLOSE)
		return state;
	if (flags & VNET_TCP_SYN)
		return state == VNET_STATE_SYN_SENT && reply ? VNET_STATE_SYN_RECEIVED : state;
	if (flags & VNET_TCP_FIN) {
		if (conn->closing & own_fin)
			return state; /* sent again */
		conn->closing |= own_fin;
		return conn->closing & peer_fin ? VNET_STATE_LAST_ACK : VNET_STATE_FIN_WAIT;
	}
	if (state == VNET_STATE_SYN_RECEIVED && !reply)
		return VNET_STATE_ESTABLISHED;
	if (state == VNET_STATE_FIN_WAIT && conn->closing & peer_fin)
		return VNET_STATE_CLOSE_WAIT;
	if (state == VNET_STATE_LAST_ACK)
		return VNET_STATE_TIME_WAIT;
	return state;
}

/*
 * A frame of a connection: its state, its life, its counts. A segment whose numbers are not the
 * connection's changes neither state nor life; whether it goes on is a setting.
 */
VNET_INLINE __u32 vnet_conn_advance(struct vnet_ctx *ctx, struct vnet_conn *conn,
				    const struct vnet_packet *p, __u8 direction, __u64 now)
{
	__u8 state = conn->state, flags = conn->flags, closing = conn->closing;
	const struct vnet_settings *settings = vnet_settings(ctx);

	if (!settings)
		return VNET_REASON_NONE;
	if (p->proto == VNET_TCP) {
		if (p->fit == VNET_FIT_OUT && settings->flags & VNET_SETTINGS_STRICT)
			return VNET_REASON_TCP_WINDOW;
		if (p->fit != VNET_FIT_IN) {
			vnet_conn_count(ctx, conn, direction);
			return VNET_REASON_NONE;
		}
	}
	if (direction != vnet_conn_origin(conn))
		flags |= VNET_CONN_REPLIED;
	if (p->proto != VNET_TCP)
		state = flags & VNET_CONN_REPLIED ? VNET_STATE_REPLIED : VNET_STATE_UNREPLIED;
	else
		state = vnet_tcp_next(conn, p->tcp_flags, direction);
	if (flags & VNET_CONN_REPLIED &&
	    (state == VNET_STATE_ESTABLISHED || state == VNET_STATE_REPLIED))
		flags |= VNET_CONN_ASSURED;
	conn->expires_ns = now + vnet_state_life(settings, state);
	if (state != conn->state || flags != conn->flags || closing != conn->closing) {
		conn->state = state;
		conn->flags = flags;
		conn->changed_ns = now;
	}
	vnet_conn_count(ctx, conn, direction);
	return VNET_REASON_NONE;
}

/*
 * A TCP segment of a connection that is there and whose verdict is fresh: no look-up is made twice.
 * An opening is none, for it may begin the connection anew.
 */
VNET_OUTLINE __u32 vnet_track_segment(struct vnet_ctx *ctx, struct vnet_conn *conn,
				      struct vnet_packet *p, __u32 direction, __u32 local_id)
{
	if (!conn || !p)
		return VNET_REASON_NO_CONNECTION;
	if (!vnet_tcp_flags_valid(p->tcp_flags))
		return VNET_REASON_TCP_FLAGS;
	p->fit = vnet_window_fit(ctx, conn, p, direction & 1, local_id);
	return vnet_conn_advance(ctx, conn, p, direction & 1, vnet_now(ctx));
}

VNET_INLINE __u32 vnet_conn_create(struct vnet_ctx *ctx, const struct vnet_port *port,
				   const struct vnet_conn_key *key, const struct vnet_packet *p,
				   __u8 direction, __u32 generation, __u64 now)
{
	const struct vnet_settings *settings = vnet_settings(ctx);
	struct vnet_conn *conn = vnet_conn_draft(ctx);

	if (!conn || !settings)
		return VNET_REASON_QUOTA;
	/* The windows are TCP's, and there already: see vnet_window_look(). */
	__builtin_memset(conn, 0, offsetof(struct vnet_conn, window));
	if (p->proto != VNET_TCP)
		__builtin_memset(conn->window, 0, sizeof(conn->window));
	conn->generation = generation;
	conn->flags = direction == VNET_EGRESS ? VNET_CONN_EGRESS : 0;
	conn->mark = vnet_new_mark(ctx);
	vnet_conn_set_age(conn, now, 0);
	conn->changed_ns = now;
	if (p->proto != VNET_TCP)
		conn->state = VNET_STATE_UNREPLIED;
	else
		conn->state = p->tcp_flags & VNET_TCP_SYN ? VNET_STATE_SYN_SENT
							  : VNET_STATE_ESTABLISHED;
	conn->expires_ns = now + vnet_state_life(settings, conn->state);
	conn->packets[direction & 1] = 1;
	conn->bytes[direction & 1] = vnet_length(ctx);
	if (!vnet_conn_add(ctx, port->local_id, key, conn))
		return VNET_REASON_NONE;
	vnet_conn_sweep(ctx, port->local_id, now);
	if (!vnet_conn_add(ctx, port->local_id, key, conn))
		return VNET_REASON_NONE;
	return VNET_REASON_QUOTA;
}

/* Whether the policy lets this one frame pass, without a connection. */
VNET_INLINE __u32 vnet_admit_stateless(struct vnet_ctx *ctx, const struct vnet_packet *p,
				       __u8 direction, __u32 policy_id)
{
	const __u8 *remote = direction == VNET_EGRESS ? p->destination : p->source;
	__u16 dport = vnet_is_icmp(p) ? p->type << 8 | p->code : p->destination_port;

	return vnet_classify(ctx, policy_id, direction, p->family, p->proto, remote, dport);
}

/*
 * The first frame of a connection, or one that belongs to none. TCP in mid-stream does not tell
 * who began: it is taken up only where the policy would admit both ends' beginning it. Were one
 * enough, a VM's own segments would undo the withdrawal of an ingress rule.
 */
VNET_INLINE __u32 vnet_conn_begin(struct vnet_ctx *ctx, const struct vnet_port *port,
				  const struct vnet_conn_key *key, const struct vnet_packet *p,
				  __u8 direction, __u64 word, __u64 now)
{
	__u32 id = vnet_policy_id(word);
	__u32 reason;

	if (p->fragment == VNET_LATER)
		return VNET_REASON_FRAGMENT;
	if (p->proto == VNET_TCP && p->tcp_flags & VNET_TCP_SYN && p->tcp_flags & VNET_TCP_ACK)
		return VNET_REASON_NO_CONNECTION;
	/* Else a frame from a friend would give the VM the address that it is sent to. */
	if (direction == VNET_INGRESS && !vnet_owns(ctx, port, key->local))
		return VNET_REASON_OTHER_ADDRESS;
	reason = vnet_conn_admit(ctx, id, key, NULL, direction);
	if (p->proto != VNET_TCP || p->tcp_flags & VNET_TCP_SYN) {
		if (reason)
			return reason;
		return vnet_conn_create(ctx, port, key, p, direction,
					vnet_policy_generation(word), now);
	}
	if (!reason && !(p->tcp_flags & (VNET_TCP_RST | VNET_TCP_FIN))) {
		reason = vnet_conn_admit(ctx, id, key, NULL, !direction);
		if (!reason)
			return vnet_conn_create(ctx, port, key, p, direction,
						vnet_policy_generation(word), now);
	}
	return reason == VNET_REASON_POLICY ? VNET_REASON_NO_CONNECTION : reason;
}

/* A verdict that other rules or addresses made is made again; an entry that is refused ends. */
VNET_INLINE int vnet_conn_refresh(struct vnet_ctx *ctx, const struct vnet_port *port,
				  const struct vnet_conn_key *key, struct vnet_conn *conn,
				  __u64 word)
{
	if (conn->generation == vnet_policy_generation(word))
		return 1;
	if (!vnet_owns(ctx, port, key->local) ||
	    vnet_conn_admit(ctx, vnet_policy_id(word), key, conn, 0)) {
		vnet_conn_remove(ctx, port->local_id, key);
		return 0;
	}
	conn->generation = vnet_policy_generation(word);
	return 1;
}

/* The connection that an ICMP error is about, from the packet that it quotes (RFC 792, 4443). */
VNET_INLINE int vnet_quoted_key(struct vnet_ctx *ctx, const struct vnet_packet *p, __u8 direction,
				struct vnet_conn_key *key)
{
	__u8 header[20], transport[8];
	__u32 offset = p->l4 + 8;
	__u16 source, destination;
	int outwards = direction == VNET_INGRESS; /* it answers what the VM sent */

	__builtin_memset(key, 0, sizeof(*key));
	key->family = p->family;
	if (p->family == 4) {
		if (vnet_load_ip(ctx, p, offset, header, 20) || header[0] >> 4 != 4 ||
		    (header[0] & 15) < 5 || vnet_be16(header + 6) & 0x1fff)
			return 0;
		key->proto = header[9];
		vnet_map_ipv4(key->local, header + (outwards ? 12 : 16));
		vnet_map_ipv4(key->remote, header + (outwards ? 16 : 12));
		offset += (header[0] & 15) * 4;
	} else {
		if (vnet_load_ip(ctx, p, offset, header, 8) || header[0] >> 4 != 6 ||
		    vnet_load_ip(ctx, p, offset + 8, outwards ? key->local : key->remote, 16) ||
		    vnet_load_ip(ctx, p, offset + 24, outwards ? key->remote : key->local, 16))
			return 0;
		key->proto = header[6];
		offset += 40;
	}
	if (vnet_load_ip(ctx, p, offset, transport, 8))
		return 0;
	source = vnet_be16(transport);
	destination = vnet_be16(transport + 2);
	if (vnet_has_ports(key->proto)) {
		key->local_port = outwards ? source : destination;
		key->remote_port = outwards ? destination : source;
	} else if (key->proto == (p->family == 4 ? VNET_ICMP : VNET_ICMPV6)) {
		key->local_port = vnet_be16(transport + 4);
	}
	return 1;
}

VNET_INLINE int vnet_is_related(struct vnet_ctx *ctx, const struct vnet_port *port,
				const struct vnet_packet *p, __u8 direction, __u64 word)
{
	struct vnet_conn_key key;
	struct vnet_conn *conn;

	if (!vnet_quoted_key(ctx, p, direction, &key))
		return 0;
	/* To whoever sent the quoted packet; else it carries anything to anybody, past the policy. */
	if (!vnet_same(p->destination, direction == VNET_INGRESS ? key.local : key.remote))
		return 0;
	conn = vnet_conn_find(ctx, port->local_id, &key);
	if (!conn || conn->expires_ns <= vnet_now(ctx))
		return 0;
	return vnet_conn_refresh(ctx, port, &key, conn, word);
}

/* Frames that make no connection: group addresses, discovery, DHCP, most of ICMP. */
VNET_INLINE __u32 vnet_track_stateless(struct vnet_ctx *ctx, const struct vnet_port *port,
				       const struct vnet_packet *p, __u8 direction, __u64 word)
{
	__u32 reason;

	if (vnet_is_nd(p))
		return direction == VNET_EGRESS ? vnet_guard_nd(ctx, port, p) : VNET_REASON_NONE;
	if (vnet_is_mld(p))
		return VNET_REASON_NONE;
	if (vnet_is_icmp_error(p) && p->fragment == VNET_WHOLE &&
	    vnet_is_related(ctx, port, p, direction, word))
		return VNET_REASON_NONE;
	reason = vnet_admit_stateless(ctx, p, direction, vnet_policy_id(word));
	if (reason == VNET_REASON_POLICY && vnet_is_echo_reply(p))
		return VNET_REASON_NO_CONNECTION;
	return reason;
}

VNET_INLINE int vnet_makes_connection(const struct vnet_packet *p)
{
	return !vnet_is_group(p) && (!vnet_is_icmp(p) || vnet_is_echo(p));
}

/* A request from who was asked, or an answer from who asked: not of this connection. */
VNET_INLINE int vnet_is_crossed(const struct vnet_packet *p, const struct vnet_conn *conn,
				__u8 direction)
{
	return vnet_is_echo(p) &&
	       vnet_is_echo_reply(p) == (direction == vnet_conn_origin(conn));
}

VNET_INLINE __u32 vnet_track_whole(struct vnet_ctx *ctx, const struct vnet_port *port,
				   const struct vnet_packet *p, __u8 direction, __u64 word)
{
	__u64 now = vnet_now(ctx);
	struct vnet_conn_key key;
	struct vnet_conn *conn;
	int crossed = 0;
	__u32 reason;

	vnet_conn_key_of(&key, p, direction);
	if (vnet_makes_connection(p)) {
		if (p->proto == VNET_TCP && p->fragment != VNET_LATER &&
		    !vnet_tcp_flags_valid(p->tcp_flags))
			return VNET_REASON_TCP_FLAGS;
		conn = vnet_conn_find(ctx, port->local_id, &key);
		/* What expired is not there; a SYN begins anew what has ended. */
		if (conn && conn->expires_ns <= now)
			conn = NULL;
		if (conn &&
		    (conn->state == VNET_STATE_TIME_WAIT || conn->state == VNET_STATE_CLOSE) &&
		    p->fragment != VNET_LATER &&
		    (p->tcp_flags & (VNET_TCP_SYN | VNET_TCP_ACK)) == VNET_TCP_SYN)
			conn = NULL;
		crossed = conn && vnet_is_crossed(p, conn, direction);
		if (crossed)
			conn = NULL;
		if (conn && conn->generation == vnet_policy_generation(word))
			return vnet_conn_advance(ctx, conn, p, direction, now);
	} else {
		conn = NULL;
	}
	if (direction == VNET_EGRESS) {
		reason = vnet_guard_source(ctx, port, p);
		if (reason)
			return reason;
	}
	/* Before DHCP, as where the verdict is fresh: it is not the cache that decides. */
	if (conn && vnet_conn_refresh(ctx, port, &key, conn, word))
		return vnet_conn_advance(ctx, conn, p, direction, now);
	/* The lease of an address needs no rule; giving one out is not for VMs. */
	if (vnet_is_dhcp_answer(p))
		return direction == VNET_EGRESS ? VNET_REASON_DHCP_SERVER : VNET_REASON_NONE;
	if (direction == VNET_EGRESS && vnet_is_dhcp_request(p))
		return VNET_REASON_NONE;
	if (!vnet_makes_connection(p) || vnet_is_echo_reply(p) || crossed)
		return vnet_track_stateless(ctx, port, p, direction, word);
	return vnet_conn_begin(ctx, port, &key, p, direction, word, now);
}

VNET_INLINE void vnet_fragment_key_of(struct vnet_fragment_key *key, const struct vnet_packet *p)
{
	__builtin_memcpy(key->source, p->source, 16);
	__builtin_memcpy(key->destination, p->destination, 16);
	key->id = p->fragment_id;
	key->proto = p->fragment_proto;
	key->family = p->family;
	key->zero = 0;
}

/* Gives a later fragment the ports of its first. */
VNET_APART int vnet_fragment_recall(struct vnet_ctx *ctx, const struct vnet_port *port,
				     struct vnet_packet *p)
{
	struct vnet_fragment_key key;
	struct vnet_fragment *first;

	vnet_fragment_key_of(&key, p);
	first = vnet_fragment_find(ctx, port->local_id, &key);
	if (!first || first->expires_ns <= vnet_now(ctx))
		return 0;
	p->source_port = first->source_port;
	p->destination_port = first->destination_port;
	p->proto = first->proto;
	p->type = first->type;
	p->code = first->code;
	if (p->proto == VNET_TCP)
		p->fit = VNET_FIT_ASIDE; /* it has no number */
	return 1;
}

VNET_APART void vnet_fragment_remember(struct vnet_ctx *ctx, const struct vnet_port *port,
					const struct vnet_packet *p)
{
	struct vnet_fragment first = {
		.expires_ns = vnet_now(ctx) + VNET_FRAGMENT_NS,
		.source_port = p->source_port,
		.destination_port = p->destination_port,
		.proto = p->proto,
		.type = p->type,
		.code = p->code,
	};
	struct vnet_fragment_key key;

	vnet_fragment_key_of(&key, p);
	vnet_fragment_add(ctx, port->local_id, &key, &first);
}

/*
 * Everything but the steady state. Not inlined: the verifier looks at it once, however many
 * programs track.
 */
VNET_OUTLINE __u32 vnet_track_changes(struct vnet_ctx *ctx, struct vnet_packet *p, __u32 local_id,
				      __u32 direction)
{
	const struct vnet_port *port = vnet_port(ctx, local_id);
	__u64 word;

	if (!port || !p)
		return VNET_REASON_NO_PORT;
	/* Read once: id and generation belong together. */
	word = *(const volatile __u64 *)&port->policy;
	if (vnet_policy_id(word) == 0)
		return VNET_REASON_NO_POLICY;
	return vnet_track_whole(ctx, port, p, direction & 1, word);
}

/*
 * An IP frame at a port; what it returns is NONE or why the frame must go. Nearly all are of a
 * connection whose verdict is fresh and whose state stays: those take one look-up.
 */
VNET_INLINE __u32 vnet_track(struct vnet_ctx *ctx, const struct vnet_port *port,
			     struct vnet_packet *p, __u8 direction)
{
	__u64 word = *(const volatile __u64 *)&port->policy;
	const struct vnet_settings *settings = vnet_settings(ctx);
	struct vnet_conn *conn;
	__u32 reason;
	__u64 now;

	if (p->fragment == VNET_LATER && vnet_policy_id(word) &&
	    !vnet_fragment_recall(ctx, port, p))
		return VNET_REASON_FRAGMENT;
	if (!settings || !vnet_policy_id(word) || p->fragment == VNET_LATER || vnet_is_icmp(p) ||
	    vnet_is_group(p)) {
		reason = vnet_track_changes(ctx, p, port->local_id, direction);
		if (!reason && p->fragment == VNET_FIRST)
			vnet_fragment_remember(ctx, port, p);
		return reason;
	}
	conn = vnet_conn_of(ctx, port->local_id, p, direction);
	now = vnet_now(ctx);
	if (conn && vnet_is_steady(conn, p, direction, word, now)) {
		vnet_stay_steady(ctx, settings, conn, p, direction, now);
		return VNET_REASON_NONE;
	}
	if (p->proto == VNET_TCP) {
		/* What expired is not there. */
		if (conn && conn->expires_ns <= now)
			conn = NULL;
		if (conn && conn->generation == vnet_policy_generation(word) && !p->fragment &&
		    !vnet_is_opening(p))
			return vnet_track_segment(ctx, conn, p, direction, port->local_id);
		p->fit = vnet_window_look(ctx, conn, p, direction, port->local_id);
		if (p->fit == VNET_FIT_FLOOD)
			return VNET_REASON_HALF_OPEN;
	}
	reason = vnet_track_changes(ctx, p, port->local_id, direction);
	if (!reason && !conn && vnet_is_opening(p))
		vnet_opening_take(ctx, port->local_id, now);
	if (!reason && p->fragment == VNET_FIRST)
		vnet_fragment_remember(ctx, port, p);
	return reason;
}

#endif
