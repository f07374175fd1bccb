/* SPDX-License-Identifier: Apache-2.0 */
/* The C core under ASan and UBSan: frames cut at every length, floods, records, tables. */
#include "bench.h"
#include "capture_bench.h"
#include "meter_tests.h"

#define SECOND 1000000000ULL
#define NOW (1000 * SECOND)

static size_t ethernet(__u8 *frame, const __u8 *target, const __u8 *source, __u16 type)
{
	memcpy(frame, target, 6);
	memcpy(frame + 6, source, 6);
	frame[12] = type >> 8;
	frame[13] = type & 0xff;
	return 14;
}

/* From the VM to 10.0.0.2, or back. */
static size_t ipv4(__u8 *frame, int out, __u8 proto, __u16 sport, __u16 dport, __u8 flags)
{
	size_t at = ethernet(frame, out ? bench_peer : bench_vm, out ? bench_vm : bench_peer, 0x800);
	const __u8 header[20] = {0x45, 0, 0, 40, 0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2};

	memcpy(frame + at, header, 20);
	if (!out) {
		memcpy(frame + at + 12, header + 16, 4);
		memcpy(frame + at + 16, header + 12, 4);
	}
	memset(frame + at + 20, 0, 20);
	frame[at + 20] = sport >> 8;
	frame[at + 21] = sport & 0xff;
	frame[at + 22] = dport >> 8;
	frame[at + 23] = dport & 0xff;
	frame[at + 32] = 0x50;
	frame[at + 33] = flags;
	return at + 40;
}

/* In a buffer of exactly its length: a read behind it is caught. */
static struct vnet_result process(struct vnet_datapath *datapath, enum vnet_hook hook,
				  const __u8 *frame, size_t length, __u64 now)
{
	__u8 *exact = malloc(length ? length : 1);
	struct vnet_ctx ctx = {
		.datapath = datapath,
		.data = exact,
		.length = length,
		.ifindex = hook == VNET_FROM_UPLINK ? BENCH_UPLINK : BENCH_TAP,
		.now = now,
	};
	struct vnet_result result;

	CHECK(exact);
	memcpy(exact, frame, length);
	result = vnet_datapath_process(&ctx, hook);
	free(exact);
	bench_walk(datapath, now);
	return result;
}

static void test_every_length(void)
{
	struct vnet_datapath datapath;
	__u8 frame[128];
	size_t length;

	bench_init(&datapath);
	length = ipv4(frame, 1, 6, 1, 80, 2);
	for (size_t cut = 0; cut < length; cut++)
		CHECK(process(&datapath, VNET_FROM_PORT, frame, cut, NOW).reason ==
		      VNET_REASON_MALFORMED);
	CHECK(process(&datapath, VNET_FROM_PORT, frame, length, NOW).action == VNET_REDIRECT);
	CHECK(datapath.counters[BENCH_PORT].drops[VNET_REASON_MALFORMED] == length);
	CHECK(datapath.counters[BENCH_PORT].tx_frames == 1);
	vnet_datapath_free(&datapath);
}

static void test_flood_leaves_the_established(void)
{
	struct vnet_datapath datapath;
	__u64 now = NOW;
	__u8 frame[128];
	size_t length;

	bench_init(&datapath);
	ipv4(frame, 0, 6, 1000, 80, 2);
	CHECK(!process(&datapath, VNET_TO_PORT, frame, 54, now).reason);
	ipv4(frame, 1, 6, 80, 1000, 0x12);
	CHECK(!process(&datapath, VNET_FROM_PORT, frame, 54, now).reason);
	ipv4(frame, 0, 6, 1000, 80, 0x10);
	CHECK(!process(&datapath, VNET_TO_PORT, frame, 54, now).reason);
	for (__u32 i = 0; i < 5000; i++) {
		length = ipv4(frame, 0, 6, 2000 + i, 80, 2);
		process(&datapath, VNET_TO_PORT, frame, length, now);
		now += SECOND / 1000;
	}
	CHECK(datapath.counters[BENCH_PORT].drops[VNET_REASON_QUOTA] > 0);
	length = ipv4(frame, 0, 6, 1000, 80, 0x10);
	CHECK(!process(&datapath, VNET_TO_PORT, frame, length, now).reason);
	/* Without an agent, and with everything expired, there is room again. */
	now += 500 * SECOND;
	length = ipv4(frame, 1, 17, 1, 2, 0);
	CHECK(process(&datapath, VNET_FROM_PORT, frame, length, now).action == VNET_REDIRECT);
	CHECK(datapath.conns[BENCH_PORT].count == 2);
	vnet_datapath_free(&datapath);
}

