/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a TCP segment may be of the connection whose ports it names: its numbers against what
 * each end has sent and acknowledged (van Rooij, "Real Stateful TCP Packet Filtering in IP
 * Filter"; resets as in RFC 5961). What does not fit changes nothing.
 *
 * A window belongs to who sends: `end` is behind its last octet, `max_ack` and `max_end` are what
 * its peer has acknowledged and allows, `max_window` is the largest that it has advertised itself,
 * before scaling. Where these are not known (a connection from another host, one met in
 * mid-stream) only the VM's own segments teach them: a stranger's guess must not become the
 * measure of what is true.
 */
#ifndef VNET_WINDOW_H
#define VNET_WINDOW_H

#include "conn.h"
#include "opening.h"
#include "parse.h"

enum vnet_fit {
	VNET_FIT_IN = 0,    /* of the connection */
	VNET_FIT_ASIDE = 1, /* the receiver will challenge it (RFC 5961); nothing comes of it here */
	VNET_FIT_OUT = 2,   /* its numbers are not the connection's */
	VNET_FIT_FLOOD = 3, /* it would be one opening too many */
};

/* What an acknowledgement may lag behind, however small the windows; as Linux has it. */
#define VNET_WINDOW_LAG 66000
#define VNET_WINDOW_OPTIONS 12

VNET_INLINE int vnet_is_opening(const struct vnet_packet *p)
{
	return p->proto == VNET_TCP &&
	       (p->tcp_flags & VNET_TCP_OPENING_OR_CLOSING) == VNET_TCP_SYN;
}

VNET_INLINE int vnet_is_beyond(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

/* Never 0: a keep-alive repeats an octet whatever the window. */
VNET_INLINE __u32 vnet_window_size(const struct vnet_window *window)
{
	return ((__u32)window->max_window << window->scale) + 1;
}

/* Octets of this fragment. */
VNET_INLINE __u32 vnet_segment_payload(const struct vnet_packet *p)
{
	__u32 begin = p->l4 + p->tcp_header;

	return p->end > begin ? p->end - begin : 0;
}

VNET_INLINE __u32 vnet_segment_end(const struct vnet_packet *p)
{
	return p->seq + vnet_segment_payload(p) + !!(p->tcp_flags & VNET_TCP_SYN) +
	       !!(p->tcp_flags & VNET_TCP_FIN);
}

/* The scale that a SYN offers, or -1 (RFC 7323). More options than are read: the largest one. */
VNET_INLINE int vnet_window_offer(struct vnet_ctx *ctx, const struct vnet_packet *p)
{
	__u32 at = p->l4 + 20, end = p->l4 + p->tcp_header;
	__u8 option[3];

	for (int i = 0; i < VNET_WINDOW_OPTIONS; i++) {
		if (at >= end || vnet_load_ip(ctx, p, at, option, 1) || option[0] == 0)
			return -1;
		if (option[0] == 1) {
			at++;
			continue;
		}
		if (at + 2 > end || vnet_load_ip(ctx, p, at, option, 2) || option[1] < 2)
			return -1;
		if (option[0] == 3) {
			if (option[1] != 3 || at + 3 > end || vnet_load_ip(ctx, p, at, option, 3))
				return -1;
			return option[2] < VNET_SCALE_MAX ? option[2] : VNET_SCALE_MAX;
		}
		at += option[1];
	}
	return VNET_SCALE_MAX;
}

/* What its peer acknowledges and allows; the window of a SYN is never scaled. */
VNET_INLINE void vnet_window_allow(struct vnet_window *window, __u32 ack, __u32 size)
{
	window->max_ack = ack;
	window->max_end = ack + size;
	window->flags |= VNET_WINDOW_ACKED;
}

/* Scales hold only when both ends offer one. */
VNET_INLINE void vnet_window_open(struct vnet_ctx *ctx, struct vnet_window *own,
				  struct vnet_window *peer, const struct vnet_packet *p)
{
	int offer = vnet_window_offer(ctx, p);

	own->end = vnet_segment_end(p);
	own->max_window = p->window;
	own->scale = offer < 0 ? 0 : offer;
	own->flags = VNET_WINDOW_SENT | (offer < 0 ? 0 : VNET_WINDOW_SCALED) |
		     (own->flags & VNET_WINDOW_ACKED);
	if (!(p->tcp_flags & VNET_TCP_ACK))
		return;
	if (offer < 0 || !(peer->flags & VNET_WINDOW_SCALED))
		own->scale = peer->scale = 0;
	vnet_window_allow(peer, p->ack, p->window);
}

/* A connection met in mid-stream: nobody has told the scales. */
VNET_INLINE void vnet_window_guess(struct vnet_window *own, struct vnet_window *peer)
{
	if (own->flags || peer->flags)
		return;
	own->scale = peer->scale = VNET_SCALE_MAX;
	own->flags = peer->flags = VNET_WINDOW_SCALED;
}

/* The VM's segment tells where both ends are, but not what the peer has of it. */
VNET_INLINE void vnet_window_learn(struct vnet_window *own, struct vnet_window *peer,
				   const struct vnet_packet *p)
{
	vnet_window_guess(own, peer);
	if (!(own->flags & VNET_WINDOW_SENT) || vnet_is_beyond(vnet_segment_end(p), own->end))
		own->end = vnet_segment_end(p);
	if (!(peer->flags & VNET_WINDOW_SENT) || vnet_is_beyond(p->ack, peer->end))
		peer->end = p->ack;
	if (own->max_window < p->window)
		own->max_window = p->window;
	vnet_window_allow(peer, p->ack, (__u32)p->window << own->scale);
	own->flags = (own->flags | VNET_WINDOW_SENT) & ~VNET_WINDOW_OLD;
	peer->flags = (peer->flags | VNET_WINDOW_SENT) & ~VNET_WINDOW_OLD;
}

VNET_INLINE void vnet_window_advance(struct vnet_window *own, struct vnet_window *peer,
				     const struct vnet_packet *p, __u32 end)
{
	__u32 limit = p->ack + ((__u32)p->window << own->scale);

	if (vnet_is_beyond(end, own->end))
		own->end = end;
	if (vnet_is_beyond(p->ack, peer->max_ack))
		peer->max_ack = p->ack;
	if (vnet_is_beyond(limit, peer->max_end))
		peer->max_end = limit;
	if (own->max_window < p->window)
		own->max_window = p->window;
}

/* Whether a segment is within what the other end has sent and allows. */
VNET_INLINE int vnet_window_holds(const struct vnet_window *own, const struct vnet_window *peer,
				  const struct vnet_packet *p, __u32 end)
{
	__u32 lag = vnet_window_size(own);

	if (lag < VNET_WINDOW_LAG)
		lag = VNET_WINDOW_LAG;
	if (own->flags & VNET_WINDOW_ACKED && vnet_is_beyond(p->seq, own->max_end))
		return 0;
	return !vnet_is_beyond(own->end, end + vnet_window_size(peer)) &&
	       !vnet_is_beyond(p->ack, peer->end) && !vnet_is_beyond(peer->end, p->ack + lag);
}

/*
 * Nearly all segments: a whole one with ACK, without SYN, FIN and RST, where both windows are
 * known, and within them. Any other one is for vnet_window_judge().
 */
VNET_INLINE int vnet_window_is_steady(const struct vnet_conn *conn, const struct vnet_packet *p,
				      __u8 direction)
{
	const struct vnet_window *own = &conn->window[direction & 1];
	const struct vnet_window *peer = &conn->window[!direction];

	return (own->flags & peer->flags & VNET_WINDOW_KNOWN) == VNET_WINDOW_KNOWN &&
	       vnet_window_holds(own, peer, p, p->seq + vnet_segment_payload(p));
}

VNET_INLINE void vnet_window_stay_steady(struct vnet_conn *conn, const struct vnet_packet *p,
					 __u8 direction)
{
	vnet_window_advance(&conn->window[direction & 1], &conn->window[!direction], p,
			    p->seq + vnet_segment_payload(p));
}

/* A segment with ACK, and neither SYN nor RST. */
VNET_INLINE enum vnet_fit vnet_window_data(struct vnet_conn *conn, const struct vnet_packet *p,
					   __u8 direction)
{
	struct vnet_window *own = &conn->window[direction & 1];
	struct vnet_window *peer = &conn->window[!direction];
	int known = own->flags & peer->flags & VNET_WINDOW_KNOWN;
	__u32 end = vnet_segment_end(p);

	if (known != VNET_WINDOW_KNOWN) {
		if (direction == VNET_EGRESS) {
			if (p->fragment == VNET_WHOLE)
				vnet_window_learn(own, peer, p);
			return VNET_FIT_IN;
		}
		if (!(peer->flags & own->flags & VNET_WINDOW_SENT))
			return VNET_FIT_IN;
	}
	if (!vnet_window_holds(own, peer, p, end))
		return VNET_FIT_OUT;
	if (known != VNET_WINDOW_KNOWN && !(peer->flags & VNET_WINDOW_ACKED))
		vnet_window_allow(peer, p->ack, (__u32)p->window << own->scale);
	vnet_window_advance(own, peer, p, end);
	/* How long a fragmented segment is, only its end tells: the VM will say how far it came. */
	if (p->fragment != VNET_WHOLE)
		conn->window[0].flags = conn->window[1].flags =
			(own->flags & VNET_WINDOW_SCALED) | VNET_WINDOW_OLD;
	return VNET_FIT_IN;
}

/*
 * A reset ends a connection only with the number that its receiver waits for, as far as that can
 * be known here: what the receiver acknowledged last, or the end of what was sent to it. In
 * between the receiver challenges it, and the answer to that has the right one.
 */
VNET_INLINE enum vnet_fit vnet_window_reset(const struct vnet_conn *conn,
					    const struct vnet_packet *p, __u8 direction)
{
	const struct vnet_window *own = &conn->window[direction & 1];
	const struct vnet_window *peer = &conn->window[!direction];
	__u8 has = own->flags | own->flags >> VNET_WINDOW_OLD_SHIFT;

	if (!(has & VNET_WINDOW_KNOWN)) {
		/* The answer to a SYN has no number of its own, but it names the SYN's. */
		if (!(peer->flags & VNET_WINDOW_SENT) ||
		    (p->tcp_flags & VNET_TCP_ACK && p->ack == peer->end))
			return VNET_FIT_IN;
		return VNET_FIT_OUT;
	}
	if (has & VNET_WINDOW_SENT && p->seq == own->end)
		return VNET_FIT_IN;
	if (has & VNET_WINDOW_ACKED && p->seq == own->max_ack)
		return VNET_FIT_IN;
	if ((own->flags & peer->flags & VNET_WINDOW_KNOWN) != VNET_WINDOW_KNOWN)
		return VNET_FIT_ASIDE;
	if (vnet_is_beyond(p->seq, own->max_end) ||
	    vnet_is_beyond(own->end, p->seq + vnet_window_size(peer)))
		return VNET_FIT_OUT;
	return VNET_FIT_ASIDE;
}

/* A SYN opens; later its receiver challenges it. */
VNET_INLINE enum vnet_fit vnet_window_syn(struct vnet_ctx *ctx, struct vnet_conn *conn,
					  const struct vnet_packet *p, __u8 direction)
{
	struct vnet_window *own = &conn->window[direction & 1];
	struct vnet_window *peer = &conn->window[!direction];
	int reply = direction != vnet_conn_origin(conn);
	int answers = p->tcp_flags & VNET_TCP_ACK;

	if (conn->state != VNET_STATE_SYN_SENT && conn->state != VNET_STATE_SYN_RECEIVED)
		return VNET_FIT_ASIDE;
	/* Sent again; another number would be another connection, and the peer answers the first. */
	if (own->flags & VNET_WINDOW_SENT && conn->state == VNET_STATE_SYN_RECEIVED)
		return vnet_segment_end(p) == own->end ? VNET_FIT_IN : VNET_FIT_ASIDE;
	if (answers && !reply && conn->state == VNET_STATE_SYN_SENT)
		return VNET_FIT_ASIDE;
	if (answers && peer->flags & VNET_WINDOW_SENT &&
	    (vnet_is_beyond(p->ack, peer->end) ||
	     vnet_is_beyond(peer->end, p->ack + VNET_WINDOW_LAG)))
		return VNET_FIT_OUT;
	vnet_window_open(ctx, own, peer, p);
	return VNET_FIT_IN;
}

/* Any TCP segment but a later fragment, whose flags are a valid combination. */
VNET_INLINE enum vnet_fit vnet_window_judge(struct vnet_ctx *ctx, struct vnet_conn *conn,
					    const struct vnet_packet *p, __u8 direction)
{
	if (!(p->tcp_flags & (VNET_TCP_SYN | VNET_TCP_RST)))
		return vnet_window_data(conn, p, direction);
	if (p->tcp_flags & VNET_TCP_RST)
		return vnet_window_reset(conn, p, direction);
	return vnet_window_syn(ctx, conn, p, direction);
}

/* Of a connection that begins with this segment, a SYN or one in mid-stream. */
VNET_INLINE void vnet_window_begin(struct vnet_ctx *ctx, struct vnet_conn *conn,
				   const struct vnet_packet *p, __u8 direction)
{
	struct vnet_window *own = &conn->window[direction & 1];
	struct vnet_window *peer = &conn->window[!direction];

	__builtin_memset(conn->window, 0, sizeof(conn->window));
	if (p->tcp_flags & VNET_TCP_SYN)
		vnet_window_open(ctx, own, peer, p);
	else if (direction == VNET_EGRESS && p->fragment == VNET_WHOLE)
		vnet_window_learn(own, peer, p);
}

/* What a TCP segment is to its connection; with the handshake's end the opening is off the account. */
VNET_INLINE enum vnet_fit vnet_window_fit(struct vnet_ctx *ctx, struct vnet_conn *conn,
					  const struct vnet_packet *p, __u8 direction,
					  __u32 local_id)
{
	__u8 state = conn->state;
	enum vnet_fit fit = vnet_window_judge(ctx, conn, p, direction);

	if (fit == VNET_FIT_IN && state == VNET_STATE_SYN_RECEIVED &&
	    direction == vnet_conn_origin(conn) &&
	    (p->tcp_flags & VNET_TCP_OPENING_OR_CLOSING) == VNET_TCP_ACK)
		vnet_opening_give(ctx, local_id);
	return fit;
}

/*
 * The same, enum vnet_fit, of a segment that may begin a connection; and the windows of that one, in
 * the draft, whether it comes to that or not. All this comes before the rest: on the kernel's stack
 * there is no room for both at once.
 */
VNET_OUTLINE __u32 vnet_window_look(struct vnet_ctx *ctx, struct vnet_conn *conn,
				    const struct vnet_packet *p, __u32 direction, __u32 local_id)
{
	struct vnet_conn *draft = vnet_conn_draft(ctx);

	if (!p || !draft || !vnet_tcp_flags_valid(p->tcp_flags))
		return VNET_FIT_ASIDE;
	vnet_window_begin(ctx, draft, p, direction & 1);
	if (conn)
		return vnet_window_fit(ctx, conn, p, direction & 1, local_id);
	return vnet_is_opening(p) && !vnet_opening_fits(ctx, local_id, vnet_now(ctx))
		       ? VNET_FIT_FLOOD
		       : VNET_FIT_ASIDE;
}

#endif
