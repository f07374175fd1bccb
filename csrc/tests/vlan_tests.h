/* SPDX-License-Identifier: Apache-2.0 */
/* Tags come off and on, in frames cut at every length; included by test_core.c. */

struct seen {
	__u32 count;
	__u32 ifindex;
	__u32 length;
	__u8 frame[128];
};

static void see(void *arg, __u32 ifindex, const __u8 *data, __u32 length)
{
	struct seen *seen = arg;

	seen->count++;
	seen->ifindex = ifindex;
	seen->length = length;
	CHECK(length <= sizeof(seen->frame));
	memcpy(seen->frame, data, length);
}

static struct vnet_result leave(struct vnet_datapath *datapath, enum vnet_hook hook,
				const __u8 *frame, size_t length, struct seen *seen)
{
	__u8 *exact = malloc(length ? length : 1);
	struct vnet_ctx ctx = {
		.datapath = datapath,
		.data = exact,
		.length = length,
		.ifindex = hook == VNET_FROM_UPLINK ? BENCH_UPLINK : BENCH_TAP,
		.now = NOW,
		.leaves = see,
		.leaves_arg = seen,
	};
	struct vnet_result result;

	CHECK(exact);
	memcpy(exact, frame, length);
	memset(seen, 0, sizeof(*seen));
	result = vnet_datapath_process(&ctx, hook);
	/* The frame that was given stays as it was. */
	CHECK(ctx.data == exact && ctx.length == length && !ctx.changed);
	CHECK(!memcmp(exact, frame, length));
	free(exact);
	return result;
}

static size_t with_tag(__u8 *to, const __u8 *frame, size_t length, __u16 tci)
{
	memcpy(to, frame, 12);
	to[12] = 0x81;
	to[13] = 0;
	to[14] = tci >> 8;
	to[15] = tci & 0xff;
	memcpy(to + 16, frame + 12, length - 12);
	return length + 4;
}

static void test_tags(void)
{
	struct vnet_segment segment = {.ifindex = BENCH_UPLINK, .vlan = BENCH_VLAN};
	struct vnet_datapath datapath;
	__u8 frame[128], tagged[128];
	__u32 network = 0;
	struct seen seen;
	size_t length;

	bench_init(&datapath);
	length = ipv4(frame, 0, 17, 9, 80, 0);
	CHECK(with_tag(tagged, frame, length, 0xe000 | BENCH_VLAN) == length + 4);
	for (size_t cut = 16; cut <= length + 4; cut++) {
		CHECK(leave(&datapath, VNET_FROM_UPLINK, tagged, cut, &seen).action == VNET_REDIRECT);
		CHECK(seen.count == 1 && seen.ifindex == BENCH_TAP && seen.length == cut - 4);
		CHECK(!memcmp(seen.frame, frame, cut - 4));
	}
	for (size_t cut = 0; cut < 16; cut++)
		CHECK(leave(&datapath, VNET_FROM_UPLINK, tagged, cut, &seen).action == VNET_PASS);
	vnet_table_remove(&datapath.table[VNET_TABLE_UPLINKS], &network);
	CHECK(!vnet_table_put(&datapath.table[VNET_TABLE_SEGMENTS], &network, &segment));
	length = ipv4(frame, 1, 17, 9, 80, 0);
	with_tag(tagged, frame, length, BENCH_VLAN);
	CHECK(leave(&datapath, VNET_FROM_PORT, frame, length, &seen).action == VNET_REDIRECT);
	CHECK(seen.count == 1 && seen.ifindex == BENCH_UPLINK && seen.length == length + 4);
	CHECK(!memcmp(seen.frame, tagged, length + 4));
	CHECK(datapath.counters[BENCH_PORT].tx_bytes == length);
	vnet_datapath_free(&datapath);
}
