/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an attacker's VM sends, as fast as one CPU can, from its interface eth0:
 *
 *   flood spin|explosion|syn NETNS SOURCE_MAC TARGET_MAC TARGET_ADDRESS SECONDS CPU
 *
 * spin: nothing; the CPU is as busy. explosion: TCP segments whose source address and both ports
 * are random, each of them another combination of what rules look at. syn: the same to port 7000.
 * Writes `on` when it begins; ends after SECONDS or FRAMES_MAX and prints how many were sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAMES_MAX 100000000ULL
#define BATCH 64
#define OPEN_PORT 7000
#define SYN 0x02

struct frame {
	struct ether_header ether;
	uint8_t ip[20];
	uint8_t tcp[20];
} __attribute__((packed));

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* SplitMix64 */
static uint64_t draw(void)
{
	static uint64_t state = 1;
	uint64_t z = state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static void parse_mac(const char *text, uint8_t *mac)
{
	if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4,
		   mac + 5) != 6) {
		fprintf(stderr, "flood: %s is no MAC address\n", text);
		exit(2);
	}
}

static void make_frame(struct frame *frame, char **argv)
{
	memset(frame, 0, sizeof(*frame));
	parse_mac(argv[3], frame->ether.ether_shost);
	parse_mac(argv[4], frame->ether.ether_dhost);
	frame->ether.ether_type = htons(ETHERTYPE_IP);
	frame->ip[0] = 0x45;
	frame->ip[3] = sizeof(frame->ip) + sizeof(frame->tcp);
	frame->ip[8] = 64;
	frame->ip[9] = IPPROTO_TCP;
	if (inet_pton(AF_INET, argv[5], frame->ip + 16) != 1) {
		fprintf(stderr, "flood: %s is no IPv4 address\n", argv[5]);
		exit(2);
	}
	frame->tcp[12] = 5 << 4;
	frame->tcp[13] = SYN;
}

/* Another source address, below 224, and other ports. */
static void vary(struct frame *frame, int is_syn)
{
	uint64_t random = draw();
	uint16_t port = htons(OPEN_PORT);

	memcpy(frame->ip + 12, &random, 4);
	frame->ip[12] = 1 + frame->ip[12] % 126;
	memcpy(frame->tcp, (uint8_t *)&random + 4, 4);
	if (is_syn)
		memcpy(frame->tcp + 2, &port, 2);
}

static int open_interface(const char *netns)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET};
	int fd = open(netns, O_RDONLY | O_CLOEXEC), one = 1, sock;

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		fail(netns);
	address.sll_ifindex = (int)if_nametoindex("eth0");
	sock = socket(AF_PACKET, SOCK_RAW, 0); /* receives nothing */
	if (sock < 0 || bind(sock, (struct sockaddr *)&address, sizeof(address)))
		fail("packet socket");
	if (setsockopt(sock, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)))
		fail("PACKET_QDISC_BYPASS");
	return sock;
}

static unsigned long long flood(int sock, struct frame *frames, int is_syn, double end)
{
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	unsigned long long sent = 0;

	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){&frames[i], sizeof(frames[i])};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	while (now() < end && sent < FRAMES_MAX) {
		int done;

		for (int i = 0; i < BATCH; i++)
			vary(&frames[i], is_syn);
		done = sendmmsg(sock, messages, BATCH, 0);
		sent += done > 0 ? (unsigned long long)done : 0; /* a full queue is no error */
	}
	return sent;
}

int main(int argc, char **argv)
{
	static struct frame frames[BATCH];
	unsigned long long sent = 0;
	cpu_set_t set;
	double end;
	int sock;

	if (argc != 8 || (strcmp(argv[1], "spin") && strcmp(argv[1], "explosion") &&
			  strcmp(argv[1], "syn"))) {
		fprintf(stderr, "usage: flood spin|explosion|syn NETNS SOURCE_MAC TARGET_MAC "
				"TARGET_ADDRESS SECONDS CPU\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&set);
	CPU_SET((size_t)atoi(argv[7]), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("CPU");
	for (int i = 0; i < BATCH; i++)
		make_frame(&frames[i], argv);
	sock = open_interface(argv[2]);
	puts("on");
	fflush(stdout);
	end = now() + (atof(argv[6]) < 60 ? atof(argv[6]) : 60);
	if (strcmp(argv[1], "spin"))
		sent = flood(sock, frames, strcmp(argv[1], "syn") == 0, end);
	else
		while (now() < end)
			draw();
	printf("%llu\n", sent);
	return 0;
}
