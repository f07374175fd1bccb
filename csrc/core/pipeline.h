/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The three programs: frames from a VM, frames to a VM, frames from the uplink. They decide;
 * whoever calls them (the tc programs, the native datapath) does it.
 */
#ifndef VNET_PIPELINE_H
#define VNET_PIPELINE_H

#include "capture.h"
#include "find.h"
#include "meter.h"
#include "neighbour.h"
#include "track.h"
#include "vlan.h"

struct vnet_verdict {
	__u32 reason;
	__u32 ifindex;
	struct vnet_port *target; /* the port behind ifindex, NULL when that is no other's tap */
};

/* Where a broadcast is copied to. */
struct vnet_flood {
	struct vnet_ctx *ctx;
	__u64 source_mac;
	__u32 network;
	__u32 except; /* local id of the sender */
};

/* More ports than this in one network of one host get no broadcasts. */
#define VNET_MAX_MEMBERS 4096

static long vnet_flood_member(__u32 index, void *state)
{
	struct vnet_flood *flood = state;
	struct vnet_member_key key = {.network = flood->network, .index = index};
	const struct vnet_port *port;
	__u32 *member;

	member = vnet_member(flood->ctx, &key);
	if (!member)
		return 1;
	port = vnet_port(flood->ctx, *member);
	/* A broadcast that a switch sends back must not reach the VM that sent it. */
	if (port && *member != flood->except && port->mac != flood->source_mac &&
	    vnet_reachable(port))
		vnet_emit(flood->ctx, port->ifindex);
	return 0;
}

VNET_APART void vnet_flood(struct vnet_ctx *ctx, const struct vnet_packet *p, __u32 network,
			    __u32 except)
{
	struct vnet_flood flood = {
		.ctx = ctx,
		.source_mac = p->source_mac,
		.network = network,
		.except = except,
	};

	vnet_loop(VNET_MAX_MEMBERS, vnet_flood_member, &flood);
}

VNET_INLINE void vnet_aim(struct vnet_verdict *verdict, struct vnet_port *target)
{
	verdict->target = target;
	verdict->ifindex = target ? target->ifindex : 0;
}

/* To all of the network but the sender, unless it asks for a neighbour that is known. */
VNET_INLINE __u32 vnet_forward_group(struct vnet_ctx *ctx, const struct vnet_port *port,
				     const struct vnet_packet *p, struct vnet_verdict *verdict)
{
	__u32 action;

	if (port->flags & VNET_PORT_ANSWERED && port->ifindex &&
	    vnet_find_answer(ctx, port->mac, port->network)) {
		verdict->ifindex = port->ifindex;
		return VNET_ANSWERED;
	}
	vnet_flood(ctx, p, port->network, port->local_id);
	action = vnet_way_out(ctx, port->network, &verdict->ifindex);
	return action == VNET_DROP ? VNET_CONSUMED : action;
}

VNET_INLINE __u32 vnet_forward(struct vnet_ctx *ctx, const struct vnet_port *port,
			       const struct vnet_packet *p, struct vnet_verdict *verdict)
{
	__u32 action = VNET_DROP;

	if (p->target_mac & VNET_MAC_GROUP)
		return vnet_forward_group(ctx, port, p, verdict);
	vnet_aim(verdict, vnet_find_target(ctx, port->network, p->target_mac, port->local_id));
	/* Its headers were not read, or it waits: the receiver's own program judges the frame. */
	if (port->flags & VNET_PORT_OPEN ||
	    (verdict->target && verdict->target->flags & VNET_PORT_HELD))
		verdict->target = NULL;
	if (verdict->ifindex)
		return VNET_REDIRECT;
	if (p->target_mac != port->mac)
		action = vnet_way_out(ctx, port->network, &verdict->ifindex);
	if (action == VNET_DROP)
		verdict->reason = VNET_REASON_NO_DESTINATION;
	return action;
}

VNET_INLINE void vnet_count_drop(struct vnet_counters *counters, __u32 reason)
{
	if (counters && reason < VNET_REASONS_MAX)
		counters->drops[reason]++;
}

/* The guest runs here, whatever user space has heard so far: from now on frames reach it. */
VNET_INLINE void vnet_activate(struct vnet_port *port)
{
	__u32 role = port->role;

	if (role == VNET_STANDBY || role == VNET_MOVED)
		__sync_val_compare_and_swap(&port->role, role, VNET_ACTIVE);
}

VNET_INLINE __u32 vnet_guard_egress(struct vnet_ctx *ctx, struct vnet_port *port,
				    struct vnet_packet *p)
{
	__u32 reason = vnet_parse_ethernet(ctx, p);

