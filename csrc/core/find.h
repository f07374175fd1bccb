/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which port a frame is of, and which one it is for. */
#ifndef VNET_FIND_H
#define VNET_FIND_H

#include "abi.h"
#include "env.h"

/* The port behind the interface that the frame is on. */
VNET_INLINE struct vnet_port *vnet_port_of(struct vnet_ctx *ctx)
{
	struct vnet_iface *iface = vnet_iface(ctx, vnet_ifindex(ctx));
	struct vnet_port *port;

	if (!iface || iface->kind != VNET_IFACE_PORT)
		return NULL;
	port = vnet_port(ctx, iface->local_id);
	return port && port->local_id ? port : NULL;
}

VNET_INLINE int vnet_reachable(const struct vnet_port *port)
{
	return port->role == VNET_ACTIVE && port->ifindex && !(port->flags & VNET_PORT_BRIDGED);
}

/* The port that has a MAC of the network, NULL when no VM here has it. */
VNET_INLINE struct vnet_port *vnet_find_target(struct vnet_ctx *ctx, __u32 network, __u64 mac,
					       __u32 except)
{
	struct vnet_mac_key key = {.mac = mac, .network = network};
	struct vnet_port *port;
	__u32 *id = vnet_find_mac(ctx, &key);

	if (!id || *id == except)
		return NULL;
	port = vnet_port(ctx, *id);
	return port && vnet_reachable(port) ? port : NULL;
}

#endif
