/* SPDX-License-Identifier: Apache-2.0 */
/* Connections in bulk: export, import, expiry, by the kernel's batch operations. */
#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_internal.h"

/* A bucket is read whole or not at all; none comes near this many. */
#define BATCH_MIN 512
#define IMPORT_BATCH 1024
#define RETRIES 1000

struct batch {
	struct vnet_conn_key key[VNET_KERNEL_BATCH];
	struct vnet_conn conn[VNET_KERNEL_BATCH];
	__u32 count;
};

/* Up to `room` entries from `position` on, which becomes -1 at the end. */
static int read_batch(int fd, long long *position, __u32 room, struct batch *batch)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options);
	__u32 from = *position, next = 0;
	int error;

	batch->count = room;
	error = bpf_map_lookup_batch(fd, *position ? &from : NULL, &next, batch->key, batch->conn,
				     &batch->count, &options);
	if (error && errno != ENOENT)
		return -errno;
	*position = error || next == 0 ? -1 : (long long)next;
	return 0;
}

int vnet_kernel_export(int fd, __u64 since, __u64 now, long long *position,
		       struct vnet_conn_record *records, size_t *count)
{
	struct batch *batch = malloc(sizeof(*batch));
	int error = batch ? 0 : -ENOMEM;

	*count = 0;
	while (!error && *position >= 0 && VNET_KERNEL_BATCH - *count >= BATCH_MIN) {
		error = read_batch(fd, position, VNET_KERNEL_BATCH - *count, batch);
		for (__u32 i = 0; !error && i < batch->count; i++)
			if (batch->conn[i].expires_ns > now && batch->conn[i].changed_ns >= since)
				vnet_record_encode(&records[(*count)++], &batch->key[i],
						   &batch->conn[i], now);
	}
	free(batch);
	return error;
}

int vnet_kernel_count(int fd, __u64 now, size_t *count)
{
	struct batch *batch = malloc(sizeof(*batch));
	long long position = 0;
	int error = batch ? 0 : -ENOMEM;

	*count = 0;
	while (!error && position >= 0) {
		error = read_batch(fd, &position, VNET_KERNEL_BATCH, batch);
		for (__u32 i = 0; !error && i < batch->count; i++)
			*count += batch->conn[i].expires_ns > now;
	}
	free(batch);
	return error;
}

/* Whether it is still expired: a frame may have revived it since the batch was read. */
static int remove_expired(int fd, const struct vnet_conn_key *key, __u64 before)
{
	struct vnet_conn conn;

	if (before != ~0ULL &&
	    (bpf_map_lookup_elem(fd, key, &conn) || conn.expires_ns > before))
		return 0;
	return bpf_map_delete_elem(fd, key) == 0;
}

long long vnet_kernel_expire(int fd, __u64 before)
{
	struct batch *batch = malloc(sizeof(*batch));
	long long position = 0, removed = 0;
	int error = batch ? 0 : -ENOMEM;

	while (!error && position >= 0) {
		error = read_batch(fd, &position, VNET_KERNEL_BATCH, batch);
		for (__u32 i = 0; !error && i < batch->count; i++)
			if (batch->conn[i].expires_ns <= before)
				removed += remove_expired(fd, &batch->key[i], before);
	}
	free(batch);
	return error ? error : removed;
}

struct import {
	int fd;
	int swept;
	__u64 now;
	struct vnet_import *result;
	struct batch *batch;
};

/* One entry; a full table is searched once for what has expired. */
static int put_one(struct import *import, const struct vnet_conn_key *key,
		   const struct vnet_conn *conn)
{
	for (int i = 0; i < RETRIES; i++) {
		if (bpf_map_update_elem(import->fd, key, conn, BPF_ANY) == 0) {
			import->result->moved++;
			return 0;
		}
		if (errno == E2BIG && !import->swept) {
			import->swept = 1;
			vnet_kernel_expire(import->fd, import->now);
		} else if (errno == E2BIG) {
			import->result->refused_quota++;
			return 0;
		} else if (errno != ENOMEM) {
			return -errno;
		} else {
			sched_yield(); /* the allocator refills in the background */
		}
	}
	return -ENOMEM;
}

static int put_batch(struct import *import)
{
	struct batch *batch = import->batch;
	__u32 done = batch->count;
	int error = 0;

	LIBBPF_OPTS(bpf_map_batch_opts, options, .elem_flags = BPF_ANY);
	if (done && bpf_map_update_batch(import->fd, batch->key, batch->conn, &done, &options) == 0)
		done = batch->count;
	import->result->moved += done;
	for (__u32 i = done; !error && i < batch->count; i++)
		error = put_one(import, &batch->key[i], &batch->conn[i]);
	batch->count = 0;
	return error;
}

static int put_merged(struct import *import, const struct vnet_port *port,
		      const struct vnet_conn_key *key, struct vnet_conn *conn)
{
	struct vnet_conn have;
	int found = bpf_map_lookup_elem(import->fd, key, &have) == 0;

	if (vnet_import_merge(port, found ? &have : NULL, conn, import->now))
		return put_one(import, key, conn);
	import->result->moved++; /* it is there, and further on */
	return 0;
}

int vnet_kernel_import(struct vnet_kernel *kernel, struct vnet_datapath *mirror, __u32 local_id,
		       const struct vnet_conn_record *records, size_t count, __u64 now,
		       struct vnet_import *result)
{
	struct import import = {.fd = kernel->conns[local_id], .now = now, .result = result};
	const struct vnet_port *port = &mirror->ports[local_id];
	struct batch *batch;
	int error = 0;

	import.batch = batch = malloc(sizeof(*batch));
	if (!batch)
		return -ENOMEM;
	batch->count = 0;
	for (size_t i = 0; !error && i < count; i++) {
		struct vnet_conn_key *key = &batch->key[batch->count];
		struct vnet_conn *conn = &batch->conn[batch->count];

		if (!vnet_import_judge(mirror, local_id, &records[i], now, key, conn, result))
			continue;
		if (__atomic_load_n(&port->role, __ATOMIC_SEQ_CST) == VNET_ACTIVE)
			error = put_merged(&import, port, key, conn);
		else if (++batch->count == IMPORT_BATCH)
			error = put_batch(&import);
	}
	if (!error)
		error = put_batch(&import);
	free(batch);
	return error;
}
