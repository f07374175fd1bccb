/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How many TCP connections a port may have under way that nobody completes, so that a flood of SYNs
 * takes neither the port's quota nor the host's time. Each opening puts `opening_ns` on the port's
 * account, a completed handshake takes that off again, and so does time (GCRA: ITU-T I.371). With
 * `openings_ns` on it the account is full, and a SYN that would begin a connection is dropped. An
 * opening that the policy refuses is not put on it. Two CPUs at once may lose one opening's worth.
 */
#ifndef VNET_OPENING_H
#define VNET_OPENING_H

#include "conn.h"

/* Whether the account has room for one more. */
VNET_INLINE int vnet_opening_fits(struct vnet_ctx *ctx, __u32 local_id, __u64 now)
{
	const struct vnet_settings *settings = vnet_settings(ctx);
	const struct vnet_port *port = vnet_opener(ctx, local_id);

	if (!settings || !port || !settings->opening_ns || port->openings_ns <= now)
		return 1;
	return port->openings_ns - now + settings->opening_ns <= settings->openings_ns;
}

VNET_INLINE void vnet_opening_take(struct vnet_ctx *ctx, __u32 local_id, __u64 now)
{
	const struct vnet_settings *settings = vnet_settings(ctx);
	struct vnet_port *port = vnet_opener(ctx, local_id);

	if (!settings || !port)
		return;
	if (port->openings_ns < now)
		port->openings_ns = now;
	port->openings_ns += settings->opening_ns;
}

VNET_INLINE void vnet_opening_give(struct vnet_ctx *ctx, __u32 local_id)
{
	const struct vnet_settings *settings = vnet_settings(ctx);
	struct vnet_port *port = vnet_opener(ctx, local_id);

	if (settings && port && port->openings_ns > settings->opening_ns)
		port->openings_ns -= settings->opening_ns;
}

#endif
