/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The short way: a frame from one VM to another here, where the connections of both ports are
 * steady, before the kernel makes anything of it. It does what vnet_from_port() and
 * vnet_hand_over() would do of such a frame; of any other it changes nothing.
 */
#ifndef VNET_SHORTCUT_H
#define VNET_SHORTCUT_H

#include "find.h"
#include "steady.h"

/* Nobody looks at the port's frames one by one: no bridge, limit, capture or table of handlers. */
VNET_INLINE int vnet_is_short(const struct vnet_port *port)
{
	return port->role == VNET_ACTIVE &&
	       (port->flags & ~(VNET_PORT_ADDRESSES | VNET_PORT_ANSWERED)) == VNET_PORT_SHORT;
}

/* The port's connection that the frame is of, NULL unless it is steady. */
VNET_INLINE struct vnet_conn *vnet_find_steady(struct vnet_ctx *ctx, const struct vnet_port *port,
					       const struct vnet_packet *p, __u8 direction,
					       __u64 now)
{
	__u64 word = *(const volatile __u64 *)&port->policy;
	struct vnet_conn *conn;

	if (!vnet_policy_id(word))
		return NULL;
	conn = vnet_conn_of(ctx, port->local_id, p, direction);
	return conn && vnet_is_steady(conn, p, direction, word, now) ? conn : NULL;
}

/* Whether it is a whole packet of the kinds that have connections, from the port's own MAC. */
VNET_INLINE int vnet_read_short(struct vnet_ctx *ctx, const struct vnet_port *port,
				struct vnet_packet *p)
{
	if (vnet_parse_ethernet(ctx, p) || p->source_mac != port->mac)
		return 0;
	if (p->ethertype != VNET_ETH_IPV4 && p->ethertype != VNET_ETH_IPV6)
		return 0;
	return !vnet_parse_ip(ctx, p) && !p->fragment && !vnet_is_icmp(p) && !vnet_is_group(p);
}

/* The interface that the frame leaves on; 0: it goes the long way. */
VNET_INLINE __u32 vnet_take_shortcut(struct vnet_ctx *ctx)
{
	const struct vnet_settings *settings = vnet_settings(ctx);
	struct vnet_port *port = vnet_port_of(ctx), *target;
	struct vnet_conn *sent, *received;
	struct vnet_counters *counters;
	struct vnet_packet p;
	__u64 now;

	if (!settings || !port || !vnet_is_short(port) || !vnet_read_short(ctx, port, &p))
		return 0;
	target = vnet_find_target(ctx, port->network, p.target_mac, port->local_id);
	if (!target || !vnet_is_short(target) || target->mac != p.target_mac ||
	    !vnet_fits(ctx, target->ifindex))
		return 0;
	now = vnet_now(ctx);
	sent = vnet_find_steady(ctx, port, &p, VNET_EGRESS, now);
	if (!sent)
		return 0;
	received = vnet_find_steady(ctx, target, &p, VNET_INGRESS, now);
	if (!received)
		return 0;
	vnet_stay_steady(ctx, settings, sent, &p, VNET_EGRESS, now);
	vnet_stay_steady(ctx, settings, received, &p, VNET_INGRESS, now);
	counters = vnet_counters(ctx, port->local_id);
	if (counters) {
		counters->tx_frames++;
		counters->tx_bytes += vnet_length(ctx);
	}
	counters = vnet_counters(ctx, target->local_id);
	if (counters) {
		counters->rx_frames++;
		counters->rx_bytes += vnet_length(ctx);
	}
	return target->ifindex;
}

#endif
