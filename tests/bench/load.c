/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load of the datapath's bench: one process at each end, in network namespaces of their own,
 * and one figure on stdout.
 *
 *   load KIND CLIENT_NETNS SERVER_NETNS ADDRESS SECONDS CLIENT_CPU SERVER_CPU
 *
 * KIND: rr      requests of one byte, each answered by one, on one connection: per second
 *       crr     connect, one request and its answer, close: per second
 *       udp     datagrams of 18 bytes that arrive (64-byte frames): per second
 *       stream  TCP bytes that arrive: bits per second
 *
 * SECONDS are measured after a tenth as long of warm-up. All is over after twice that and some
 * seconds, whatever happens: the clients then end with an error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TCP_PORT 7000
#define UDP_PORT 7001
#define DATAGRAM 18
#define CHUNK (128 << 10)
/* Bounds of one run, above anything that a machine does in it. */
#define MAX_CONNECTIONS 60000 /* a client has so many ports; closed ones wait */
#define MAX_TRANSFERS 400000000ULL
#define GRACE 5

struct load {
	struct sockaddr_in tcp, udp;
	double seconds;
	int client_netns, server_netns, client_cpu, server_cpu;
};

static _Noreturn void fail(const char *format, ...)
{
	va_list args;
	int error = errno;

	va_start(args, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(error));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void enter(int netns)
{
	if (setns(netns, CLONE_NEWNET))
		fail("setns");
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("CPU %d", cpu);
}

static int make_socket(int type)
{
	int one = 1, sock = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (sock < 0)
		fail("socket");
	if (type == SOCK_STREAM && setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		fail("TCP_NODELAY");
	return sock;
}

static int make_server(const struct load *load, int type)
{
	const struct sockaddr_in *address = type == SOCK_STREAM ? &load->tcp : &load->udp;
	int sock = make_socket(type), one = 1, size = 1 << 20;

	if (setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    (type == SOCK_DGRAM && setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size))))
		fail("socket options");
	if (bind(sock, (const struct sockaddr *)address, sizeof(*address)))
		fail("bind");
	if (type == SOCK_STREAM && listen(sock, 128))
		fail("listen");
	return sock;
}

static int make_client(const struct load *load, int type)
{
	const struct sockaddr_in *address = type == SOCK_STREAM ? &load->tcp : &load->udp;
	int sock = make_socket(type);

	if (connect(sock, (const struct sockaddr *)address, sizeof(*address)))
		fail("connect");
	return sock;
}

/* One byte there, one byte back. */
static void request(int sock)
{
	char byte = 'x';

	if (send(sock, &byte, 1, MSG_NOSIGNAL) != 1)
		fail("send");
	if (recv(sock, &byte, 1, 0) != 1)
		fail("recv");
}

/* Answers until the other side closes; then the next connection. */
static void serve_requests(int listener)
{
	char byte;

	for (;;) {
		int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		int one = 1;

		if (sock < 0)
			fail("accept");
		setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (recv(sock, &byte, 1, 0) == 1)
			if (send(sock, &byte, 1, MSG_NOSIGNAL) != 1)
				break;
		close(sock);
	}
}

static void send_datagrams(const struct load *load)
{
	int sock = make_client(load, SOCK_DGRAM);
	char data[DATAGRAM] = {0};

	/* A full queue on the way is no error. */
	for (unsigned long long i = 0; i < MAX_TRANSFERS; i++)
		if (send(sock, data, sizeof(data), 0) < 0 && errno != ENOBUFS &&
		    errno != ECONNREFUSED)
			fail("send datagram");
}

static void send_stream(const struct load *load)
{
	static char data[CHUNK];
	int sock = make_client(load, SOCK_STREAM);

	while (send(sock, data, sizeof(data), MSG_NOSIGNAL) > 0)
		;
}

static void connect_request_close(const struct load *load)
{
	int sock = make_client(load, SOCK_STREAM);

	request(sock);
	close(sock);
}

