/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers for neighbours that are known: a VM's broadcast question who has an address (ARP, RFC 826;
 * neighbour solicitation, RFC 4861) goes back to it as the answer, instead of to everybody. A
 * question to one MAC asks whether that very neighbour is alive: it is forwarded.
 */
#ifndef VNET_NEIGHBOUR_H
#define VNET_NEIGHBOUR_H

#include "spoof.h"

/* An answer: a MAC, above it vnet_binding's flags, and this bit; 0: there is none. */
#define VNET_ANSWER (1ULL << 63)
#define VNET_ANSWER_FLAGS 48

#define VNET_ARP_ANSWER 60 /* the least that Ethernet carries */
#define VNET_ND_MESSAGE 32
#define VNET_ND_ANSWER (VNET_ETH_LEN + 40 + VNET_ND_MESSAGE)

/* Whether an ARP request asks for an address other than its sender's own (an announcement). */
VNET_INLINE int vnet_asks_arp(struct vnet_ctx *ctx, __u8 *address)
{
	__u8 arp[28];

	if (vnet_load(ctx, VNET_ETH_LEN, arp, sizeof(arp)) || vnet_be16(arp + 6) != 1 ||
	    vnet_be32(arp + 14) == vnet_be32(arp + 24))
		return 0;
	vnet_map_ipv4(address, arp + 24);
	return 1;
}

/* To the group of the solicited node, and with nothing between IPv6 and ICMPv6. */
VNET_INLINE int vnet_asks_nd(struct vnet_ctx *ctx, __u8 *address)
{
	__u8 head[4], group[16], type;
	__u16 length;

	if (vnet_load(ctx, VNET_ETH_LEN + 4, head, sizeof(head)) || head[2] != VNET_ICMPV6 ||
	    vnet_load(ctx, VNET_ETH_LEN + 24, group, sizeof(group)) ||
	    vnet_load(ctx, VNET_ETH_LEN + 40, &type, 1) || type != VNET_ND_SOLICIT ||
	    vnet_load(ctx, VNET_ETH_LEN + 48, address, 16))
		return 0;
	length = vnet_be16(head);
	if (length && length < 24)
		return 0;
	return vnet_be32(group) == 0xff020000 && vnet_be32(group + 4) == 0 &&
	       vnet_be32(group + 8) == 1 && group[12] == 0xff && group[13] == address[13] &&
	       group[14] == address[14] && group[15] == address[15];
}

/*
 * The answer to a frame that the port with this MAC may send to all, 0 when there is none. A port's
 * own address is never answered: a guest that looks for its double must not find itself. It reads
 * the frame anew, so that the verifier need not follow all that has become of it before.
 */
VNET_OUTLINE __u64 vnet_find_answer(struct vnet_ctx *ctx, __u64 mac, __u32 network)
{
	struct vnet_binding_key key = {.network = network};
	const struct vnet_binding *binding;
	__u8 type[2];
	int asks = 0;

	if (vnet_load(ctx, 12, type, sizeof(type)))
		return 0;
	if (vnet_be16(type) == VNET_ETH_ARP)
		asks = vnet_asks_arp(ctx, key.address);
	else if (vnet_be16(type) == VNET_ETH_IPV6)
		asks = vnet_asks_nd(ctx, key.address);
	binding = asks ? vnet_binding(ctx, &key) : NULL;
	if (!binding || binding->mac == mac)
		return 0;
	return VNET_ANSWER | (__u64)binding->flags << VNET_ANSWER_FLAGS | binding->mac;
}

VNET_INLINE void vnet_put_mac(__u8 *to, __u64 mac)
{
	for (int i = 0; i < 6; i++)
		to[i] = mac >> 8 * i;
}

