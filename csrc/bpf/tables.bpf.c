// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The operator's tables, and what comes behind them: programs that those of vnet.bpf.c go on in
 * while any port has VNET_PORT_TABLES. They are loaded when the first table is made.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#define VNET_BEHIND_TABLES
#include "act.h"
#include "nat.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * What no table keeps goes on with notes: cb[2] is the mark for its connection; cb[0] and cb[1] are
 * the handlers that translate its source and its destination, and behind that cb[1] is whether there
 * is a translation to be ended.
 */
VNET_INLINE int vnet_go_normal(struct __sk_buff *skb, __u32 stage, __u32 mark)
{
	skb->cb[1] = 0;
	skb->cb[2] = mark;
	return vnet_go_on(skb, stage);
}

VNET_INLINE int vnet_through(struct __sk_buff *skb, __u32 direction, __u32 normal, __u32 nat)
{
	struct vnet_port *port = vnet_port_of(skb);
	struct vnet_verdict verdict = {};
	struct vnet_onward onward = {};
	__u32 action;

	if (!port)
		return TC_ACT_SHOT;
	if (vnet_is_past(skb))
		return vnet_go_normal(skb, normal, 0);
	action = vnet_tables(skb, port, direction, &verdict, &onward);
	if (action != VNET_TABLED)
		return vnet_act(skb, action, &verdict);
	if (!(port->flags & VNET_PORT_NAT) && !onward.nat[0] && !onward.nat[1])
		return vnet_go_normal(skb, normal, onward.mark);
	skb->cb[0] = onward.nat[0];
	skb->cb[1] = onward.nat[1];
	skb->cb[2] = onward.mark;
	return vnet_go_on(skb, nat);
}

SEC("tc")
int vnet_tables_from(struct __sk_buff *skb)
{
	return vnet_through(skb, VNET_EGRESS, VNET_STAGE_NORMAL_FROM, VNET_STAGE_NAT_FROM);
}

SEC("tc")
int vnet_tables_to(struct __sk_buff *skb)
{
	return vnet_through(skb, VNET_INGRESS, VNET_STAGE_NORMAL_TO, VNET_STAGE_NAT_TO);
}

VNET_INLINE int vnet_translate(struct __sk_buff *skb, __u32 direction, __u32 normal)
{
	struct vnet_port *port = vnet_port_of(skb);

	if (!port)
		return TC_ACT_SHOT;
	skb->cb[1] = vnet_nat_begin(skb, port->local_id, direction, skb->cb[0], skb->cb[1]);
	return vnet_go_on(skb, normal);
}

SEC("tc")
int vnet_nat_from(struct __sk_buff *skb)
{
	return vnet_translate(skb, VNET_EGRESS, VNET_STAGE_NORMAL_FROM);
}

SEC("tc")
int vnet_nat_to(struct __sk_buff *skb)
{
	return vnet_translate(skb, VNET_INGRESS, VNET_STAGE_NORMAL_TO);
}

/* Nothing is handed over to the receiver's port: its own tables come first. */
SEC("tc")
int vnet_normal_from(struct __sk_buff *skb)
{
	struct vnet_port *port = vnet_port_of(skb);
	struct vnet_verdict verdict = {};
	struct vnet_packet p;
	__u32 action;

	if (!port)
		return TC_ACT_SHOT;
	action = vnet_send(skb, port, &p, &verdict);
	if (skb->cb[1])
		action = vnet_nat_leave(skb, port, VNET_EGRESS, action, &verdict);
	return vnet_act(skb, action, &verdict);
}

SEC("tc")
int vnet_normal_to(struct __sk_buff *skb)
{
	struct vnet_port *port = vnet_port_of(skb);
	struct vnet_verdict verdict = {};
	__u32 action;

	if (!port)
		return TC_ACT_SHOT;
	action = vnet_deliver(skb, port, &verdict);
	if (skb->cb[1])
		action = vnet_nat_leave(skb, port, VNET_INGRESS, action, &verdict);
	return vnet_act(skb, action, &verdict);
}

/*
 * Run by user space with a frame of its own: cb[0] is the tap, cb[1] whether the frame comes from
 * the VM behind it, cb[2] whether it goes past the tables. Returns what the kernel says to that.
 */
SEC("tc")
int vnet_inject(struct __sk_buff *skb)
{
	__u32 ifindex = skb->cb[0], from_vm = skb->cb[1];

	if (skb->cb[2])
		vnet_let_past(skb);
	skb->cb[0] = 0;
	return (int)bpf_clone_redirect(skb, ifindex, from_vm ? BPF_F_INGRESS : 0);
}