	if (reason)
		return reason;
	if (port->flags & VNET_PORT_OPEN) {
		vnet_activate(port);
		return VNET_REASON_NONE;
	}
	if (!vnet_may_send_from(port, p->source_mac))
		return VNET_REASON_MAC_SPOOF;
	if (p->source_mac == port->mac)
		vnet_activate(port);
	if (p->ethertype == VNET_ETH_ARP || p->ethertype == VNET_ETH_RARP)
		return vnet_guard_arp_pair(ctx, port, p);
	if (p->ethertype != VNET_ETH_IPV4 && p->ethertype != VNET_ETH_IPV6)
		return VNET_REASON_ETHERTYPE;
	reason = vnet_parse_ip(ctx, p);
	if (!reason)
		reason = vnet_guard_pair(ctx, port, p);
	return reason ? reason : vnet_track(ctx, port, p, VNET_EGRESS);
}

VNET_INLINE __u32 vnet_guard_ingress(struct vnet_ctx *ctx, struct vnet_port *port,
				     struct vnet_packet *p)
{
	__u32 reason = vnet_parse_ethernet(ctx, p);

	if (reason)
		return reason;
	if (port->flags & VNET_PORT_OPEN)
		return VNET_REASON_NONE;
	if (!(p->target_mac & VNET_MAC_GROUP) && !vnet_is_for(ctx, port, p->target_mac))
		return VNET_REASON_OTHER_MAC;
	if (p->ethertype == VNET_ETH_ARP || p->ethertype == VNET_ETH_RARP)
		return VNET_REASON_NONE;
	if (p->ethertype != VNET_ETH_IPV4 && p->ethertype != VNET_ETH_IPV6)
		return VNET_REASON_ETHERTYPE;
	reason = vnet_parse_ip(ctx, p);
	return reason ? reason : vnet_track(ctx, port, p, VNET_INGRESS);
}

/* The same for a frame that another port here has let out: its headers are known and sound. */
VNET_INLINE __u32 vnet_guard_known(struct vnet_ctx *ctx, struct vnet_port *port,
				   struct vnet_packet *p)
{
	if (port->flags & VNET_PORT_OPEN)
		return VNET_REASON_NONE;
	if (!vnet_is_for(ctx, port, p->target_mac))
		return VNET_REASON_OTHER_MAC;
	return p->family ? vnet_track(ctx, port, p, VNET_INGRESS) : VNET_REASON_NONE;
}

/* What becomes of a frame that the guard lets through, once the port's limits have been asked. */
VNET_INLINE __u32 vnet_limit(struct vnet_ctx *ctx, const struct vnet_port *port, __u32 direction,
			     __u32 reason)
{
	if (!reason && __builtin_expect(port->flags & VNET_PORT_METERED, 0))
		return vnet_meter(ctx, port->local_id, direction);
	return reason;
}

/* A frame from the VM that no table keeps. `p` is filled in, for vnet_hand_over(). */
VNET_INLINE __u32 vnet_send(struct vnet_ctx *ctx, struct vnet_port *port, struct vnet_packet *p,
			    struct vnet_verdict *verdict)
{
	struct vnet_counters *counters;
	__u32 action = VNET_DROP;

	verdict->reason = vnet_limit(ctx, port, VNET_EGRESS, vnet_guard_egress(ctx, port, p));
	p->sender = port->local_id;
	if (!verdict->reason)
		action = port->flags & VNET_PORT_BRIDGED ? VNET_PASS
							 : vnet_forward(ctx, port, p, verdict);
	counters = vnet_counters(ctx, port->local_id);
	if (action == VNET_DROP) {
		vnet_count_drop(counters, verdict->reason);
		vnet_capture(ctx, port, VNET_EGRESS, VNET_DROP, verdict->reason);
		return VNET_DROP;
	}
	if (counters) {
		counters->tx_frames++;
		counters->tx_bytes += vnet_length(ctx);
	}
	vnet_capture(ctx, port, VNET_EGRESS, action, VNET_REASON_NONE);
	return action;
}

VNET_INLINE __u32 vnet_from_port(struct vnet_ctx *ctx, struct vnet_packet *p,
				 struct vnet_verdict *verdict)
{
	struct vnet_port *port = vnet_port_of(ctx);

	if (!port) {
		verdict->reason = VNET_REASON_NO_PORT;
		return VNET_DROP;
	}
	if (__builtin_expect(port->flags & VNET_PORT_TABLES, 0))
		return VNET_TABLED;
	return vnet_send(ctx, port, p, verdict);
}

