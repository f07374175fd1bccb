/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the meters: exact counts over virtual time, at the ends of what may be set. */
#ifndef VNET_TESTS_METER_H
#define VNET_TESTS_METER_H

#include "bench.h"
#include "meter.h"

#define METER_NOW (1000ULL * 1000000000ULL)

/* `rate` units a second, `burst` units. */
static inline struct vnet_rate meter_rate(__u64 rate, __u64 burst)
{
	struct vnet_rate made = {0};

	while (made.shift < 42 &&
	       (unsigned __int128)VNET_METER_TICKS * 1000000000ULL << (made.shift + 1) <
		       (unsigned __int128)rate << 43)
		made.shift++;
	made.mult = ((unsigned __int128)VNET_METER_TICKS * 1000000000ULL << made.shift) / rate;
	made.burst = (unsigned __int128)burst * VNET_METER_TICKS * 1000000000ULL / rate;
	return made;
}

#define METER_FRAMES 200000

/* Frames of `size` at twice the rate: what passes is the rate and the burst, within a frame. */
static inline void meter_check(__u64 per_second, __u32 size)
{
	struct vnet_rate rate = meter_rate(per_second, 10ULL * size);
	__u64 passed = 0, wanted, ns = 0;

	for (__u64 i = 0; i < METER_FRAMES; i++) {
		ns = (unsigned __int128)i * size * 500000000ULL / per_second;
		passed += vnet_rate_take(&rate, (METER_NOW + ns) * VNET_METER_TICKS, size) ? size : 0;
	}
	wanted = (unsigned __int128)ns * per_second / 1000000000ULL + 10ULL * size;
	/* Costs are rounded down to a tick: 1/64 ns of 5 at the worst. */
	CHECK(passed + 2 * size >= wanted && passed <= wanted + wanted / 200 + 2 * size);
}

/* From 1 Mbit/s to 100 Gbit/s, small frames and GSO. */
static inline void test_meter_is_exact(void)
{
	static const __u64 rates[] = {125000, 12500000, 1250000000, 12500000000ULL};
	static const __u32 sizes[] = {64, 1514, 65535};

	for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++)
		for (size_t j = 0; j < sizeof(sizes) / sizeof(*sizes); j++)
			meter_check(rates[i], sizes[j]);
}

static inline void test_meter_burst_then_rate(void)
{
	struct vnet_rate rate = meter_rate(1000, 10);
	__u64 now = METER_NOW * VNET_METER_TICKS, second = 1000000000ULL * VNET_METER_TICKS;
	int passed = 0;

	/* While any of the burst is left, so one more than the burst. */
	for (int i = 0; i < 100; i++)
		passed += vnet_rate_take(&rate, now, 1);
	CHECK(passed == 11 && !vnet_rate_has_room(&rate, now));
	CHECK(vnet_rate_take(&rate, now + second / 1000 + 1, 1));
	CHECK(!vnet_rate_take(&rate, now + second / 1000 + 1, 1));
	/* An hour without a frame saves no more than the burst. */
	now += 3600 * second;
	for (passed = 0; vnet_rate_take(&rate, now, 1);)
		passed++;
	CHECK(passed == 11);
}

/* The largest unit at the lowest rate, after years of uptime. */
static inline void test_meter_does_not_overflow(void)
{
	struct vnet_rate rate = meter_rate(1, 1);
	__u64 now = 5ULL * 365 * 86400 * 1000000000ULL * VNET_METER_TICKS;

	CHECK(rate.mult < 1ULL << 43);
	CHECK(vnet_rate_take(&rate, now, 1000000) && rate.due > now);
	CHECK(!vnet_rate_take(&rate, now, 1));
}

/* In the pipeline: counted as `rate`, and what the frames' limit refuses costs no bytes. */
static inline void test_meter_guards_a_port(void)
{
	static const __u8 arp[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 8, 6};
	struct vnet_meters meters = {0}, *live;
	struct vnet_datapath datapath;
	__u32 id = BENCH_PORT;
	__u8 frame[42];
	__u64 due;

	bench_init(&datapath);
	memcpy(frame, arp, sizeof(frame));
	memcpy(frame, bench_vm, 6);
	memcpy(frame + 6, bench_peer, 6);
	meters.meter[VNET_INGRESS].bytes = meter_rate(1000000, 1000000);
	meters.meter[VNET_INGRESS].frames = meter_rate(1000, 4);
	CHECK(!vnet_table_put(&datapath.table[VNET_TABLE_METERS], &id, &meters));
	live = vnet_table_get(&datapath.table[VNET_TABLE_METERS], &id);
	for (int metered = 0; metered < 2; metered++) {
		if (metered)
			datapath.ports[id].flags |= VNET_PORT_METERED;
		for (int i = 0; i < 10; i++) {
			struct vnet_ctx ctx = {
				.datapath = &datapath,
				.data = frame,
				.length = sizeof(frame),
				.ifindex = BENCH_TAP,
				.now = METER_NOW,
			};
			__u32 reason = vnet_datapath_process(&ctx, VNET_TO_PORT).reason;

			CHECK(reason == (metered && i >= 5 ? VNET_REASON_RATE : VNET_REASON_NONE));
		}
	}
	CHECK(datapath.counters[id].drops[VNET_REASON_RATE] == 5);
	due = live->meter[VNET_INGRESS].bytes.due / VNET_METER_TICKS;
	CHECK(due >= METER_NOW + 5 * 42 * 1000 - 5 && due <= METER_NOW + 5 * 42 * 1000);
	CHECK(!live->meter[VNET_EGRESS].bytes.due);
	vnet_datapath_free(&datapath);
}

/* A GSO frame of three segments: two more headers go over the wire. */
static inline void test_meter_counts_segments(void)
{
	__u8 frame[54 + 2500] = {0};
	struct vnet_ctx ctx = {.data = frame, .length = sizeof(frame), .gso_size = 1000};
	__u32 frames, bytes;

	frame[14] = 0x45;
	frame[14 + 9] = VNET_TCP;
	frame[34 + 12] = 0x50;
	vnet_wire_size(&ctx, &frames, &bytes);
	CHECK(frames == 3 && bytes == 2500 + 3 * 54);
	ctx.gso_size = 0;
	vnet_wire_size(&ctx, &frames, &bytes);
	CHECK(frames == 1 && bytes == sizeof(frame));
}

#endif
