/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames from one tap to another and back, as QEMU would hand them over, without a network stack
 * at the ends:
 *
 *   taps plain|virtio TAP MAC ADDRESS TAP MAC ADDRESS
 *
 * Makes the taps, which are there while it runs; virtio: each frame has a virtio header before it,
 * as those of virtio-net devices have. Prints `ready`, and for each line `frames COUNT` or
 * `rr COUNT` on its standard input how many there were a second. frames: datagrams of 18 bytes to
 * port 7001, from the first to the second; rr: each is answered. One is in flight at a time: what
 * is in a tap's queue is read before the next is written.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define CLIENT_PORT 40000
#define SERVER_PORT 7001
#define PAYLOAD 18
#define WARM_UP 200
#define RETRIES 20
#define RETRY_MS 100
#define TIMEOUT 60

/* With the header that virtio-net 1.0 devices have; a plain tap gets what is behind it. */
struct frame {
	struct virtio_net_hdr_mrg_rxbuf virtio;
	struct ethhdr ether;
	struct iphdr ip;
	struct udphdr udp;
	char payload[PAYLOAD];
} __attribute__((packed));

struct end {
	int fd;
	unsigned char mac[ETH_ALEN];
	struct in_addr address;
	struct frame frame; /* what it sends */
};

/* Bytes of a frame that a tap does not get. */
static size_t skipped = sizeof(struct virtio_net_hdr_mrg_rxbuf);

static _Noreturn void fail(const char *format, ...)
{
	va_list args;
	int error = errno;

	va_start(args, format);
	fputs("taps: ", stderr);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(error));
	exit(1);
}

static void open_end(struct end *end, char **argv)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	int header = sizeof(struct virtio_net_hdr_mrg_rxbuf);

	if (strlen(argv[0]) >= IFNAMSIZ ||
	    sscanf(argv[1], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &end->mac[0], &end->mac[1],
		   &end->mac[2], &end->mac[3], &end->mac[4], &end->mac[5]) != ETH_ALEN ||
	    inet_pton(AF_INET, argv[2], &end->address) != 1) {
		fprintf(stderr, "taps: %s %s %s is no tap, MAC and address\n", argv[0], argv[1],
			argv[2]);
		exit(2);
	}
	strcpy(request.ifr_name, argv[0]);
	if (!skipped)
		request.ifr_flags |= IFF_VNET_HDR;
	/* Frames are taken as QEMU's only from who does not wait. */
	end->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (end->fd < 0 || ioctl(end->fd, TUNSETIFF, &request))
		fail("%s", argv[0]);
	if (!skipped && (ioctl(end->fd, TUNSETVNETHDRSZ, &header) ||
			 ioctl(end->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)))
		fail("%s", argv[0]);
}

/* RFC 1071 */
static __u16 checksum(const struct iphdr *ip)
{
	__u16 words[sizeof(*ip) / 2];
	__u32 sum = 0;

	memcpy(words, ip, sizeof(words));
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

static void make_frame(struct end *from, const struct end *to, __u16 source, __u16 target)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = htons(sizeof(struct frame) - offsetof(struct frame, ip)),
		.ttl = 64,
		.protocol = IPPROTO_UDP,
		.saddr = from->address.s_addr,
		.daddr = to->address.s_addr,
	};

	ip.check = checksum(&ip);
	memcpy(from->frame.ether.h_dest, to->mac, ETH_ALEN);
	memcpy(from->frame.ether.h_source, from->mac, ETH_ALEN);
	from->frame.ether.h_proto = htons(ETH_P_IP);
	from->frame.ip = ip;
	from->frame.udp.source = htons(source);
	from->frame.udp.dest = htons(target);
	from->frame.udp.len = htons(sizeof(struct udphdr) + PAYLOAD);
}

static void put(const struct end *from)
{
	size_t length = sizeof(from->frame) - skipped;

	if (write(from->fd, (const char *)&from->frame + skipped, length) != (ssize_t)length)
		fail("write");
}

/* The frame of the other end; what else comes out (the host's own) is passed over. */
static void get(const struct end *from, const struct end *to)
{
	struct pollfd ready = {.fd = to->fd, .events = POLLIN};
	size_t header = sizeof(from->frame.virtio) - skipped;
	unsigned char buffer[2048];
	ssize_t got;

	do {
		while ((got = read(to->fd, buffer, sizeof(buffer))) < 0 && errno == EAGAIN)
			poll(&ready, 1, -1);
		if (got < 0)
			fail("read");
	} while ((size_t)got != sizeof(from->frame) - skipped ||
		 memcmp(buffer + header, from->frame.ether.h_dest, 12));
}

static void cross(const struct end *from, const struct end *to)
{
	put(from);
	get(from, to);
}

/* The first ones may go astray while the peer learns; returns whether one came. */
static int cross_once(const struct end *from, const struct end *to)
{
	struct pollfd ready = {.fd = to->fd, .events = POLLIN};

	put(from);
	if (poll(&ready, 1, RETRY_MS) != 1)
		return 0;
	get(from, to);
	return 1;
}

static void warm_up(const struct end *client, const struct end *server)
{
	int crossed = 0;

	for (int tries = 0; crossed < WARM_UP; tries++) {
		if (tries == WARM_UP + RETRIES) {
			fprintf(stderr, "taps: frames are lost: %d of %d exchanges came to an end\n",
				crossed, tries);
			exit(1);
		}
		crossed += cross_once(client, server) && cross_once(server, client);
	}
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double measure(const struct end *client, const struct end *server, int answers, long count)
{
	double begin;

	alarm(TIMEOUT);
	/* The connection is established and the addresses are learnt. */
	warm_up(client, server);
	begin = now();
	for (long i = 0; i < count; i++) {
		cross(client, server);
		if (answers)
			cross(server, client);
	}
	alarm(0);
	return (double)count / (now() - begin);
}

int main(int argc, char **argv)
{
	struct end client = {0}, server = {0};
	char kind[8];
	long count;

	if (argc != 8 || (strcmp(argv[1], "plain") && strcmp(argv[1], "virtio"))) {
		fprintf(stderr, "usage: taps plain|virtio TAP MAC ADDRESS TAP MAC ADDRESS\n");
		return 2;
	}
	if (!strcmp(argv[1], "virtio"))
		skipped = 0;
	open_end(&client, argv + 2);
	open_end(&server, argv + 5);
	make_frame(&client, &server, CLIENT_PORT, SERVER_PORT);
	make_frame(&server, &client, SERVER_PORT, CLIENT_PORT);
	puts("ready");
	fflush(stdout);
	while (scanf("%7s %ld", kind, &count) == 2) {
		if (count < 1 || count > 100000000 || (strcmp(kind, "frames") && strcmp(kind, "rr"))) {
			fprintf(stderr, "taps: %s %ld is not frames or rr and a count\n", kind, count);
			return 2;
		}
		printf("%.1f\n", measure(&client, &server, !strcmp(kind, "rr"), count));
		fflush(stdout);
	}
	return 0;
}