VNET_INLINE __u32 vnet_receive(struct vnet_ctx *ctx, const struct vnet_port *port, __u32 reason)
{
	struct vnet_counters *counters = vnet_counters(ctx, port->local_id);

	if (reason) {
		vnet_count_drop(counters, reason);
		vnet_capture(ctx, port, VNET_INGRESS, VNET_DROP, reason);
		return VNET_DROP;
	}
	if (counters) {
		counters->rx_frames++;
		counters->rx_bytes += vnet_length(ctx);
	}
	vnet_capture(ctx, port, VNET_INGRESS, VNET_PASS, VNET_REASON_NONE);
	return VNET_PASS;
}

/* A frame to the VM that no table keeps. */
VNET_INLINE __u32 vnet_deliver(struct vnet_ctx *ctx, struct vnet_port *port,
			       struct vnet_verdict *verdict)
{
	struct vnet_packet p;

	verdict->reason = vnet_limit(ctx, port, VNET_INGRESS, vnet_guard_ingress(ctx, port, &p));
	return vnet_receive(ctx, port, verdict->reason);
}

VNET_INLINE __u32 vnet_to_port(struct vnet_ctx *ctx, struct vnet_verdict *verdict)
{
	struct vnet_port *port = vnet_port_of(ctx);

	if (!port) {
		verdict->reason = VNET_REASON_NO_PORT;
		return VNET_DROP;
	}
	if (__builtin_expect(port->flags & (VNET_PORT_TABLES | VNET_PORT_HELD), 0)) {
		if (vnet_hold(ctx, port)) {
			verdict->ifindex = port->hold_ifindex;
			return VNET_REDIRECT;
		}
		if (port->flags & VNET_PORT_TABLES)
			return VNET_TABLED;
	}
	return vnet_deliver(ctx, port, verdict);
}

/*
 * What vnet_to_port() would say of a frame that vnet_from_port() redirects to a port here: known
 * headers need not be parsed again. Whoever calls it keeps the frame from vnet_to_port().
 */
VNET_INLINE __u32 vnet_hand_over(struct vnet_ctx *ctx, struct vnet_packet *p,
				 struct vnet_verdict *verdict)
{
	struct vnet_port *port = verdict->target;

	verdict->reason = vnet_limit(ctx, port, VNET_INGRESS, vnet_guard_known(ctx, port, p));
	return vnet_receive(ctx, port, verdict->reason);
}

/* To the members without the tag, to the host with it. */
VNET_INLINE __u32 vnet_flood_in(struct vnet_ctx *ctx, const struct vnet_packet *p,
				const struct vnet_tag *tag, struct vnet_verdict *verdict)
{
	if (vnet_take_tag(ctx, tag))
		return VNET_PASS;
	vnet_forget_mac(ctx, tag->network, p->source_mac);
	vnet_flood(ctx, p, tag->network, 0);
	if (!vnet_give_tag(ctx, tag))
		return VNET_PASS;
	verdict->reason = VNET_REASON_VLAN;
	return VNET_DROP;
}

/* What is not for a VM here is the host's own and passes. */
VNET_INLINE __u32 vnet_from_uplink(struct vnet_ctx *ctx, struct vnet_verdict *verdict)
{
	struct vnet_iface *iface = vnet_iface(ctx, vnet_ifindex(ctx));
	struct vnet_packet p;
	struct vnet_tag tag;

	verdict->reason = VNET_REASON_NONE;
	if (!iface || iface->kind != VNET_IFACE_UPLINK || vnet_parse_uplink(ctx, iface, &p, &tag))
		return VNET_PASS;
	if (p.target_mac & VNET_MAC_GROUP)
		return vnet_flood_in(ctx, &p, &tag, verdict);
	vnet_aim(verdict, vnet_find_target(ctx, tag.network, p.target_mac, 0));
	if (!verdict->ifindex)
		return VNET_PASS;
	if (!vnet_take_tag(ctx, &tag))
		return VNET_REDIRECT;
	verdict->reason = VNET_REASON_VLAN;
	return VNET_DROP;
}

/*
 * The last step with a frame: once everybody has seen it here it leaves as it is said there. An
 * answer is found anew, since to keep it takes room on the stack that the kernel does not have.
 */
VNET_INLINE __u32 vnet_finish(struct vnet_ctx *ctx, __u32 action, struct vnet_verdict *verdict)
{
	const struct vnet_port *port;

	if (action >> VNET_TAG_SHIFT) {
		if (!vnet_push_tag(ctx, action >> VNET_TAG_SHIFT))
			return VNET_REDIRECT;
		verdict->reason = VNET_REASON_VLAN;
		return VNET_DROP;
	}
	if (action != VNET_ANSWERED)
		return action;
	port = vnet_port_of(ctx);
	if (port && !vnet_answer(ctx, port->mac, port->network))
		return action;
	verdict->reason = VNET_REASON_NO_DESTINATION;
	return VNET_DROP;
}

#endif
