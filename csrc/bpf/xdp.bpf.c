// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The XDP program of taps, before those of vnet.bpf.c: it spares a frame that takes the short way
 * the kernel's own bookkeeping. What it passes comes to them as if it were not there.
 */
#define VNET_XDP
#include <linux/bpf.h>

#include "shortcut.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int vnet_xdp_from_port(struct xdp_md *xdp)
{
	__u32 ifindex = vnet_take_shortcut(xdp);

	return ifindex ? (int)bpf_redirect(ifindex, 0) : XDP_PASS;
}
