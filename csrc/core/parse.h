/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a frame's bytes to its fields. Everything here reads what a VM or the world has sent: each
 * load is bounded by the frame (vnet_load) and by the length that the IP header states.
 */
#ifndef VNET_PARSE_H
#define VNET_PARSE_H

#include "abi.h"
#include "env.h"

#define VNET_ETH_LEN 14
#define VNET_ETH_IPV4 0x0800
#define VNET_ETH_ARP 0x0806
#define VNET_ETH_RARP 0x8035
#define VNET_ETH_VLAN 0x8100
#define VNET_ETH_IPV6 0x86dd
#define VNET_ETH_QINQ 0x88a8

#define VNET_ICMP 1
#define VNET_TCP 6
#define VNET_UDP 17
#define VNET_DCCP 33
#define VNET_ICMPV6 58
#define VNET_SCTP 132
#define VNET_UDPLITE 136

#define VNET_EXTENSIONS 6

enum vnet_fragment_kind { VNET_WHOLE = 0, VNET_FIRST = 1, VNET_LATER = 2 };

struct vnet_packet {
	__u64 source_mac;
	__u64 target_mac;
	/* From here to `zero` as in struct vnet_conn_key, whose `way` it is: see vnet_key_from(). */
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port; /* ICMP echo: the identifier, in both */
	__u16 destination_port;
	__u8 proto;
	__u8 family; /* 4, 6, or 0 when it is not IP */
	__u16 zero;
	__u32 l4;  /* offset of the transport header */
	__u32 end; /* offset behind the IP packet */
	__u32 fragment_id;
	__u32 sender; /* local id of the port here that it came from, 0 when from outside */
	__u32 seq;
	__u32 ack;
	__u16 ethertype;
	__u16 window;  /* TCP's, as it is in the header */
	__u8 fragment; /* enum vnet_fragment_kind */
	__u8 fragment_proto;
	__u8 tcp_flags;
	union {
		__u8 type;       /* ICMP */
		__u8 tcp_header; /* octets */
	};
	union {
		__u8 code;
		__u8 fit; /* enum vnet_fit: see vnet_window_look() */
	};
	__u8 hops; /* IPv6 hop limit */
};

#define VNET_IN_KEY(field, of_key)                                                                 \
	_Static_assert(offsetof(struct vnet_packet, field) -                                       \
				       offsetof(struct vnet_packet, source) ==                     \
			       offsetof(struct vnet_conn_key, of_key),                             \
		       "vnet_packet." #field)
VNET_IN_KEY(destination, remote);
VNET_IN_KEY(source_port, local_port);
VNET_IN_KEY(destination_port, remote_port);
VNET_IN_KEY(proto, proto);
VNET_IN_KEY(family, family);
VNET_IN_KEY(zero, way);

/* The key of its connection at the port that sends it, unless it is ICMP. */
VNET_INLINE const struct vnet_conn_key *vnet_key_from(const struct vnet_packet *p)
{
	return (const struct vnet_conn_key *)p->source;
}

VNET_INLINE __u16 vnet_be16(const __u8 *bytes)
{
	return (__u16)(bytes[0] << 8 | bytes[1]);
}

VNET_INLINE __u32 vnet_be32(const __u8 *bytes)
{
	return (__u32)bytes[0] << 24 | (__u32)bytes[1] << 16 | (__u32)bytes[2] << 8 | bytes[3];
}

VNET_INLINE void vnet_map_ipv4(__u8 *to, const __u8 *address)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, address, 4);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words of frames are swapped");

/* In network order, from the frame itself; the result in host order. */
VNET_INLINE __u16 vnet_peek16(const __u8 *from)
{
	return __builtin_bswap16(vnet_get16(from));
}

VNET_INLINE __u32 vnet_peek32(const __u8 *from)
{
	return __builtin_bswap32(vnet_get32(from));
}

VNET_INLINE void vnet_peek_address(__u8 *to, const __u8 *from)
{
	__u64 *words = (__u64 *)to;

	words[0] = vnet_get64(from);
	words[1] = vnet_get64(from + 8);
}

VNET_INLINE void vnet_peek_ipv4(__u8 *to, const __u8 *from)
{
	__u32 *words = (__u32 *)to;

	words[0] = words[1] = 0;
	words[2] = __builtin_bswap32(0xffff);
	words[3] = vnet_get32(from);
}