static void test_records_round_trip(void)
{
	struct vnet_conn_key key = {.local_port = 80, .remote_port = 1000, .proto = 6, .family = 4};
	struct vnet_conn conn = {
		.expires_ns = NOW + 50 * SECOND,
		.packets = {3, 4},
		.bytes = {5, 6},
		.generation = 7,
		.state = VNET_STATE_ESTABLISHED,
		.flags = VNET_CONN_REPLIED | VNET_CONN_ASSURED,
		.changed_ns = NOW - SECOND,
		.mark = 8,
		.window = {{1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 3, 12}},
	};
	struct vnet_conn_record record, again;
	struct vnet_settings settings;
	struct vnet_conn_key other_key;
	struct vnet_conn other;

	vnet_settings_default(&settings);
	vnet_conn_set_age(&conn, NOW, 9 * SECOND);
	memcpy(key.local, bench_vm4, 16);
	memcpy(key.remote, bench_vm4, 16);
	vnet_record_encode(&record, &key, &conn, NOW);
	CHECK(!vnet_record_check(&record));
	/* On a host that has been up for one second only. */
	vnet_record_decode(&record, &settings, &other_key, &other, SECOND);
	CHECK(!memcmp(&key, &other_key, sizeof(key)));
	CHECK(other.generation == 0 && other.expires_ns == 51 * SECOND && other.mark == 8);
	vnet_record_encode(&again, &other_key, &other, SECOND);
	CHECK(!memcmp(&record, &again, sizeof(record)));
	CHECK(other.window[1].flags == 0x30 && other.window[1].max_ack == 9);
	record.window[0].scale = record.window[0].flags = 0xff;
	vnet_record_decode(&record, &settings, &other_key, &other, SECOND);
	CHECK(other.window[0].scale == VNET_SCALE_MAX && other.window[0].flags == 0x34);
}

static void test_hostile_times_do_not_wrap(void)
{
	struct vnet_conn_record record = {
		.version = htole16(VNET_RECORD_VERSION), .proto = 17, .family = 6,
		.state = VNET_STATE_REPLIED, .remaining_ms = ~0ULL, .age_ms = ~0ULL};
	struct vnet_settings settings;
	struct vnet_conn_key key;
	struct vnet_conn conn;

	vnet_settings_default(&settings);
	CHECK(!vnet_record_check(&record));
	vnet_record_decode(&record, &settings, &key, &conn, NOW);
	CHECK(conn.expires_ns == NOW + vnet_state_life(&settings, VNET_STATE_REPLIED));
}

/* Frames of every length through a ring that they fill, and that goes round. */
static void test_capture_loses_none_uncounted(void)
{
	__u8 frame[128] = {0};

	for (__u8 filter = 0; filter < 16; filter++) {
		struct vnet_datapath datapath;
		__u64 now = NOW;

		bench_init(&datapath);
		capture_begin(&datapath, filter);
		for (__u32 i = 0; i < 3000; i++) {
			ipv4(frame, i & 1, i & 2 ? 6 : 17, 1000, 80, 2);
			if (i % 7 == 0)
				frame[12] = 0x86, frame[13] = 0xdd;
			process(&datapath, i & 1 ? VNET_FROM_PORT : VNET_TO_PORT, frame, i % 100, now);
			now += i % 3 * 1000;
			if (i % 500 == 0) {
				__u64 lost = capture_of(&datapath)->over + capture_of(&datapath)->full;

				capture_of(&datapath)->over = capture_of(&datapath)->full = 0;
				CHECK(capture_of(&datapath)->matched == lost + capture_read(&datapath));
				capture_of(&datapath)->matched = 0;
			}
		}
		CHECK(filter || (capture_of(&datapath)->over && capture_of(&datapath)->full));
		capture_check(&datapath);
		vnet_datapath_free(&datapath);
	}
}

static int odd(const void *key, void *value, void *arg)
{
	(void)value, (void)arg;
	return *(const __u32 *)key & 1;
}

static void test_table(void)
{
	struct vnet_table table;
	__u64 value;

	CHECK(!vnet_table_init(&table, sizeof(__u32), sizeof(__u64), 1000));
	for (__u32 key = 0; key < 1000; key++) {
		value = key * 3;
		CHECK(!vnet_table_put(&table, &key, &value));
	}
	for (__u32 key = 0; key < 1001; key++) {
		__u64 *found = vnet_table_get(&table, &key);

		CHECK(key == 1000 ? !found : found && *found == key * 3);
		CHECK(vnet_table_put(&table, &key, &value) == (key == 1000 ? -1 : 0));
	}
	CHECK(vnet_table_visit(&table, odd, NULL) == 500 && table.count == 500);
	for (__u32 key = 0; key < 1000; key++)
		CHECK(vnet_table_remove(&table, &key) == !(key & 1));
	CHECK(table.count == 0);
	vnet_table_free(&table);
}

#include "vlan_tests.h"
#include "neighbour_tests.h"

int main(void)
{
	test_every_length();
	test_flood_leaves_the_established();
	test_records_round_trip();
	test_hostile_times_do_not_wrap();
	test_table();
	test_capture_loses_none_uncounted();
	test_tags();
	test_answers();
	test_meter_is_exact();
	test_meter_burst_then_rate();
	test_meter_does_not_overflow();
	test_meter_guards_a_port();
	test_meter_counts_segments();
	puts("core: ok");
	return 0;
}
