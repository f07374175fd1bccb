/* SPDX-License-Identifier: Apache-2.0 */
/* A capture of the bench's port, and a reader that checks each record. */
#ifndef VNET_CAPTURE_BENCH_H
#define VNET_CAPTURE_BENCH_H

#include "bench.h"

#define CAPTURE_RING 4096

/* Any frame with `filter` 0; else those of a protocol and a peer, as its bits choose. */
static inline void capture_begin(struct vnet_datapath *datapath, __u8 filter)
{
	struct vnet_capture capture = {.interval_ns = 1000, .burst_ns = 1, .snap = 64, .directions = 3};
	__u32 id = BENCH_PORT;

	if (filter & 1)
		capture.proto = filter & 2 ? 17 : 6;
	if (filter & 4) {
		capture.family = filter & 8 ? 4 : 6;
		memset(capture.mask, 0xff, 13);
		memcpy(capture.remote, filter & 8 ? bench_vm4 : bench_vm6, 13);
	}
	vnet_ring_free(datapath->ring);
	datapath->ring = vnet_ring_make(CAPTURE_RING, sizeof(struct vnet_capture_record),
					offsetof(struct vnet_capture_record, captured));
	CHECK(datapath->ring);
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_CAPTURES], &id, &capture));
	datapath->ports[BENCH_PORT].flags |= VNET_PORT_CAPTURED;
}

/* How many records there are; the ring is empty then. */
static inline __u32 capture_read(struct vnet_datapath *datapath)
{
	struct vnet_capture_record record;
	__u8 data[CAPTURE_RING];
	__u32 count = 0;
	size_t length;

	for (length = vnet_ring_read(datapath->ring, data, sizeof(data)); length;
	     length = vnet_ring_read(datapath->ring, data, sizeof(data)))
		for (size_t at = 0; at < length; at += sizeof(record) + record.captured, count++) {
			CHECK(length - at >= sizeof(record));
			memcpy(&record, data + at, sizeof(record));
			CHECK(record.local_id == BENCH_PORT);
			CHECK(record.captured && record.captured <= 64);
			CHECK(record.captured <= record.length);
			CHECK(record.captured <= length - at - sizeof(record));
			CHECK(record.direction <= VNET_EGRESS && record.reason < VNET_REASON_COUNT);
			CHECK((record.action == VNET_DROP) == (record.reason != VNET_REASON_NONE));
		}
	return count;
}

static inline struct vnet_capture *capture_of(struct vnet_datapath *datapath)
{
	__u32 id = BENCH_PORT;

	return vnet_table_get(&datapath->table[VNET_TABLE_CAPTURES], &id);
}

/* Every frame that was asked for is in the ring, or is counted as lost. */
static inline void capture_check(struct vnet_datapath *datapath)
{
	struct vnet_capture *capture = capture_of(datapath);

	CHECK(capture->matched == capture_read(datapath) + capture->over + capture->full);
}

#endif
