/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: bytes from another host as connection records, imported twice and exported again. */
#include "bench.h"

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size);

static int export_entry(const void *key, void *value, void *arg)
{
	struct vnet_conn_record record;

	vnet_record_encode(&record, key, value, *(__u64 *)arg);
	CHECK(!vnet_record_check(&record));
	return 0;
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size)
{
	const size_t count = size / sizeof(struct vnet_conn_record);
	struct vnet_conn_record *records = malloc(count * sizeof(*records) + 1);
	struct vnet_import import = {0};
	struct vnet_datapath datapath;
	__u64 now = 1000000000ULL;
	size_t good = 0;

	CHECK(records);
	memcpy(records, data, count * sizeof(*records));
	for (size_t i = 0; i < count; i++)
		if (!vnet_record_check(&records[i]))
			records[good++] = records[i];
	bench_init(&datapath);
	datapath.ports[BENCH_PORT].role = VNET_STANDBY;
	vnet_datapath_import(&datapath, BENCH_PORT, records, good, now, &import);
	CHECK(import.moved + import.refused_policy + import.refused_quota +
		      import.refused_expired + import.refused_address == good);
	bench_walk(&datapath, now);
	datapath.ports[BENCH_PORT].role = VNET_ACTIVE;
	vnet_datapath_import(&datapath, BENCH_PORT, records, good, now, &import);
	bench_walk(&datapath, now);
	vnet_table_visit(&datapath.conns[BENCH_PORT], export_entry, &now);
	vnet_datapath_free(&datapath);
	free(records);
	return 0;
}
