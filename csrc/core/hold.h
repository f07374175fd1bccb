/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames for a VM that has just come, while earlier ones are still on their way here from where it
 * was: they wait behind an interface of the agent's, which sends them on in their order. The agent
 * renews what it asks for many times a second; when it dies, frames go straight to the VM again.
 */
#ifndef VNET_HOLD_H
#define VNET_HOLD_H

#include "abi.h"
#include "env.h"

/*
 * Whether a frame for the port's VM goes to `hold_ifindex`. Once the port is VNET_PORT_DRAINING the
 * first that comes after all held ones were sent on goes straight, and so do all after it: no frame
 * overtakes another on the way from one order to the other.
 */
VNET_INLINE int vnet_hold(struct vnet_ctx *ctx, struct vnet_port *port)
{
	__u8 target;

	if (!(port->flags & VNET_PORT_HELD) || vnet_is_replayed(ctx) ||
	    port->hold_until_ns <= vnet_now(ctx))
		return 0;
	if (port->flags & VNET_PORT_DRAINING && port->held == port->sent_on)
		return 0;
	vnet_count(&port->held, 1);
	/* A broadcast comes everywhere, and shows nothing. */
	if (vnet_is_from_outside(ctx) && !vnet_load(ctx, 0, &target, 1) && !(target & 1))
		port->seen_outside = 1;
	return 1;
}

/* Its VM runs elsewhere, and what still comes here for it is taken there by the agent. */
VNET_INLINE int vnet_is_relayed(const struct vnet_port *port)
{
	return port->flags & VNET_PORT_RELAYED && port->role == VNET_MOVED && port->ifindex &&
	       !(port->flags & VNET_PORT_BRIDGED);
}

#endif
