/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: a sequence of frames through the pipeline. Input: per frame one byte of hook and
 * pause (bits 0-1: hook, 2-4: seconds, 5: new policy generation), one byte of length, the frame.
 * Bits 6 and 7 of the first such byte, and the length, choose what is captured meanwhile.
 */
#include "capture_bench.h"
#include "trace.h"

static int find(const struct vnet_table *table, const void *key, void *value)
{
	const void *found = vnet_table_get(table, key);

	if (found)
		memcpy(value, found, table->value_size);
	return found ? 0 : -1;
}

static int find_conn(void *arg, const struct vnet_conn_key *key, struct vnet_conn *conn)
{
	return find(&((struct vnet_datapath *)arg)->conns[BENCH_PORT], key, conn);
}

static int find_fragment(void *arg, const struct vnet_fragment_key *key,
			 struct vnet_fragment *fragment)
{
	return find(&((struct vnet_datapath *)arg)->fragments[BENCH_PORT], key, fragment);
}

/* A trace says what becomes of the frame in earnest, but for a table that is full. */
static struct vnet_result trace(struct vnet_datapath *datapath, struct vnet_ctx ctx,
				enum vnet_hook hook)
{
	const struct vnet_trace_source source = {datapath, find_conn, find_fragment};
	struct vnet_traced traced;

	CHECK(!vnet_trace_frame(datapath, BENCH_PORT, hook, &source, &ctx, &traced));
	CHECK(traced.asked.rules <= VNET_TRACE_RULES);
	return traced.result;
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size)
{
	struct vnet_datapath datapath;
	__u64 now = 1000000000000ULL;

	bench_init(&datapath);
	if (size >= 2 && data[0] & 0xc0)
		capture_begin(&datapath, data[0] >> 6 | (data[1] & 3) << 2);
	while (size >= 2) {
		size_t length = data[1] < size - 2 ? data[1] : size - 2;
		__u8 *frame = malloc(length ? length : 1);
		struct vnet_ctx ctx = {
			.datapath = &datapath, .data = frame, .length = length,
			.ifindex = (data[0] & 3) == VNET_FROM_UPLINK ? BENCH_UPLINK : BENCH_TAP};
		struct vnet_result result, traced = {0};

		CHECK(frame);
		memcpy(frame, data + 2, length);
		/* Most inputs would stop at the MACs. */
		if (length >= 12 && (data[0] & 3) == VNET_FROM_PORT)
			memcpy(frame + 6, bench_vm, 6);
		else if (length >= 12)
			memcpy(frame, bench_vm, 6);
		now += (data[0] >> 2 & 7) * 20000000000ULL;
		if (data[0] & 0x20)
			datapath.ports[BENCH_PORT].policy++;
		ctx.now = now;
		if ((data[0] & 3) < VNET_FROM_UPLINK)
			traced = trace(&datapath, ctx, data[0] & 3);
		result = vnet_datapath_process(&ctx, data[0] & 3);
		if ((data[0] & 3) < VNET_FROM_UPLINK && result.reason != VNET_REASON_QUOTA)
			CHECK(traced.action == result.action && traced.reason == result.reason &&
			      traced.ifindex == result.ifindex);
		CHECK(result.action <= VNET_HANDED && result.reason < VNET_REASON_COUNT);
		CHECK((result.action == VNET_DROP) == (result.reason != VNET_REASON_NONE));
		bench_walk(&datapath, now);
		free(frame);
		data += 2 + length;
		size -= 2 + length;
	}
	if (datapath.ring)
		capture_check(&datapath);
	vnet_datapath_free(&datapath);
	return 0;
}
