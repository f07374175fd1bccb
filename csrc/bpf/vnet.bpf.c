// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The tc programs: clsact ingress and egress of each tap, clsact ingress of each uplink. Only
 * UAPI headers, and nothing that Linux 6.1 lacks.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "act.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * A frame from one port here to another is judged for both by the sender's program, which leaves a
 * note for the receiver's: the receiver's local id, in a field that only programs of this host's
 * tc write, and the sender's. It holds for a frame that came in on a port, since there
 * vnet_tc_from_port overwrote whatever was noted; which port that was the kernel says.
 */
#define VNET_NOTE_MAX 0xffff

VNET_INLINE void vnet_note(struct __sk_buff *skb, __u32 from, __u32 to)
{
	skb->tc_index = to;
	skb->cb[0] = from;
}

VNET_INLINE int vnet_is_noted(struct __sk_buff *skb)
{
	const struct vnet_port *from, *to;

	if (!skb->tc_index)
		return 0;
	to = vnet_port(skb, skb->tc_index);
	from = vnet_port(skb, skb->cb[0]);
	return to && from && skb->ingress_ifindex && to->ifindex == skb->ifindex &&
	       from->ifindex == skb->ingress_ifindex;
}

SEC("tc")
int vnet_tc_from_port(struct __sk_buff *skb)
{
	struct vnet_verdict verdict = {};
	struct vnet_packet p;
	__u32 action, to;

	if (skb->tc_index)
		skb->tc_index = 0;
	action = vnet_from_port(skb, &p, &verdict);
	if (action == VNET_TABLED)
		return vnet_go_on(skb, VNET_STAGE_TABLES_FROM);
	if (action == VNET_REDIRECT && verdict.target) {
		to = verdict.target->local_id;
		if (to <= VNET_NOTE_MAX) {
			if (vnet_hand_over(skb, &p, &verdict) == VNET_DROP)
				return TC_ACT_SHOT;
			vnet_note(skb, p.sender, to);
			return vnet_hand(verdict.target, verdict.ifindex);
		}
	}
	return vnet_act(skb, action, &verdict);
}

SEC("tc")
int vnet_tc_to_port(struct __sk_buff *skb)
{
	struct vnet_verdict verdict = {};
	__u32 action;

	if (vnet_is_noted(skb))
		return TC_ACT_UNSPEC;
	action = vnet_to_port(skb, &verdict);
	if (action == VNET_TABLED)
		return vnet_go_on(skb, VNET_STAGE_TABLES_TO);
	return vnet_act(skb, action, &verdict);
}

SEC("tc")
int vnet_tc_uplink(struct __sk_buff *skb)
{
	struct vnet_verdict verdict = {};

	return vnet_act(skb, vnet_from_uplink(skb, &verdict), &verdict);
}
