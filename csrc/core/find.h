/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which port a frame is of, and which one it is for. A hint, where one was found last, spares most
 * frames the look-up: the port's own words confirm it or not, so nobody has to keep hints up.
 */
#ifndef VNET_FIND_H
#define VNET_FIND_H

#include "abi.h"
#include "env.h"
#include "hold.h"

/* Interfaces have one half of the hints, MACs the other. */
#define VNET_HINTS_HALF (VNET_HINTS / 2)

VNET_INLINE __u32 *vnet_iface_hint(struct vnet_ctx *ctx, __u32 ifindex)
{
	return vnet_hint(ctx, ifindex & (VNET_HINTS_HALF - 1));
}

VNET_INLINE __u32 *vnet_mac_hint(struct vnet_ctx *ctx, __u32 network, __u64 mac)
{
	__u32 hash = (__u32)(mac >> 16) ^ network * 0x9e3779b1U;

	return vnet_hint(ctx, VNET_HINTS_HALF + ((hash ^ hash >> 20) & (VNET_HINTS_HALF - 1)));
}

/* Its local id, 0 for none, from the table. Apart, since stacks are short: so is the next one. */
VNET_APART __u32 vnet_look_up_iface(struct vnet_ctx *ctx, __u32 ifindex)
{
	const struct vnet_iface *iface = vnet_iface(ctx, ifindex);
	__u32 *hint = vnet_iface_hint(ctx, ifindex);
	__u32 local_id;

	if (!iface || iface->kind != VNET_IFACE_PORT)
		return 0;
	local_id = iface->local_id;
	if (hint)
		*hint = local_id;
	return local_id;
}

VNET_APART __u32 vnet_look_up_mac(struct vnet_ctx *ctx, __u32 network, __u64 mac)
{
	struct vnet_mac_key key = {.mac = mac, .network = network};
	__u32 *hint = vnet_mac_hint(ctx, network, mac);
	__u32 *id = vnet_find_mac(ctx, &key);

	if (!id)
		return 0;
	if (hint)
		*hint = *id;
	return *id;
}

/* The port behind the interface that the frame is on. */
VNET_INLINE struct vnet_port *vnet_port_of(struct vnet_ctx *ctx)
{
	__u32 ifindex = vnet_ifindex(ctx), *hint = vnet_iface_hint(ctx, ifindex);
	struct vnet_port *port = hint ? vnet_port(ctx, *hint) : NULL;

	if (port && port->ifindex == ifindex)
		return port;
	port = vnet_port(ctx, vnet_look_up_iface(ctx, ifindex));
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
	__u32 *hint = vnet_mac_hint(ctx, network, mac);
	struct vnet_port *port = hint ? vnet_port(ctx, *hint) : NULL;

	if (!port || port->mac != mac || port->network != network || !port->local_id)
		port = vnet_port(ctx, vnet_look_up_mac(ctx, network, mac));
	if (!port || port->local_id == except)
		return NULL;
	if (vnet_reachable(port))
		return port;
	/* From outside: whoever is here knows the way to where the VM is now. */
	return !except && vnet_is_relayed(port) ? port : NULL;
}

#endif
