/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the version before: what it has pinned lies in a directory beside this one's. Maps whose
 * layout stays are the same maps for both; connections are copied into new tables before the first
 * interface gets this version's programs, and once more, as far as they have changed meanwhile, when
 * the last one has them. Only then the old pins go: whoever dies on the way leaves all that the next
 * one needs to begin again.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernel_internal.h"

#define FROM_VERSION 1

/* A frame's time is written a little later than it was read. */
#define STAMP_NS 50000000ULL

#define BATCH 2048
#define RETRIES 1000

struct batch {
	struct vnet_conn_key key[BATCH];
	struct vnet_conn_v1 old[BATCH];
	struct vnet_conn conn[BATCH];
	__u32 count;
};

/* Made anew, since their layout is another one. */
static int is_changed(const char *name)
{
	return !strcmp(name, "vnet_conns") || !strcmp(name, "vnet_new_conns");
}

static __u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (__u64)now.tv_sec * 1000000000ULL + (__u64)now.tv_nsec;
}

static void join(char path[VNET_PIN_PATH], const char *directory, const char *name)
{
	/* Too long: there is nothing of that name. */
	if (snprintf(path, VNET_PIN_PATH, "%s/%s", directory, name) >= VNET_PIN_PATH)
		path[0] = '\0';
}

/* For each entry of a directory, which may not be there; the first error ends it. */
static int visit(const char *path, int (*step)(const char *path, const char *name, void *arg),
		 void *arg)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	int error = 0;

	if (!directory)
		return errno == ENOENT ? 0 : -errno;
	while (!error && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			error = step(path, entry->d_name, arg);
	closedir(directory);
	return error;
}

static int remove_pin(const char *directory, const char *name, void *arg)
{
	char path[VNET_PIN_PATH];

	(void)arg;
	join(path, directory, name);
	return unlink(path) && errno != EISDIR && errno != EPERM && errno != ENOENT ? -errno : 0;
}

/* A version's pins, with what lies below them. */
static int remove_version(const char *directory)
{
	static const char *const rooms[] = {"progs", "conns", "short", "."};
	char path[VNET_PIN_PATH];
	int error = 0;

	for (size_t i = 0; !error && i < sizeof(rooms) / sizeof(*rooms); i++) {
		join(path, directory, rooms[i]);
		error = visit(path, remove_pin, NULL);
		if (strcmp(rooms[i], "."))
			rmdir(path);
	}
	rmdir(directory);
	return error;
}

/* The kernel's number of a pinned map, 0 when there is none. */
static __u32 map_id(const char *directory, const char *name)
{
	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);
	char path[VNET_PIN_PATH];
	int fd;

	join(path, directory, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return 0;
	if (bpf_obj_get_info_by_fd(fd, &info, &size))
		info.id = 0;
	close(fd);
	return info.id;
}

/* The same object in the directory `to` too. */
static int share_pin(const char *directory, const char *name, void *to)
{
	char path[VNET_PIN_PATH];
	int fd, error = 0;

	if (is_changed(name))
		return 0;
	join(path, directory, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return 0; /* a directory, or what its maker was about to rename */
	join(path, to, name);
	if (bpf_obj_pin(fd, path) && errno != EEXIST)
		error = -errno;
	close(fd);
	return error;
}

/* Maps, and the links of XDP. */
static int share_pins(const struct vnet_kernel *kernel)
{
	char from[VNET_PIN_PATH], to[VNET_PIN_PATH];
	int error = visit(kernel->upgraded_from, share_pin, (void *)kernel->directory);

	if (error)
		return error;
	join(from, kernel->upgraded_from, "short");
	join(to, kernel->directory, "short");
	if (access(from, F_OK))
		return 0;
	if (mkdir(to, 0700) && errno != EEXIST)
		return -errno;
	return visit(from, share_pin, to);
}

int vnet_upgrade_begin(struct vnet_kernel *kernel, const char *pin_dir)
{
	char from[PATH_MAX];
	__u32 old, own;
	int error;

	if (VNET_ABI_VERSION == FROM_VERSION)
		return 0;
	if (snprintf(from, sizeof(from), "%s/v%d", pin_dir, FROM_VERSION) >= (int)sizeof(from))
		return -ENAMETOOLONG;
	old = map_id(from, "vnet_ports");
	if (!old)
		return 0;
	own = map_id(kernel->directory, "vnet_ports");
	if (own && own != old) {
		/* An older agent has run since: what it left is what there is. */
		error = remove_version(kernel->directory);
		if (error)
			return error;
		if (mkdir(kernel->directory, 0700) && errno != EEXIST)
			return -errno;
	}
	kernel->upgraded_from = strdup(from);
	if (!kernel->upgraded_from)
		return -ENOMEM;
	return share_pins(kernel);
}

/* -- connections */

static void convert(const struct vnet_conn_v1 *old, struct vnet_conn *conn, __u64 now)
{
	memset(conn, 0, sizeof(*conn));
	conn->expires_ns = old->expires_ns;
	conn->generation = old->generation;
	conn->state = old->state;
	conn->flags = old->flags;
	conn->closing = old->closing;
	for (int i = 0; i < 2; i++) {
		conn->packets[i] = old->packets[i];
		conn->bytes[i] = old->bytes[i];
		conn->window[i] = old->window[i];
		/* Segments pass while this is under way: the numbers are of an earlier time. */
		conn->window[i].flags = vnet_window_flags_old(old->window[i].flags);
	}
	conn->changed_ns = old->changed_ns;
	vnet_conn_set_age(conn, now, now - old->created_ns);
	conn->mark = old->mark;
}

static int read_batch(int fd, long long *position, struct batch *batch)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options);
	__u32 from = (__u32)*position, next = 0;
	int error;

	batch->count = BATCH;
	error = bpf_map_lookup_batch(fd, *position ? &from : NULL, &next, batch->key, batch->old,
				     &batch->count, &options);
	if (error && errno != ENOENT)
		return -errno;
	*position = error || next == 0 ? -1 : (long long)next;
	return 0;
}