VNET_INLINE int vnet_same(const __u8 *a, const __u8 *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

VNET_INLINE int vnet_is_extension(__u8 proto)
{
	return proto == 0 || proto == 43 || proto == 44 || proto == 51 || proto == 60;
}

/* Loads from the IP packet, not from the padding or the frames' trailer behind it. */
VNET_INLINE int vnet_load_ip(struct vnet_ctx *ctx, const struct vnet_packet *p, __u32 offset,
			     void *to, __u32 length)
{
	if (offset + length > p->end)
		return -1;
	return vnet_load(ctx, offset, to, length);
}

VNET_INLINE __u32 vnet_parse_ethernet(struct vnet_ctx *ctx, struct vnet_packet *p)
{
	const __u8 *header = vnet_peek(ctx, 0, VNET_ETH_LEN);

	__builtin_memset(p, 0, sizeof(*p));
	if (!header)
		return VNET_REASON_MALFORMED;
	p->target_mac = vnet_get32(header) | (__u64)vnet_get16(header + 4) << 32;
	p->source_mac = vnet_get32(header + 6) | (__u64)vnet_get16(header + 10) << 32;
	p->ethertype = vnet_peek16(header + 12);
	if (p->ethertype == VNET_ETH_VLAN || p->ethertype == VNET_ETH_QINQ || vnet_tagged(ctx))
		return VNET_REASON_VLAN;
	return VNET_REASON_NONE;
}

VNET_INLINE __u32 vnet_parse_ipv4(struct vnet_ctx *ctx, struct vnet_packet *p, __u32 offset)
{
	const __u8 *header = vnet_peek(ctx, offset, 20);
	__u32 length, total, fragment;

	if (!header)
		return VNET_REASON_MALFORMED;
	length = (header[0] & 0x0f) * 4;
	total = vnet_peek16(header + 2);
	if (header[0] >> 4 != 4 || length < 20)
		return VNET_REASON_MALFORMED;
	/* 0 stands for a GSO frame beyond 64 KiB. */
	if (total == 0)
		total = vnet_length(ctx) - offset;
	if (total < length)
		return VNET_REASON_MALFORMED;
	p->end = offset + total;
	p->family = 4;
	p->proto = p->fragment_proto = header[9];
	vnet_peek_ipv4(p->source, header + 12);
	vnet_peek_ipv4(p->destination, header + 16);
	p->l4 = offset + length;
	fragment = vnet_peek16(header + 6) & 0x3fff;
	if (fragment) {
		p->fragment = fragment & 0x1fff ? VNET_LATER : VNET_FIRST;
		p->fragment_id = vnet_peek16(header + 4);
		/* RFC 3128: it would overwrite the flags of the first one. */
		if ((fragment & 0x1fff) == 1 && p->proto == VNET_TCP)
			return VNET_REASON_FRAGMENT;
		/* Behind the end of any packet: it is for receivers that do not count. */
		if ((fragment & 0x1fff) * 8 + total > 65535)
			return VNET_REASON_MALFORMED;
	}
	return VNET_REASON_NONE;
}

/* One IPv6 extension header: advances p->l4 and p->proto. */
VNET_INLINE __u32 vnet_parse_extension(struct vnet_ctx *ctx, struct vnet_packet *p)
{
	__u8 header[8];
	__u16 fragment;

	if (vnet_load_ip(ctx, p, p->l4, header, sizeof(header)))
		return VNET_REASON_MALFORMED;
	if (p->proto == 44) {
		fragment = vnet_be16(header + 2);
		if (fragment & 0xfff9) { /* else it is a whole packet (RFC 6946) */
			if (p->fragment)
				return VNET_REASON_MALFORMED;
			p->fragment = fragment & 0xfff8 ? VNET_LATER : VNET_FIRST;
			p->fragment_id = vnet_be32(header + 4);
			p->fragment_proto = header[0];
			if ((fragment & 0xfff8) + (p->end - p->l4 - 8) > 65535)
				return VNET_REASON_MALFORMED;
		}
		p->l4 += 8;
	} else {
		p->l4 += p->proto == 51 ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
	}
	p->proto = header[0];
	return VNET_REASON_NONE;
}

VNET_INLINE __u32 vnet_parse_ipv6(struct vnet_ctx *ctx, struct vnet_packet *p, __u32 offset)
{
	const __u8 *header = vnet_peek(ctx, offset, 40);
	__u32 total, reason;

	if (!header || header[0] >> 4 != 6)
		return VNET_REASON_MALFORMED;
	total = vnet_peek16(header + 4);
	if (total == 0) /* jumbogram, or nothing */
		total = vnet_length(ctx) - offset - 40;
	p->end = offset + 40 + total;
	p->family = 6;
	p->proto = header[6];
	p->hops = header[7];
	vnet_peek_address(p->source, header + 8);
	vnet_peek_address(p->destination, header + 24);
	p->l4 = offset + 40;
	for (int i = 0; i < VNET_EXTENSIONS; i++) {
		if (!vnet_is_extension(p->proto) || p->fragment == VNET_LATER)
			return VNET_REASON_NONE;
		reason = vnet_parse_extension(ctx, p);
		if (reason)
			return reason;
	}
	if (vnet_is_extension(p->proto) && p->fragment != VNET_LATER)
		return VNET_REASON_EXTENSION;
	return VNET_REASON_NONE;
}

VNET_INLINE void vnet_read_ports(struct vnet_packet *p, const __u8 *header)
{
	p->source_port = vnet_peek16(header);
	p->destination_port = vnet_peek16(header + 2);
}

VNET_INLINE __u32 vnet_read_tcp(struct vnet_packet *p, const __u8 *header)
{
	vnet_read_ports(p, header);
	p->seq = vnet_peek32(header + 4);
	p->ack = vnet_peek32(header + 8);
	p->tcp_header = header[12] >> 4 << 2;
	p->tcp_flags = header[13];
	p->window = vnet_peek16(header + 14);
	return header[12] >> 4 < 5 ? VNET_REASON_MALFORMED : VNET_REASON_NONE;
}

/* Whether the header begins with them: RFC 9293, 768, 4340, 9260, 3828. */
VNET_INLINE int vnet_has_ports(__u8 proto)
{
	return proto == VNET_TCP || proto == VNET_UDP || proto == VNET_DCCP ||
	       proto == VNET_SCTP || proto == VNET_UDPLITE;
}

/* The transport header of a packet that is no later fragment, wherever it begins. */
VNET_INLINE __u32 vnet_parse_transport(struct vnet_ctx *ctx, struct vnet_packet *p)
{
	__u32 length = p->proto == VNET_TCP ? 20 : 8;
	__u8 header[16] = {0};

	if (!vnet_has_ports(p->proto) && !(p->proto == VNET_ICMP && p->family == 4) &&
	    !(p->proto == VNET_ICMPV6 && p->family == 6))
		return VNET_REASON_NONE;
	if (p->l4 + length > p->end || vnet_load(ctx, p->l4, header, 8))
		return VNET_REASON_MALFORMED;
	if (p->proto == VNET_ICMP || p->proto == VNET_ICMPV6) {
		p->type = header[0];
		p->code = header[1];
		p->source_port = p->destination_port = vnet_be16(header + 4);
		return VNET_REASON_NONE;
	}
	if (p->proto == VNET_TCP)
		return vnet_load(ctx, p->l4 + 8, header + 8, 8) ? VNET_REASON_MALFORMED
								 : vnet_read_tcp(p, header);
	vnet_read_ports(p, header);
	return VNET_REASON_NONE;
}

/* The same where nearly all of them are: TCP and UDP behind IPv4 without options. */
VNET_INLINE __u32 vnet_parse_near_transport(struct vnet_ctx *ctx, struct vnet_packet *p)
{
	const __u8 *header;

	if (p->proto == VNET_TCP) {
		header = vnet_peek(ctx, VNET_ETH_LEN + 20, 20);
		if (!header || p->l4 + 20 > p->end)
			return VNET_REASON_MALFORMED;
		return vnet_read_tcp(p, header);
	}
	header = vnet_peek(ctx, VNET_ETH_LEN + 20, 8);
	if (!header || p->l4 + 8 > p->end)
		return VNET_REASON_MALFORMED;
	vnet_read_ports(p, header);
	return VNET_REASON_NONE;
}

VNET_INLINE __u32 vnet_parse_ip(struct vnet_ctx *ctx, struct vnet_packet *p)
{
	__u32 reason;

	if (p->ethertype == VNET_ETH_IPV4)
		reason = vnet_parse_ipv4(ctx, p, VNET_ETH_LEN);
	else
		reason = vnet_parse_ipv6(ctx, p, VNET_ETH_LEN);
	if (reason)
		return reason;
	if (p->end > vnet_length(ctx))
		return VNET_REASON_MALFORMED;
	if (p->fragment == VNET_LATER)
		return VNET_REASON_NONE;
	if (p->l4 == VNET_ETH_LEN + 20 && (p->proto == VNET_TCP || p->proto == VNET_UDP))
		return vnet_parse_near_transport(ctx, p);
	return vnet_parse_transport(ctx, p);
}

VNET_INLINE int vnet_is_echo(const struct vnet_packet *p)
{
	if (p->family == 4)
		return p->proto == VNET_ICMP && (p->type == 8 || p->type == 0);
	return p->proto == VNET_ICMPV6 && (p->type == 128 || p->type == 129);
}

VNET_INLINE int vnet_is_echo_reply(const struct vnet_packet *p)
{
	return vnet_is_echo(p) && (p->type == 0 || p->type == 129);
}

VNET_INLINE int vnet_is_icmp(const struct vnet_packet *p)
{
	return p->proto == (p->family == 4 ? VNET_ICMP : VNET_ICMPV6);
}

/* ICMP errors: they quote the packet that they are about. */
VNET_INLINE int vnet_is_icmp_error(const struct vnet_packet *p)
{
	if (p->family == 4)
		return p->proto == VNET_ICMP &&
		       (p->type == 3 || p->type == 4 || p->type == 11 || p->type == 12);
	return p->proto == VNET_ICMPV6 && p->type >= 1 && p->type <= 4;
}

/* To more than one receiver: no connection comes of it. */
VNET_INLINE int vnet_is_group(const struct vnet_packet *p)
{
	if (p->target_mac & VNET_MAC_GROUP)
		return 1;
	if (p->family == 6)
		return p->destination[0] == 0xff;
	return p->destination[12] >> 4 == 14 ||
	       (p->destination[12] == 255 && p->destination[13] == 255 &&
		p->destination[14] == 255 && p->destination[15] == 255);
}

#endif
