/* SPDX-License-Identifier: Apache-2.0 */
/* Connections in bulk: export, import, expiry, by the kernel's batch operations. */
#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Entries of `batch` from cursor->skip on, as far as there is room; returns the first not taken. */
static __u32 take_flows(const struct batch *batch, const struct vnet_flow_match *match,
			__u32 generation, __u64 now, __u32 from, struct vnet_flow *flows,
			__u32 room, __u32 *count)
{
	__u32 i;

	for (i = from; i < batch->count && *count < room; i++) {
		if (!vnet_flow_matches(match, &batch->key[i], &batch->conn[i], generation, now))
			continue;
		flows[*count].key = batch->key[i];
		flows[(*count)++].conn = batch->conn[i];
	}
	return i;
}

/*
 * A page that ends within a batch: the buckets that were listed whole are passed by, so that what
 * is skipped next time is of one bucket.
 */
static void pass_buckets(int fd, struct vnet_flow_cursor *cursor, struct batch *batch)
{
	long long position = cursor->position;

	if (!cursor->skip || read_batch(fd, &position, cursor->skip, batch) || position < 0)
		return;
	cursor->position = position;
	cursor->skip -= batch->count < cursor->skip ? batch->count : cursor->skip;
}

int vnet_kernel_flows(int fd, const struct vnet_flow_match *match, __u32 generation, __u64 now,
		      struct vnet_flow_cursor *cursor, struct vnet_flow *flows, __u32 room,
		      __u32 *count)
{
	struct batch *batch = malloc(sizeof(*batch));
	int error = batch ? 0 : -ENOMEM;

	*count = 0;
	while (!error && cursor->position >= 0 && *count < room) {
		long long next = cursor->position;
		__u32 taken;

		error = read_batch(fd, &next, VNET_KERNEL_BATCH, batch);
		if (error)
			break;
		taken = take_flows(batch, match, generation, now, cursor->skip, flows, room,
				   count);
		if (taken < batch->count) {
			cursor->skip = taken;
			pass_buckets(fd, cursor, batch);
		} else {
			*cursor = (struct vnet_flow_cursor){.position = next};
		}
	}
	free(batch);
	return error;
}

int vnet_kernel_conn_get(const struct vnet_kernel *kernel, __u32 local_id,
			 const struct vnet_conn_key *key, struct vnet_conn *conn)
{
	return bpf_map_lookup_elem(kernel->conns[local_id], key, conn) ? -errno : 0;
}

int vnet_kernel_fragment_get(const struct vnet_kernel *kernel, __u32 local_id,
			     const struct vnet_fragment_key *key, struct vnet_fragment *fragment)
{
	int outer = bpf_map__fd(kernel->skeleton->maps.vnet_fragments), fd, error;
	__u32 id;

	if (bpf_map_lookup_elem(outer, &local_id, &id))
		return -errno;
	fd = bpf_map_get_fd_by_id(id);
	if (fd < 0)
		return -errno;
	error = bpf_map_lookup_elem(fd, key, fragment) ? -errno : 0;
	close(fd);
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

long long vnet_kernel_expire(int fd, __u64 before, __u64 *left)
{
	struct batch *batch = malloc(sizeof(*batch));
	long long position = 0, removed = 0;
	int error = batch ? 0 : -ENOMEM;

	*left = 0;
	while (!error && position >= 0) {
		error = read_batch(fd, &position, VNET_KERNEL_BATCH, batch);
		*left += error ? 0 : batch->count;
		for (__u32 i = 0; !error && i < batch->count; i++)
			if (batch->conn[i].expires_ns <= before)
				removed += remove_expired(fd, &batch->key[i], before);
	}
	*left -= (__u64)removed;
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
	__u64 left;

	for (int i = 0; i < RETRIES; i++) {
		if (bpf_map_update_elem(import->fd, key, conn, BPF_ANY) == 0) {
			import->result->moved++;
			return 0;
		}
		if (errno == E2BIG && !import->swept) {
			import->swept = 1;
			vnet_kernel_expire(import->fd, import->now, &left);
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