static int put(int fd, const struct vnet_conn_key *key, const struct vnet_conn *conn, __u64 flags)
{
	for (int i = 0; i < RETRIES; i++) {
		if (!bpf_map_update_elem(fd, key, conn, flags) || errno == EEXIST)
			return 0;
		if (errno != ENOMEM)
			return -errno;
		sched_yield(); /* the allocator refills in the background */
	}
	return -ENOMEM;
}

/* Into a table that is new: the kernel's batches know no BPF_NOEXIST. */
static __u32 put_batch(int fd, const struct batch *batch, __u32 count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options, .elem_flags = BPF_ANY);
	__u32 done = count;

	if (!count || !bpf_map_update_batch(fd, batch->key, batch->conn, &done, &options))
		return count;
	return errno == EINVAL ? 0 : done;
}

/* What an earlier try has brought already stays: this version's programs may have had it since. */
static int put_all(int fd, struct batch *batch, int is_new, __u64 now)
{
	__u32 kept = 0;
	int error = 0;

	for (__u32 i = 0; i < batch->count; i++) {
		if (batch->old[i].expires_ns <= now)
			continue;
		convert(&batch->old[i], &batch->conn[kept], now);
		batch->key[kept++] = batch->key[i];
	}
	for (__u32 i = is_new ? put_batch(fd, batch, kept) : 0; !error && i < kept; i++)
		error = put(fd, &batch->key[i], &batch->conn[i], BPF_NOEXIST);
	return error;
}

/*
 * What began or changed after the copy. Its verdict is asked for again, for what this version's
 * programs have removed meanwhile must not come back with one.
 */
static int put_changes(int fd, struct batch *batch, __u64 since, __u64 now)
{
	struct vnet_conn have;
	int error = 0;

	for (__u32 i = 0; !error && i < batch->count; i++) {
		if (batch->old[i].changed_ns < since || batch->old[i].expires_ns <= now)
			continue;
		if (!bpf_map_lookup_elem(fd, &batch->key[i], &have) &&
		    have.changed_ns >= batch->old[i].changed_ns)
			continue;
		convert(&batch->old[i], &batch->conn[i], now);
		batch->conn[i].generation = 0;
		error = put(fd, &batch->key[i], &batch->conn[i], BPF_ANY);
	}
	return error;
}

/* `since` 0: all of it. What does not fit any more is refused as new connections are. */
static int copy_table(int from, int to, int is_new, __u64 since)
{
	struct batch *batch = malloc(sizeof(*batch));
	__u64 now = now_ns();
	long long position = 0;
	int error = batch ? 0 : -ENOMEM;

	while (!error && position >= 0) {
		error = read_batch(from, &position, batch);
		if (!error)
			error = since ? put_changes(to, batch, since, now)
				      : put_all(to, batch, is_new, now);
	}
	free(batch);
	return error == -E2BIG ? 0 : error;
}

static int open_old(const struct vnet_kernel *kernel, __u32 local_id)
{
	char path[VNET_PIN_PATH];
	int fd;

	snprintf(path, sizeof(path), "%s/conns/%u", kernel->upgraded_from, local_id);
	fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

/* A table of a port that the version before has made, whole or not. */
static int copy_port(struct vnet_kernel *kernel, __u32 local_id, __u32 quota)
{
	int outer = bpf_map__fd(kernel->skeleton->maps.vnet_conns);
	int old = open_old(kernel, local_id), is_new, own, error;
	__u32 id;

	if (old < 0)
		return old == -ENOENT ? 0 : old; /* its maker died on the way */
	is_new = bpf_map_lookup_elem(outer, &local_id, &id) != 0;
	own = is_new ? vnet_kernel_create_table(kernel, local_id, quota)
		     : vnet_pins_get_conns(kernel, local_id);
	error = own < 0 ? own : copy_table(old, own, is_new, 0);
	if (own >= 0)
		close(own);
	close(old);
	return error;
}

int vnet_upgrade_conns(struct vnet_kernel *kernel)
{
	int error = 0;

	if (!kernel->upgraded_from)
		return 0;
	kernel->upgrade_began = now_ns() - STAMP_NS;
	for (__u32 i = 1; !error && i < kernel->max_ports; i++)
		if (kernel->ports[i].local_id)
			error = copy_port(kernel, i, kernel->ports[i].quota);
	return error;
}

int vnet_kernel_finish_upgrade(struct vnet_kernel *kernel)
{
	int error = 0, old;

	if (!kernel->upgraded_from)
		return 0;
	for (__u32 i = 1; !error && i < kernel->max_ports; i++) {
		if (!vnet_kernel_has_conns(kernel, i))
			continue;
		old = open_old(kernel, i);
		if (old < 0)
			continue;
		error = copy_table(old, kernel->conns[i], 0, kernel->upgrade_began);
		close(old);
	}
	if (!error)
		error = remove_version(kernel->upgraded_from);
	if (error)
		return error;
	vnet_upgrade_close(kernel);
	return 1;
}

void vnet_upgrade_close(struct vnet_kernel *kernel)
{
	free(kernel->upgraded_from);
	kernel->upgraded_from = NULL;
}
