/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Nearly all frames: of a connection whose verdict is fresh and whose state stays. What they change
 * of it is the time, the counts and the windows.
 */
#ifndef VNET_STEADY_H
#define VNET_STEADY_H

#include "parse.h"
#include "window.h"

VNET_INLINE __u32 vnet_policy_id(__u64 word)
{
	return word >> 32;
}

VNET_INLINE __u32 vnet_policy_generation(__u64 word)
{
	return (__u32)word;
}

VNET_INLINE void vnet_conn_key_of(struct vnet_conn_key *key, const struct vnet_packet *p,
				  __u8 direction)
{
	const __u8 *local = direction == VNET_EGRESS ? p->source : p->destination;
	const __u8 *remote = direction == VNET_EGRESS ? p->destination : p->source;

	/* Both lie on words; else they would be copied byte by byte. */
	__builtin_memcpy(key->local, __builtin_assume_aligned(local, 8), 16);
	__builtin_memcpy(key->remote, __builtin_assume_aligned(remote, 8), 16);
	key->local_port = direction == VNET_EGRESS ? p->source_port : p->destination_port;
	key->remote_port = direction == VNET_EGRESS ? p->destination_port : p->source_port;
	key->proto = p->proto;
	key->family = p->family;
	key->way = 0;
	if (vnet_is_icmp(p))
		key->remote_port = 0;
}

/* At the port that it is for. */
VNET_APART struct vnet_conn *vnet_conn_to(struct vnet_ctx *ctx, __u32 local_id,
					  const struct vnet_packet *p)
{
	struct vnet_conn_key key __attribute__((aligned(8)));

	vnet_conn_key_of(&key, p, VNET_INGRESS);
	return vnet_conn_find(ctx, local_id, &key);
}

/* The port's entry of the connection that the frame is of, NULL when there is none; not of ICMP. */
VNET_INLINE struct vnet_conn *vnet_conn_of(struct vnet_ctx *ctx, __u32 local_id,
					   const struct vnet_packet *p, __u8 direction)
{
	return direction == VNET_EGRESS ? vnet_conn_find(ctx, local_id, vnet_key_from(p))
					: vnet_conn_to(ctx, local_id, p);
}

/* A frame of a connection: its counts. */
VNET_INLINE void vnet_conn_count(struct vnet_ctx *ctx, struct vnet_conn *conn, __u8 direction)
{
	vnet_count(&conn->packets[direction & 1], 1);
	vnet_count(&conn->bytes[direction & 1], vnet_length(ctx));
}

/* Whether a frame of this connection changes nothing of it but the time and the counts. */
VNET_INLINE int vnet_conn_is_steady(const struct vnet_conn *conn, const struct vnet_packet *p,
				    __u8 direction)
{
	if (p->proto == VNET_TCP)
		return conn->state == VNET_STATE_ESTABLISHED && conn->flags & VNET_CONN_ASSURED &&
		       (p->tcp_flags & VNET_TCP_OPENING_OR_CLOSING) == VNET_TCP_ACK;
	return conn->state == VNET_STATE_REPLIED
		       ? (conn->flags & VNET_CONN_ASSURED) != 0
		       : conn->state == VNET_STATE_UNREPLIED &&
				 direction == vnet_conn_origin(conn);
}

/* Whether a frame is such a one, by the port's word of policy. It changes nothing. */
VNET_INLINE int vnet_is_steady(const struct vnet_conn *conn, const struct vnet_packet *p,
			       __u8 direction, __u64 word, __u64 now)
{
	return conn->generation == vnet_policy_generation(word) && !p->fragment &&
	       conn->expires_ns > now && vnet_conn_is_steady(conn, p, direction) &&
	       (p->proto != VNET_TCP || vnet_window_is_steady(conn, p, direction));
}

/* Such a frame, counted. */
VNET_INLINE void vnet_stay_steady(struct vnet_ctx *ctx, const struct vnet_settings *settings,
				  struct vnet_conn *conn, const struct vnet_packet *p,
				  __u8 direction, __u64 now)
{
	if (p->proto == VNET_TCP)
		vnet_window_stay_steady(conn, p, direction);
	conn->expires_ns = now + vnet_state_life(settings, conn->state);
	vnet_conn_count(ctx, conn, direction);
}

#endif
