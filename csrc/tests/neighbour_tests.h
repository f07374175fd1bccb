/* SPDX-License-Identifier: Apache-2.0 */
/* Questions cut at every length, and their answers; included by test_core.c. */

static size_t arp_request(__u8 *frame)
{
	static const __u8 all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const __u8 head[8] = {0, 1, 8, 0, 6, 4, 0, 1};
	size_t at = ethernet(frame, all, bench_vm, 0x806);

	memcpy(frame + at, head, 8);
	memcpy(frame + at + 8, bench_vm, 6);
	memcpy(frame + at + 14, bench_vm4 + 12, 4);
	memset(frame + at + 18, 0, 6);
	memcpy(frame + at + 24, bench_peer4 + 12, 4);
	return at + 28;
}

/* Without options: the answer is longer. */
static size_t solicitation(__u8 *frame)
{
	static const __u8 group[6] = {0x33, 0x33, 0xff, 0, 0, 2};
	static const __u8 node[16] = {0xff, 2, [11] = 1, [12] = 0xff, [15] = 2};
	static const __u8 head[8] = {0x60, 0, 0, 0, 0, 24, 58, 255};
	size_t at = ethernet(frame, group, bench_vm, 0x86dd);

	memcpy(frame + at, head, 8);
	memcpy(frame + at + 8, bench_vm6, 16);
	memcpy(frame + at + 24, node, 16);
	memset(frame + at + 40, 0, 8);
	frame[at + 40] = 135;
	memcpy(frame + at + 48, bench_peer6, 16);
	return at + 64;
}

static void test_answers_to(size_t (*ask)(__u8 *frame), __u32 answer)
{
	struct vnet_datapath datapath;
	struct vnet_result result;
	struct seen seen;
	__u8 frame[128];
	size_t length;

	bench_init(&datapath);
	length = ask(frame);
	for (size_t cut = 0; cut < length; cut++)
		CHECK(leave(&datapath, VNET_FROM_PORT, frame, cut, &seen).reason ==
		      VNET_REASON_MALFORMED);
	memset(frame + length, 0xee, sizeof(frame) - length);
	for (; length <= sizeof(frame); length++) {
		result = leave(&datapath, VNET_FROM_PORT, frame, length, &seen);
		CHECK(result.action == VNET_ANSWERED && result.ifindex == BENCH_TAP);
		CHECK(seen.count == 1 && seen.ifindex == BENCH_TAP && seen.length == answer);
		CHECK(!memcmp(seen.frame, bench_vm, 6) && !memcmp(seen.frame + 6, bench_peer, 6));
	}
	datapath.ports[BENCH_PORT].flags &= ~VNET_PORT_ANSWERED;
	result = leave(&datapath, VNET_FROM_PORT, frame, sizeof(frame), &seen);
	CHECK(result.action == VNET_REDIRECT && result.ifindex == BENCH_UPLINK);
	CHECK(seen.length == sizeof(frame) && !memcmp(seen.frame, frame, sizeof(frame)));
	vnet_datapath_free(&datapath);
}

static void test_answers(void)
{
	test_answers_to(arp_request, 60);
	test_answers_to(solicitation, 86);
}
