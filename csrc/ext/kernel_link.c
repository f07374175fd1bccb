/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says of an interface: which of the short ways it can have. */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel_internal.h"

/* An answer about one interface is a few KiB. */
#define ANSWER_SIZE 32768

/* The attribute among `length` bytes of them, NULL when it is not there. */
static const struct rtattr *find(const struct rtattr *at, int length, unsigned short type)
{
	for (; RTA_OK(at, length); at = RTA_NEXT(at, length))
		if ((at->rta_type & NLA_TYPE_MASK) == type)
			return at;
	return NULL;
}

static const struct rtattr *find_in(const struct rtattr *nest, unsigned short type)
{
	return nest ? find(RTA_DATA(nest), (int)RTA_PAYLOAD(nest), type) : NULL;
}

/* Whether the attribute is there and is this number of 8 bits. */
static int is_byte(const struct rtattr *attribute, unsigned char value)
{
	return attribute && RTA_PAYLOAD(attribute) == 1 &&
	       *(const unsigned char *)RTA_DATA(attribute) == value;
}

/* Bytes of the answer; 0 when there is none. */
static size_t ask(__u32 ifindex, void *answer, size_t size)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} question = {
		.header = {.nlmsg_len = sizeof(question), .nlmsg_type = RTM_GETLINK,
			   .nlmsg_flags = NLM_F_REQUEST},
		.link = {.ifi_family = AF_UNSPEC, .ifi_index = (int)ifindex},
	};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	ssize_t got = -1;

	if (fd < 0)
		return 0;
	if (send(fd, &question, sizeof(question), 0) == sizeof(question))
		got = recv(fd, answer, size, 0);
	close(fd);
	return got > 0 ? (size_t)got : 0;
}

/*
 * Frames of a tap with a virtio header may have no checksum yet, or be many in one, and XDP would
 * not see it. Of a tap with one queue that ends with its reader none of this can change later.
 */
static int is_plain_tap(const struct rtattr *data)
{
	return is_byte(find_in(data, IFLA_TUN_TYPE), IFF_TAP) &&
	       is_byte(find_in(data, IFLA_TUN_PI), 0) &&
	       is_byte(find_in(data, IFLA_TUN_VNET_HDR), 0) &&
	       is_byte(find_in(data, IFLA_TUN_MULTI_QUEUE), 0) &&
	       is_byte(find_in(data, IFLA_TUN_PERSIST), 0);
}

static int is_kind(const struct rtattr *info, const char *name)
{
	const struct rtattr *kind = find_in(info, IFLA_INFO_KIND);
	size_t length = strlen(name);

	return kind && RTA_PAYLOAD(kind) >= length && !strncmp(RTA_DATA(kind), name, length) &&
	       (RTA_PAYLOAD(kind) == length || !((const char *)RTA_DATA(kind))[length]);
}

__u32 vnet_link_kind(__u32 ifindex)
{
	union {
		struct nlmsghdr header;
		char bytes[ANSWER_SIZE];
	} answer;
	size_t got = ask(ifindex, &answer, sizeof(answer));
	const struct ifinfomsg *link = NLMSG_DATA(&answer.header);
	const struct rtattr *info;
	int length;

	if (!NLMSG_OK(&answer.header, got) || answer.header.nlmsg_type != RTM_NEWLINK ||
	    answer.header.nlmsg_len < NLMSG_LENGTH(sizeof(*link)))
		return 0;
	length = (int)IFLA_PAYLOAD(&answer.header);
	info = find(IFLA_RTA(link), length, IFLA_LINKINFO);
	if (is_kind(info, "tun") && is_plain_tap(find_in(info, IFLA_INFO_DATA)))
		return VNET_PORT_SHORT;
	return is_kind(info, "veth") && find(IFLA_RTA(link), length, IFLA_LINK_NETNSID)
		       ? VNET_PORT_PEER
		       : 0;
}
