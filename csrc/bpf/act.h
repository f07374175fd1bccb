/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel is told of a frame, for every program. */
#ifndef VNET_ACT_H
#define VNET_ACT_H

#include "pipeline.h"

VNET_INLINE int vnet_act(struct __sk_buff *skb, __u32 action, struct vnet_verdict *verdict)
{
	switch (vnet_finish(skb, action, verdict)) {
	case VNET_PASS:
		return TC_ACT_UNSPEC; /* other filters may follow */
	case VNET_REDIRECT:
		/* Through the target's own egress: on a tap, vnet_tc_to_port is there. */
		return bpf_redirect(verdict->ifindex, 0);
	case VNET_ANSWERED:
		return bpf_redirect(skb->ifindex, 0);
	case VNET_CONSUMED:
	case VNET_HANDED:
		return TC_ACT_STOLEN;
	default:
		return TC_ACT_SHOT;
	}
}

/*
 * To a receiver whose port has judged the frame already. Of a veth the kernel lets it come in at the
 * other end at once, past its queue for this one and the programs here.
 */
VNET_INLINE int vnet_hand(const struct vnet_port *target, __u32 ifindex)
{
	return target->flags & VNET_PORT_PEER ? bpf_redirect_peer(ifindex, 0)
					      : bpf_redirect(ifindex, 0);
}

/* On in another program. It is there while any port has VNET_PORT_TABLES. */
VNET_INLINE int vnet_go_on(struct __sk_buff *skb, __u32 stage)
{
	bpf_tail_call(skb, &vnet_stages, stage);
	return TC_ACT_SHOT;
}

#endif