/* One unit of what is counted at the measuring end. */
static unsigned long long transfer(const struct load *load, char kind, int sock)
{
	static char data[CHUNK];
	ssize_t got;

	if (kind == 'r')
		return request(sock), 1;
	if (kind == 'c')
		return connect_request_close(load), 1;
	got = recv(sock, data, sizeof(data), 0);
	if (got <= 0)
		fail("nothing arrives");
	return kind == 'u' ? 1 : (unsigned long long)got * 8;
}

static double measure(const struct load *load, char kind, int sock)
{
	double begin = now() + load->seconds / 10, end = begin + load->seconds, t = 0;
	unsigned long long units = 0, count = 0;

	while (now() < begin) {
		transfer(load, kind, sock);
		if (++count == MAX_CONNECTIONS / 10 && kind == 'c')
			break;
	}
	begin = now();
	for (count = 0; count < MAX_TRANSFERS; count++) {
		units += transfer(load, kind, sock);
		/* Datagrams come by the hundred thousand: the clock is read for each eighth. */
		if (kind == 'u' && count % 8)
			continue;
		t = now();
		if (t >= end || (kind == 'c' && count >= MAX_CONNECTIONS * 8 / 10))
			break;
	}
	return (double)units / (now() - begin);
}

/* The end that is not measured runs until it is killed. */
static _Noreturn void be_peer(const struct load *load, char kind, int listener, pid_t parent)
{
	int serves = kind == 'r' || kind == 'c';

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		exit(1);
	pin(serves ? load->server_cpu : load->client_cpu);
	enter(serves ? load->server_netns : load->client_netns);
	if (serves)
		serve_requests(listener);
	else if (kind == 'u')
		send_datagrams(load);
	else
		send_stream(load);
	exit(0);
}

static int accept_stream(int listener)
{
	int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (sock < 0)
		fail("accept");
	return sock;
}

static double run(const struct load *load, char kind)
{
	int serves = kind == 'r' || kind == 'c';
	pid_t parent = getpid(), child;
	int sock, listener;
	double figure;

	enter(load->server_netns);
	listener = make_server(load, kind == 'u' ? SOCK_DGRAM : SOCK_STREAM);
	child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0)
		be_peer(load, kind, listener, parent);
	pin(serves ? load->client_cpu : load->server_cpu);
	enter(serves ? load->client_netns : load->server_netns);
	if (kind == 'r')
		sock = make_client(load, SOCK_STREAM);
	else
		sock = kind == 's' ? accept_stream(listener) : listener;
	figure = measure(load, kind, sock);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return figure;
}

static int open_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("%s", path);
	return fd;
}

static void expire(int number)
{
	static const char text[] = "load: no end in time: frames are lost\n";

	(void)number;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

int main(int argc, char **argv)
{
	struct load load = {0};
	char *end;

	if (argc != 8 || (strcmp(argv[1], "rr") && strcmp(argv[1], "crr") &&
			  strcmp(argv[1], "udp") && strcmp(argv[1], "stream"))) {
		fprintf(stderr, "usage: load rr|crr|udp|stream CLIENT_NETNS SERVER_NETNS ADDRESS "
				"SECONDS CLIENT_CPU SERVER_CPU\n");
		return 2;
	}
	load.client_netns = open_netns(argv[2]);
	load.server_netns = open_netns(argv[3]);
	load.tcp.sin_family = AF_INET;
	if (inet_pton(AF_INET, argv[4], &load.tcp.sin_addr) != 1) {
		fprintf(stderr, "load: %s is no IPv4 address\n", argv[4]);
		return 2;
	}
	load.udp = load.tcp;
	load.tcp.sin_port = htons(TCP_PORT);
	load.udp.sin_port = htons(UDP_PORT);
	load.seconds = strtod(argv[5], &end);
	if (*end || !(load.seconds > 0) || load.seconds > 60) {
		fprintf(stderr, "load: SECONDS is above 0 and at most 60\n");
		return 2;
	}
	load.client_cpu = atoi(argv[6]);
	load.server_cpu = atoi(argv[7]);
	signal(SIGALRM, expire);
	alarm((unsigned int)(load.seconds * 2) + GRACE);
	printf("%.1f\n", run(&load, argv[1][0]));
	return 0;
}
