/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the classifier can ask of a frame, as words of 8 bytes. Numbers are in host order,
 * addresses in network order; a field that a frame does not have is 0.
 *
 * A rule is a value and a mask over these words, and two ranges of ports beside them. The mask of
 * an IPv4 prefix is best one of the lower word alone, its 32 constant bits with it, beside the
 * family: such rules are the smallest.
 */
#ifndef VNET_FIELDS_H
#define VNET_FIELDS_H

#include "abi.h"

/* By index into vnet_fields.word. */
enum vnet_word {
	VNET_WORD_SOURCE_HIGH,
	VNET_WORD_SOURCE,
	VNET_WORD_DESTINATION_HIGH,
	VNET_WORD_DESTINATION,
	VNET_WORD_TRANSPORT,
	VNET_WORD_PORT,
	VNET_WORD_SOURCE_MAC,
	VNET_WORD_TARGET_MAC,
	VNET_WORD_NETWORK,
	VNET_WORD_IDENTITY,
	VNET_WORD_METADATA,
	VNET_WORDS,
};

/* vnet_fields.kind */
#define VNET_KIND_FRAGMENT 0x0f /* enum vnet_fragment_kind */
#define VNET_KIND_EGRESS 0x10   /* the direction; clear: to the VM */

/* vnet_fields.vlan: as a tag has it, with this bit where a tag is at all. */
#define VNET_VLAN_PRESENT 0x1000

struct vnet_fields {
	union {
		__u64 word[VNET_WORDS];
		struct {
			__u8 source[16]; /* ARP: the sender's */
			__u8 destination[16];
			__u16 source_port;
			__u16 destination_port;
			__u8 proto;
			__u8 family;
			__u8 type; /* ICMP; ARP: the operation */
			__u8 code;
			__u32 in_port; /* local id */
			__u8 tcp_flags;
			__u8 dscp;
			__u8 state; /* of the connection, in bits */
			__u8 kind;
			__u8 source_mac[6];
			__u16 ethertype;
			__u8 target_mac[6];
			__u16 vlan; /* priority << 13 | VNET_VLAN_PRESENT | id */
			__u32 network;
			__u32 mark;
			__u32 source_identity; /* local id of the instance */
			__u32 destination_identity;
			__u64 metadata;
		};
	};
};
_Static_assert(sizeof(struct vnet_fields) == 8 * VNET_WORDS, "vnet_fields");
_Static_assert(offsetof(struct vnet_fields, source_port) == 8 * VNET_WORD_TRANSPORT, "transport");
_Static_assert(offsetof(struct vnet_fields, in_port) == 8 * VNET_WORD_PORT, "port");
_Static_assert(offsetof(struct vnet_fields, source_mac) == 8 * VNET_WORD_SOURCE_MAC, "macs");
_Static_assert(offsetof(struct vnet_fields, network) == 8 * VNET_WORD_NETWORK, "network");
_Static_assert(offsetof(struct vnet_fields, metadata) == 8 * VNET_WORD_METADATA, "metadata");

/* Bits of the transport word. */
#define VNET_TRANSPORT_PORTS 0xffffffffULL
#define VNET_TRANSPORT_SOURCE_PORT 0xffffULL
#define VNET_TRANSPORT_DESTINATION_PORT 0xffff0000ULL
#define VNET_TRANSPORT_PROTO 0xff00000000ULL

#endif
