/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * 802.1Q on uplinks: the network that a frame's tag says, and the tag of a frame that leaves. Taps
 * see no tags. A frame with a second tag behind the network's own keeps that one, and is dropped at
 * the tap for it; one with a service tag (802.1ad) is of no network here.
 */
#ifndef VNET_VLAN_H
#define VNET_VLAN_H

#include "parse.h"

#define VNET_VLAN_ID 0x0fff

struct vnet_tag {
	__u32 network; /* that the frame is of */
	__u16 present; /* whether there is a tag; priority alone (VLAN 0) is one, too */
	__u16 tci;
};

/* Addresses and network of a frame on an uplink; -1 when it is of no network here. */
VNET_INLINE int vnet_parse_uplink(struct vnet_ctx *ctx, const struct vnet_iface *iface,
				  struct vnet_packet *p, struct vnet_tag *tag)
{
	__u32 reason = vnet_parse_ethernet(ctx, p);
	struct vnet_vlan_key key;
	__u32 *network;

	tag->network = iface->network;
	tag->present = reason == VNET_REASON_VLAN;
	tag->tci = 0; /* the verifier lets nobody carry what was never set */
	if (tag->present) {
		if (vnet_load_tag(ctx, &tag->tci))
			return -1;
		key.ifindex = vnet_ifindex(ctx);
		key.vlan = tag->tci & VNET_VLAN_ID;
		if (key.vlan) {
			network = vnet_vlan(ctx, &key);
			if (!network)
				return -1;
			tag->network = *network;
			return 0;
		}
	} else if (reason) {
		return -1;
	}
	return iface->flags & VNET_IFACE_TAGGED ? -1 : 0;
}

/* Off with the tag, as far as there is one; -1 when that fails. */
VNET_INLINE int vnet_take_tag(struct vnet_ctx *ctx, const struct vnet_tag *tag)
{
	return tag->present ? vnet_pop_tag(ctx) : 0;
}

/* On with it again, priority and all. */
VNET_INLINE int vnet_give_tag(struct vnet_ctx *ctx, const struct vnet_tag *tag)
{
	return tag->present ? vnet_push_tag(ctx, tag->tci) : 0;
}

/*
 * Out on the uplink of a network: VNET_REDIRECT and, above it, the tag with which the frame leaves,
 * 0 for none. The kernel's stack has no room for the tag elsewhere. VNET_DROP: there is no uplink.
 */
#define VNET_TAG_SHIFT 16

VNET_INLINE __u32 vnet_way_out(struct vnet_ctx *ctx, __u32 network, __u32 *ifindex)
{
	__u32 *uplink = vnet_uplink(ctx, network);
	struct vnet_segment *segment;

	if (uplink) {
		*ifindex = *uplink;
		return VNET_REDIRECT;
	}
	segment = vnet_segment(ctx, network);
	if (!segment)
		return VNET_DROP;
	*ifindex = segment->ifindex;
	return VNET_REDIRECT | segment->vlan << VNET_TAG_SHIFT;
}

#endif
