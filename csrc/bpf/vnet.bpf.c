// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The tc programs: clsact ingress and egress of each tap, clsact ingress of each uplink. Only
 * UAPI headers, and nothing that Linux 6.1 lacks.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "pipeline.h"

char _license[] SEC("license") = "Dual BSD/GPL";

VNET_INLINE int vnet_act(struct __sk_buff *skb, __u32 action, const struct vnet_verdict *verdict)
{
	switch (action) {
	case VNET_PASS:
		return TC_ACT_UNSPEC; /* other filters may follow */
	case VNET_REDIRECT:
		/* Through the target's own egress: on a tap, vnet_to_port judges there. */
		return bpf_redirect(verdict->ifindex, 0);
	case VNET_CONSUMED:
		return TC_ACT_STOLEN;
	default:
		return TC_ACT_SHOT;
	}
}

SEC("tc")
int vnet_tc_from_port(struct __sk_buff *skb)
{
	struct vnet_verdict verdict = {};

	return vnet_act(skb, vnet_from_port(skb, &verdict), &verdict);
}

SEC("tc")
int vnet_tc_to_port(struct __sk_buff *skb)
{
	struct vnet_verdict verdict = {};

	return vnet_act(skb, vnet_to_port(skb, &verdict), &verdict);
}

SEC("tc")
int vnet_tc_uplink(struct __sk_buff *skb)
{
	struct vnet_verdict verdict = {};

	return vnet_act(skb, vnet_from_uplink(skb, &verdict), &verdict);
}
