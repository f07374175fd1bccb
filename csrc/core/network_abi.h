/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How networks leave the host, as the maps say it: by the 802.1Q tags of uplinks. A network that
 * leaves untagged is in vnet_uplinks instead.
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

#endif