VNET_INLINE int vnet_answer_arp(struct vnet_ctx *ctx, __u8 *frame, __u64 mac)
{
	__u8 asked[4];

	if (vnet_load(ctx, 0, frame, 42))
		return -1;
	__builtin_memset(frame + 42, 0, VNET_ARP_ANSWER - 42);
	__builtin_memcpy(asked, frame + 38, 4);
	__builtin_memcpy(frame, frame + 6, 6);
	vnet_put_mac(frame + 6, mac);
	frame[21] = 2; /* reply */
	__builtin_memcpy(frame + 32, frame + 22, 10);
	vnet_put_mac(frame + 22, mac);
	__builtin_memcpy(frame + 28, asked, 4);
	return vnet_rewrite(ctx, frame, VNET_ARP_ANSWER);
}

/*
 * RFC 1071, over what ICMPv6 counts: length, protocol, addresses, and the message behind them. As it
 * lies in memory, since the sum of swapped words is the swapped sum.
 */
VNET_INLINE __u16 vnet_icmp6_sum(const __u8 *addresses)
{
	const __u8 length_and_protocol[2] = {0, VNET_ND_MESSAGE + VNET_ICMPV6};
	__u16 word;
	__u32 sum;

	__builtin_memcpy(&word, length_and_protocol, sizeof(word));
	sum = vnet_sum(addresses, 32 + VNET_ND_MESSAGE, word);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* To the sender, or to all nodes when it has no address yet (RFC 4861, 7.2.4). */
VNET_INLINE int vnet_answer_nd(struct vnet_ctx *ctx, __u8 *frame, __u64 mac, __u32 flags)
{
	__u8 *ip = frame + VNET_ETH_LEN, *icmp = ip + 40;
	__u8 *source = ip + 8, *destination = ip + 24, *target = icmp + 8;
	int known;
	__u16 sum;

	if (vnet_load(ctx, 0, frame, VNET_ND_ANSWER - 8))
		return -1;
	known = vnet_be32(source) || vnet_be32(source + 4) || vnet_be32(source + 8) ||
		vnet_be32(source + 12);
	if (known) {
		__builtin_memcpy(frame, frame + 6, 6);
		__builtin_memcpy(destination, source, 16);
	} else {
		vnet_put_mac(frame, 0x010000003333);
		__builtin_memset(destination + 2, 0, 13);
		destination[15] = 1;
	}
	__builtin_memcpy(source, target, 16);
	vnet_put_mac(frame + 6, mac);
	ip[0] = 0x60;
	ip[1] = ip[2] = ip[3] = ip[4] = 0;
	ip[5] = VNET_ND_MESSAGE;
	icmp[0] = VNET_ND_ADVERT;
	icmp[2] = icmp[3] = 0;
	/* Router, solicited, override. */
	icmp[4] = 0x20 | (known ? 0x40 : 0) | (flags & VNET_BINDING_ROUTER ? 0x80 : 0);
	icmp[5] = icmp[6] = icmp[7] = 0; /* whatever the question had there */
	icmp[24] = 2; /* target's link-layer address */
	icmp[25] = 1;
	vnet_put_mac(icmp + 26, mac);
	sum = vnet_icmp6_sum(source);
	__builtin_memcpy(icmp + 2, &sum, sizeof(sum));
	return vnet_rewrite(ctx, frame, VNET_ND_ANSWER);
}

/*
 * Makes the question the answer that vnet_find_answer() finds; -1 when there is none any more, or
 * the frame does not let itself be changed. What else the question carried, such as options or bytes
 * behind it, is gone.
 */
VNET_OUTLINE int vnet_answer(struct vnet_ctx *ctx, __u64 own_mac, __u32 network)
{
	__u64 answer = vnet_find_answer(ctx, own_mac, network);
	__u64 mac = answer & ((1ULL << VNET_ANSWER_FLAGS) - 1);
	__u8 frame[2 + VNET_ND_ANSWER] __attribute__((aligned(8)));

	/* Two bytes in front: the addresses begin at a multiple of 4, as sums want it. */
	if (!answer || vnet_load(ctx, 12, frame, 2))
		return -1;
	return vnet_be16(frame) == VNET_ETH_ARP
		       ? vnet_answer_arp(ctx, frame + 2, mac)
		       : vnet_answer_nd(ctx, frame + 2, mac, answer >> VNET_ANSWER_FLAGS);
}

#endif
