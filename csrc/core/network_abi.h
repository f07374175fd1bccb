/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the maps say of networks: the 802.1Q tags with which they leave the host (one that leaves
 * untagged is in vnet_uplinks instead), and who has which address in them.
 */
#ifndef VNET_NETWORK_ABI_H
#define VNET_NETWORK_ABI_H

#include <linux/types.h>

/* By network: the uplink that its frames leave on, and the tag that they get. */
struct vnet_segment {
	__u32 ifindex;
	__u32 vlan; /* 1 to 4094 */
};
_Static_assert(sizeof(struct vnet_segment) == 8, "vnet_segment");

/* -> the network of frames that come in with the tag. */
struct vnet_vlan_key {
	__u32 ifindex;
	__u32 vlan;
};
_Static_assert(sizeof(struct vnet_vlan_key) == 8, "vnet_vlan_key");

#define VNET_MAX_SEGMENTS 16384

/* Who has an address in a network; IPv4 mapped. */
struct vnet_binding_key {
	__u32 network;
	__u32 zero;
	__u8 address[16];
};
_Static_assert(sizeof(struct vnet_binding_key) == 24, "vnet_binding_key");

enum vnet_binding_flags { VNET_BINDING_ROUTER = 1 /* it forwards packets of others */ };

struct vnet_binding {
	__u64 mac;
	__u32 local_id; /* of the port that has it, 0: not one of this host */
	__u16 flags;
	__u16 zero;
};
_Static_assert(sizeof(struct vnet_binding) == 16, "vnet_binding");

#define VNET_MAX_BINDINGS 262144

#endif
