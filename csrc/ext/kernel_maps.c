/* SPDX-License-Identifier: Apache-2.0 */
/* Work on the maps: tables, counters, connection tables. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel_internal.h"

static int table_fd(const struct vnet_kernel *kernel, unsigned int table)
{
	const struct bpf_map *maps[VNET_TABLE_COUNT] = {
#define VNET_MAP(id, name, key, value) [VNET_TABLE_##id] = kernel->skeleton->maps.vnet_##name,
		VNET_TABLES(VNET_MAP)
#undef VNET_MAP
	};

	return bpf_map__fd(maps[table]);
}

static const struct {
	__u32 key, value;
} shapes[VNET_TABLE_COUNT] = {
#define VNET_SHAPE(id, name, key, value) [VNET_TABLE_##id] = {key, value},
	VNET_TABLES(VNET_SHAPE)
#undef VNET_SHAPE
};

int vnet_kernel_table_put(struct vnet_kernel *kernel, unsigned int table, const void *key,
			  const void *value)
{
	return bpf_map_update_elem(table_fd(kernel, table), key, value, BPF_ANY) ? -errno : 0;
}

void vnet_kernel_table_remove(struct vnet_kernel *kernel, unsigned int table, const void *keys,
			      __u32 count)
{
	int fd = table_fd(kernel, table);

	for (__u32 i = 0; i < count; i++)
		bpf_map_delete_elem(fd, (const char *)keys + (size_t)i * shapes[table].key);
}

static int mirror_table(struct vnet_kernel *kernel, struct vnet_table *mirror, unsigned int table)
{
	char *key = malloc(shapes[table].key), *value = malloc(shapes[table].value);
	int fd = table_fd(kernel, table), error = -ENOMEM;
	void *previous = NULL;

	if (!key || !value)
		goto out;
	error = 0;
	while (!error && bpf_map_get_next_key(fd, previous, key) == 0) {
		previous = key;
		if (bpf_map_lookup_elem(fd, key, value) == 0)
			error = vnet_table_put(mirror, key, value) ? -ENOMEM : 0;
	}
out:
	free(key);
	free(value);
	return error;
}

int vnet_kernel_mirror(struct vnet_kernel *kernel, struct vnet_datapath *mirror)
{
	int error = vnet_kernel_settings_get(kernel, &mirror->settings);

	for (unsigned int table = 0; !error && table < VNET_TABLE_COUNT; table++)
		error = mirror_table(kernel, &mirror->table[table], table);
	return error;
}

int vnet_kernel_settings_put(struct vnet_kernel *kernel, const struct vnet_settings *settings)
{
	__u32 only = 0;

	return bpf_map_update_elem(bpf_map__fd(kernel->skeleton->maps.vnet_setup), &only, settings,
				   BPF_ANY)
		       ? -errno
		       : 0;
}

int vnet_kernel_settings_get(struct vnet_kernel *kernel, struct vnet_settings *settings)
{
	__u32 only = 0;

	if (bpf_map_lookup_elem(bpf_map__fd(kernel->skeleton->maps.vnet_setup), &only, settings))
		return -errno;
	if (settings->life_ns[VNET_STATE_ESTABLISHED])
		return 0;
	vnet_settings_default(settings);
	return vnet_kernel_settings_put(kernel, settings);
}

static int each_cpu(const struct vnet_kernel *kernel, __u32 local_id, struct vnet_counters **values)
{
	int cpus = libbpf_num_possible_cpus();

	if (cpus < 0)
		return cpus;
	*values = calloc(cpus, sizeof(**values));
	if (!*values)
		return -ENOMEM;
	if (local_id &&
	    bpf_map_lookup_elem(bpf_map__fd(kernel->skeleton->maps.vnet_counts), &local_id,
				*values)) {
		free(*values);
		return -errno;
	}
	return cpus;
}

int vnet_kernel_counters(struct vnet_kernel *kernel, __u32 local_id, struct vnet_counters *sum)
{
	struct vnet_counters *values;
	int cpus = each_cpu(kernel, local_id, &values);

	if (cpus < 0)
		return cpus;
	memset(sum, 0, sizeof(*sum));
	for (int cpu = 0; cpu < cpus; cpu++) {
		sum->rx_frames += values[cpu].rx_frames;
		sum->rx_bytes += values[cpu].rx_bytes;
		sum->tx_frames += values[cpu].tx_frames;
		sum->tx_bytes += values[cpu].tx_bytes;
		for (int i = 0; i < VNET_REASONS_MAX; i++)
			sum->drops[i] += values[cpu].drops[i];
	}
	free(values);
	return 0;
}

static int zero_counters(struct vnet_kernel *kernel, __u32 local_id)
{
	int fd = bpf_map__fd(kernel->skeleton->maps.vnet_counts), error;
	struct vnet_counters *values;
	int cpus = each_cpu(kernel, 0, &values);

	if (cpus < 0)
		return cpus;
	error = bpf_map_update_elem(fd, &local_id, values, BPF_ANY) ? -errno : 0;
	free(values);
	return error;
}

int vnet_kernel_has_conns(const struct vnet_kernel *kernel, __u32 local_id)
{
	return local_id < kernel->max_ports && kernel->conns[local_id] >= 0;
}

static int put_inner(const struct bpf_map *outer, __u32 local_id, int fd)
{
	return bpf_map_update_elem(bpf_map__fd(outer), &local_id, &fd, BPF_ANY) ? -errno : 0;
}

static int create_fragments(struct vnet_kernel *kernel, __u32 local_id)
{
	int error, fd;

	fd = bpf_map_create(BPF_MAP_TYPE_LRU_HASH, "vnet_fragment",
			    sizeof(struct vnet_fragment_key), sizeof(struct vnet_fragment),
			    VNET_FRAGMENTS, NULL);
	if (fd < 0)
		return -errno;
	error = put_inner(kernel->skeleton->maps.vnet_fragments, local_id, fd);
	close(fd);
	return error;
}

/* Pinned before the array has it: an agent that adopts the entry finds the pin. */
int vnet_kernel_create_table(struct vnet_kernel *kernel, __u32 local_id, __u32 quota)
{
	LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
	int error, fd;

	fd = bpf_map_create(BPF_MAP_TYPE_HASH, "vnet_conn", sizeof(struct vnet_conn_key),
			    sizeof(struct vnet_conn), quota, &options);
	if (fd < 0)
		return -errno;
	error = vnet_pins_add_conns(kernel, local_id, fd);
	if (!error)
		error = put_inner(kernel->skeleton->maps.vnet_conns, local_id, fd);
	if (!error)
		return fd;
	close(fd);
	return error;
}

