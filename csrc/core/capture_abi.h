/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a capture asks for, and what it gives: shared by the programs and user space, as abi.h. */
#ifndef VNET_CAPTURE_ABI_H
#define VNET_CAPTURE_ABI_H

#include "abi.h"

/* More bytes of one frame are never captured. */
#define VNET_CAPTURE_SNAP 65535

/* Bytes that are taken from the ring at once. */
#define VNET_CAPTURE_ROOM (1U << 18)

/*
 * By local id, for ports with VNET_PORT_CAPTURED: which frames, how many, and what became of them.
 * Programs change `due_ns` and the counters.
 */
struct vnet_capture {
	__u64 due_ns;      /* when all that was taken would have come at the rate; 0 at first */
	__u64 matched;     /* frames that were asked for */
	__u64 over;        /* of those, lost because the rate was exceeded */
	__u64 full;        /* lost because the ring had no room */
	__u64 interval_ns; /* between two frames at the rate; 0: no limit */
	__u64 burst_ns;    /* how far frames may run ahead of the rate */
	__u32 snap;        /* bytes of a frame, 1 to VNET_CAPTURE_SNAP */
	__u8 directions;   /* 1 << enum vnet_direction */
	__u8 drops_only;
	__u8 proto;      /* 0: any */
	__u8 family;     /* 4 or 6; 0: any, and then `mask` is 0 too */
	__u8 remote[16]; /* no bits outside of `mask` */
	__u8 mask[16];
};
_Static_assert(sizeof(struct vnet_capture) == 88, "vnet_capture");
_Static_assert(offsetof(struct vnet_capture, remote) == 56, "vnet_capture.remote");

/* In the ring, before the first `captured` bytes of the frame; its slot may be longer. */
struct vnet_capture_record {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 local_id;
	__u32 length; /* of the frame */
	__u32 captured;
	__u16 gso_size;   /* 0: the frame goes out as it is */
	__u16 vlan_tci;   /* of the tag that was taken off the frame */
	__u16 vlan_proto; /* its ethertype; 0: there was none */
	__u8 direction;   /* enum vnet_direction */
	__u8 action;      /* enum vnet_action */
	__u8 reason;      /* enum vnet_reason */
	__u8 reserved[3];
};
_Static_assert(sizeof(struct vnet_capture_record) == 32, "vnet_capture_record");

/* All but the time and what the kernel alone knows. `what`: direction, action and reason, a byte
 * each, from the lowest on. */
VNET_INLINE void vnet_capture_fill(struct vnet_capture_record *record, __u32 local_id, __u32 what,
				   __u32 length, __u32 captured)
{
	*record = (struct vnet_capture_record){
		.local_id = local_id,
		.length = length,
		.captured = captured,
		.direction = what,
		.action = what >> 8,
		.reason = what >> 16,
	};
}

#endif
