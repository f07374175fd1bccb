/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an operator's handlers do: shared by the programs and user space, as abi.h. A table is a
 * set of the classifier (classifier_image.h). The action of a rule there is the index of a
 * vnet_handler; that of a miss is an enum vnet_miss, which no handler has for its index.
 */
#ifndef VNET_HANDLER_ABI_H
#define VNET_HANDLER_ABI_H

#include "fields.h"

#define VNET_HANDLER_TABLES 16
#define VNET_MAX_OPS 8

/* Done one after the other; what ends a frame's way is marked E. */
enum vnet_op_code {
	VNET_OP_NONE = 0,
	VNET_OP_NORMAL = 1,     /* E policy and forwarding, as without tables */
	VNET_OP_DROP = 2,       /* E counted as `handler` */
	VNET_OP_OUTPUT = 3,     /* E `value`: local id of a port, or 0: the network's uplink */
	VNET_OP_GOTO = 4,       /* E `arg`: a table after this one */
	VNET_OP_CONTROLLER = 5, /* E `arg`: bytes of the frame, `value`: the rule's cookie */
	VNET_OP_SET = 6,        /* `field`: enum vnet_set_field, `wide`: what to */
	VNET_OP_MIRROR = 7,     /* a copy to the port with local id `value` */
	VNET_OP_METER = 8,      /* what is beyond `value` kbit/s is dropped as `rate`; `wide`: kbit at once */
	VNET_OP_PUSH_VLAN = 9,  /* `arg`: the tag */
	VNET_OP_POP_VLAN = 10,
	VNET_OP_GROUP = 11,     /* E `value`: a group of ports */
	VNET_OP_COPY = 12,      /* as OUTPUT, but to a port only, and the frame goes on */
	VNET_OP_NAT = 13,       /* `field`: enum vnet_nat_field, `wide`: an address, as SET has it,
	                           `arg`: its family, `value`: a port, or the first | the last << 16 */
};

/* What a connection that begins is translated to, behind the tables: see nat.h. */
enum vnet_nat_field {
	VNET_NAT_SOURCE = 1,
	VNET_NAT_DESTINATION = 2,
	VNET_NAT_SOURCE_HIGH = 3, /* comes before SOURCE of IPv6 */
	VNET_NAT_DESTINATION_HIGH = 4,
};

/* Numbers in host order, addresses in network order as they lie in memory. */
enum vnet_set_field {
	VNET_SET_SOURCE_MAC = 1, /* as vnet_mac() */
	VNET_SET_TARGET_MAC = 2,
	VNET_SET_SOURCE = 3, /* an IPv4 address in the lower half of `wide`; IPv6: two ops, see high */
	VNET_SET_DESTINATION = 4,
	VNET_SET_SOURCE_HIGH = 5, /* the first eight octets of an IPv6 address */
	VNET_SET_DESTINATION_HIGH = 6,
	VNET_SET_SOURCE_PORT = 7,
	VNET_SET_DESTINATION_PORT = 8,
	VNET_SET_DSCP = 9,
	VNET_SET_HOP_LIMIT = 10, /* IPv4: the time to live */
	VNET_SET_METADATA = 11,  /* the register; `value` and `arg` unused */
	VNET_SET_MARK = 12,      /* of the frame's connection, as later tables match it */
};

struct vnet_op {
	__u8 code;
	__u8 field;
	__u16 arg;
	__u32 value;
	__u64 wide;
};
_Static_assert(sizeof(struct vnet_op) == 16, "vnet_op");

struct vnet_actions {
	struct vnet_op op[VNET_MAX_OPS]; /* the first VNET_OP_NONE ends it, as NORMAL does */
};
_Static_assert(sizeof(struct vnet_actions) == 128, "vnet_actions");

/* What becomes of a frame that no rule of a table matches. */
enum vnet_miss {
	VNET_MISS_CONTINUE = 0,
	VNET_MISS_DROP = 1,
	VNET_MISS_CONTROLLER = 2,
	VNET_MISS_COUNT,
};

/* Actions by their index, from VNET_MISS_COUNT on; rules that do the same share them. */
struct vnet_handler {
	struct vnet_actions actions;
	__u32 cookie;
	__u32 users;           /* rules; user space only */
	struct vnet_rate rate; /* of its first METER */
};
_Static_assert(sizeof(struct vnet_handler) == 168, "vnet_handler");

/*
 * vnet_fields.state: what is known of the frame's connection. 0 where nothing tracks it: no IP,
 * or an ICMP error. REPLY is against the direction in which it began.
 */
enum vnet_conn_bit {
	VNET_CONN_BIT_TRACKED = 1,
	VNET_CONN_BIT_NEW = 2, /* there is no entry, or nothing came back yet */
	VNET_CONN_BIT_ESTABLISHED = 4,
	VNET_CONN_BIT_RELATED = 8,
	VNET_CONN_BIT_REPLY = 16,
	VNET_CONN_BIT_INVALID = 32, /* it can be no connection's frame */
};

enum vnet_packet_in_why { VNET_IN_RULE = 1, VNET_IN_MISS = 2 };

/* In the ring to the controller, before the first `captured` bytes of the frame. */
struct vnet_packet_in {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 metadata;
	__u32 local_id;
	__u32 length; /* of the frame, without its tag */
	__u32 captured;
	__u32 cookie;
	__u8 table;
	__u8 why;       /* enum vnet_packet_in_why */
	__u8 direction; /* enum vnet_direction */
	__u8 reserved;
	__u16 vlan; /* the tag that is not among the bytes; 0 in `tagged`: there is none */
	__u16 tagged;
};
_Static_assert(sizeof(struct vnet_packet_in) == 40, "vnet_packet_in");

/* The ring to the controller: bytes. */
#define VNET_PACKET_RING (1U << 20)
#define VNET_PACKET_SNAP 65535

/*
 * By local id: how often a port's frames may go to the controller. Id 0 is no port's and says the
 * rate; the others have `due_ns`, when all that went would have gone at the rate.
 */
struct vnet_packet_rate {
	__u64 due_ns;
	__u64 interval_ns; /* between two frames at the rate */
	__u64 burst_ns;    /* how far frames may run ahead of it */
};
_Static_assert(sizeof(struct vnet_packet_rate) == 24, "vnet_packet_rate");

#endif
