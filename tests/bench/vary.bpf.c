// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * BPF_PROG_TEST_RUN runs one frame again and again: one key, always in the cache. This program
 * gives the frame other ports each time, then goes on to the program that is measured.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
/* After the kernel's types, which they need. */
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Of Ethernet and IPv4 without options. */
#define PORTS 34
#define FIRST_PORT 1024
#define PORT_COUNT 60000

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

const volatile __u32 count = 1;    /* keys */
const volatile __u32 random = 0;   /* in random order, otherwise one after another */
const volatile __u32 incoming = 0; /* the VM's port is the destination */
const volatile __u32 one_port = 0; /* the VM's port stays as the frame has it */
__u64 state = 1;
__u32 next = 0;

static __always_inline __u32 choose(void)
{
	if (!random) {
		__u32 index = next++;

		if (next == count)
			next = 0;
		return index;
	}
	/* SplitMix64 */
	__u64 z = state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	z ^= z >> 31;
	return ((z >> 32) * count) >> 32;
}

SEC("tc")
int vary(struct __sk_buff *skb)
{
	__u16 *ports = (void *)(long)skb->data + PORTS;
	__u32 index = choose(), low = index % PORT_COUNT, high = index / PORT_COUNT;

	if ((void *)(ports + 2) > (void *)(long)skb->data_end)
		return TC_ACT_STOLEN;
	if (one_port) {
		ports[!incoming] = bpf_htons(FIRST_PORT + low);
	} else {
		ports[!!incoming] = bpf_htons(FIRST_PORT + low);
		ports[!incoming] = bpf_htons(FIRST_PORT + high);
	}
	bpf_tail_call(skb, &target, 0);
	return TC_ACT_STOLEN; /* nothing that is measured says so */
}

SEC("tc")
int empty(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_UNSPEC;
}