int vnet_kernel_conns_create(struct vnet_kernel *kernel, __u32 local_id, __u32 quota)
{
	int conns, error = zero_counters(kernel, local_id);

	if (!error)
		error = create_fragments(kernel, local_id);
	if (error)
		return error;
	conns = vnet_kernel_create_table(kernel, local_id, quota);
	if (conns < 0)
		return conns;
	if (kernel->conns[local_id] >= 0)
		close(kernel->conns[local_id]);
	kernel->conns[local_id] = conns;
	return 0;
}

void vnet_kernel_conns_delete(struct vnet_kernel *kernel, __u32 local_id)
{
	bpf_map_delete_elem(bpf_map__fd(kernel->skeleton->maps.vnet_conns), &local_id);
	bpf_map_delete_elem(bpf_map__fd(kernel->skeleton->maps.vnet_fragments), &local_id);
	vnet_pins_remove_conns(kernel, local_id);
	close(kernel->conns[local_id]);
	kernel->conns[local_id] = -1;
}

int vnet_kernel_conns_dup(const struct vnet_kernel *kernel, __u32 local_id)
{
	int fd = dup(kernel->conns[local_id]);

	return fd < 0 ? -errno : fd;
}

void vnet_kernel_conns_release(int fd)
{
	close(fd);
}
