// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The operator's tables, and what comes behind them: programs that those of vnet.bpf.c go on in
 * while any port has VNET_PORT_TABLES. They are loaded when the first table is made.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#define VNET_BEHIND_TABLES
#include "act.h"
#include "tables.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* What no table keeps, with the mark for its connection. */
VNET_INLINE int vnet_go_normal(struct __sk_buff *skb, __u32 stage, __u32 mark)
{
	skb->cb[2] = mark;
	return vnet_go_on(skb, stage);
}

VNET_INLINE int vnet_through(struct __sk_buff *skb, __u32 direction, __u32 normal)
{
	struct vnet_port *port = vnet_port_of(skb);
	struct vnet_verdict verdict = {};
	__u32 action, mark;

	if (!port)
		return TC_ACT_SHOT;
	if (vnet_is_past(skb))
		return vnet_go_normal(skb, normal, 0);
	action = vnet_tables(skb, port, direction, &verdict, &mark);
	if (action == VNET_TABLED)
		return vnet_go_normal(skb, normal, mark);
	return vnet_act(skb, action, &verdict);
}

SEC("tc")
int vnet_tables_from(struct __sk_buff *skb)
{
	return vnet_through(skb, VNET_EGRESS, VNET_STAGE_NORMAL_FROM);
}

SEC("tc")
int vnet_tables_to(struct __sk_buff *skb)
{
	return vnet_through(skb, VNET_INGRESS, VNET_STAGE_NORMAL_TO);
}

/* Nothing is handed over to the receiver's port: its own tables come first. */
SEC("tc")
int vnet_normal_from(struct __sk_buff *skb)
{
	struct vnet_port *port = vnet_port_of(skb);
	struct vnet_verdict verdict = {};
	struct vnet_packet p;

	return port ? vnet_act(skb, vnet_send(skb, port, &p, &verdict), &verdict) : TC_ACT_SHOT;
}

SEC("tc")
int vnet_normal_to(struct __sk_buff *skb)
{
	struct vnet_port *port = vnet_port_of(skb);
	struct vnet_verdict verdict = {};

	return port ? vnet_act(skb, vnet_deliver(skb, port, &verdict), &verdict) : TC_ACT_SHOT;
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
