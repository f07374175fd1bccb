/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the datapath in the kernel: create, adopt, attach, let go. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel_internal.h"

#define LOG_SIZE (1 << 20)

/* First in the list, and by a handle that others, who mostly take 1, do not have: "vnet". */
#define TC_HANDLE 0x766e6574
#define TC_PRIORITY 1

size_t vnet_kernel_object_size(void)
{
	size_t size = 0;

	vnet_bpf__elf_bytes(&size);
	return size;
}

/* As many as the datapath that is pinned here was made for. */
static __u32 adopted_max_ports(const struct vnet_kernel *kernel, __u32 wanted)
{
	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);
	char path[VNET_PIN_PATH];
	int fd;

	snprintf(path, sizeof(path), "%s/vnet_ports", kernel->directory);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return wanted;
	if (!bpf_obj_get_info_by_fd(fd, &info, &size) && info.max_entries)
		wanted = info.max_entries;
	close(fd);
	return wanted;
}

static int place_maps(struct vnet_kernel *kernel)
{
	const struct {
		struct bpf_map *map;
		__u32 entries;
	} sized[] = {
		{kernel->skeleton->maps.vnet_ports, kernel->max_ports},
		{kernel->skeleton->maps.vnet_counts, kernel->max_ports},
		{kernel->skeleton->maps.vnet_conns, kernel->max_ports},
		{kernel->skeleton->maps.vnet_fragments, kernel->max_ports},
		{kernel->skeleton->maps.vnet_fdb, kernel->max_ports * 2},
		{kernel->skeleton->maps.vnet_members, kernel->max_ports * 2},
		{kernel->skeleton->maps.vnet_captures, kernel->max_ports},
		{kernel->skeleton->maps.vnet_meters, kernel->max_ports},
	};
	char path[VNET_PIN_PATH];
	struct bpf_map *map;
	int error;

	for (size_t i = 0; i < sizeof(sized) / sizeof(*sized); i++) {
		error = bpf_map__set_max_entries(sized[i].map, sized[i].entries);
		if (error)
			return error;
	}
	bpf_object__for_each_map(map, kernel->skeleton->obj)
	{
		if (bpf_map__is_internal(map))
			continue;
		snprintf(path, sizeof(path), "%s/%s", kernel->directory, bpf_map__name(map));
		error = bpf_map__set_pin_path(map, path);
		if (error)
			return error;
	}
	return 0;
}

static int load(struct vnet_kernel *kernel, char *log)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .kernel_log_buf = log,
		    .kernel_log_size = LOG_SIZE);
	int error;

	kernel->skeleton = vnet_bpf__open_opts(&options);
	if (!kernel->skeleton)
		return -errno;
	error = place_maps(kernel);
	return error ? error : vnet_bpf__load(kernel->skeleton);
}

int vnet_kernel_share_maps(struct vnet_kernel *kernel, struct bpf_object *object)
{
	struct bpf_map *mine, *shared;
	int error = 0;

	bpf_object__for_each_map(mine, object)
	{
		if (error || bpf_map__is_internal(mine))
			continue;
		shared = bpf_object__find_map_by_name(kernel->skeleton->obj, bpf_map__name(mine));
		if (shared)
			error = bpf_map__reuse_fd(mine, bpf_map__fd(shared));
	}
	return error;
}

static int map_ports(struct vnet_kernel *kernel)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t size = (size_t)kernel->max_ports * sizeof(struct vnet_port);
	void *ports;

	size = (size + page - 1) / page * page;
	ports = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
		     bpf_map__fd(kernel->skeleton->maps.vnet_ports), 0);
	if (ports == MAP_FAILED)
		return -errno;
	kernel->ports = ports;
	kernel->ports_size = size;
	return 0;
}

/* The connection tables of the ports that are there. */
static int adopt_conns(struct vnet_kernel *kernel)
{
	int outer = bpf_map__fd(kernel->skeleton->maps.vnet_conns);
	int fd;
	__u32 id;

	kernel->conns = malloc(kernel->max_ports * sizeof(*kernel->conns));
	if (!kernel->conns)
		return -ENOMEM;
	for (__u32 i = 0; i < kernel->max_ports; i++)
		kernel->conns[i] = -1;
	for (__u32 i = 1; i < kernel->max_ports; i++) {
		if (!kernel->ports[i].local_id)
			continue;
		if (bpf_map_lookup_elem(outer, &i, &id)) {
			/* Its maker died on the way: nothing was ever attached to it. */
			memset(&kernel->ports[i], 0, sizeof(kernel->ports[i]));
			continue;
		}
		fd = vnet_pins_get_conns(kernel, i);
		if (fd < 0)
			return fd;
		kernel->conns[i] = fd;
	}
	return 0;
}

static void explain(char *text, size_t size, const char *pin_dir, int error, const char *log)
{
	const char *tail = log;
	size_t length = log ? strlen(log) : 0;

	if (error == -ENOTSUP) {
		snprintf(text, size,
			 "%s is not in a bpf file system; mount one: mount -t bpf bpf /sys/fs/bpf",
			 pin_dir);
		return;
	}
	if (error == -EWOULDBLOCK) {
		snprintf(text, size,
			 "%s is held by another running agent; stop it, or give this one a "
			 "[datapath] pin_dir of its own",
			 pin_dir);
		return;
	}
	/* The verifier says what is wrong at the end. */
	if (length > 1500)
		tail = log + length - 1500;
	snprintf(text, size, "%s: %s%s%s", pin_dir, strerror(-error), length ? ": " : "",
		 length ? tail : "");
}

struct vnet_kernel *vnet_kernel_open(const char *pin_dir, __u32 max_ports, char *text, size_t size)
{
	struct vnet_kernel *kernel = calloc(1, sizeof(*kernel));
	char *log = calloc(1, LOG_SIZE);
	int error = -ENOMEM;

	/* What libbpf would print is in the error's text; stderr is the daemon's. */
	libbpf_set_print(NULL);
	if (kernel)
		kernel->lock = kernel->packets = -1;
	if (!kernel || !log)
		goto fail;
	error = vnet_pins_open(kernel, pin_dir);
	if (error)
		goto fail;
	error = vnet_upgrade_begin(kernel, pin_dir);
	if (error)
		goto fail;
	kernel->max_ports = adopted_max_ports(kernel, max_ports);
	error = load(kernel, log);
	if (error)
		goto fail;
	error = map_ports(kernel);
	if (error)
		goto fail;
	error = vnet_upgrade_conns(kernel);
	if (error)
		goto fail;
	error = adopt_conns(kernel);
	if (error)
		goto fail;
	error = vnet_pins_programs(kernel);
	if (error)
		goto fail;
	free(log);
	return kernel;
fail:
	explain(text, size, pin_dir, error, log);
	free(log);
	if (kernel)
		vnet_kernel_close(kernel);
	errno = -error;
	return NULL;
}

void vnet_kernel_close(struct vnet_kernel *kernel)
{
	for (__u32 i = 0; kernel->conns && i < kernel->max_ports; i++)
		if (kernel->conns[i] >= 0)
			close(kernel->conns[i]);
	free(kernel->conns);
	vnet_kernel_capture_close(kernel);
	vnet_kernel_tables_close(kernel);
	vnet_kernel_short_close(kernel);
	if (kernel->ports)
		munmap(kernel->ports, kernel->ports_size);
	vnet_bpf__destroy(kernel->skeleton);
	vnet_upgrade_close(kernel);
	vnet_pins_close(kernel);
	free(kernel);
}

__u32 vnet_kernel_max_ports(const struct vnet_kernel *kernel)
{
	return kernel->max_ports;
}

struct vnet_port *vnet_kernel_ports(const struct vnet_kernel *kernel)
{
	return kernel->ports;
}

/* -- interfaces */

static int attach_one(__u32 ifindex, enum bpf_tc_attach_point point, const struct bpf_program *program)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = TC_HANDLE, .priority = TC_PRIORITY,
		    .prog_fd = bpf_program__fd(program), .flags = BPF_TC_F_REPLACE);

	return bpf_tc_attach(&hook, &options);
}

static int detach_one(__u32 ifindex, enum bpf_tc_attach_point point)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = TC_HANDLE, .priority = TC_PRIORITY);
	int error = bpf_tc_detach(&hook, &options);

	/* The interface, its qdisc or the filter is gone already. */
	if (error == -ENODEV || error == -ENOENT || error == -EINVAL)
		return 0;
	return error;
}

/* A filter that is there is replaced in one step: no frame passes unguarded. */
int vnet_kernel_attach(struct vnet_kernel *kernel, __u32 ifindex, int uplink)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	int error = bpf_tc_hook_create(&hook);

	if (error && error != -EEXIST)
		return error;
	if (uplink)
		return attach_one(ifindex, BPF_TC_INGRESS, kernel->skeleton->progs.vnet_tc_uplink);
	error = attach_one(ifindex, BPF_TC_EGRESS, kernel->skeleton->progs.vnet_tc_to_port);
	if (error)
		return error;
	error = attach_one(ifindex, BPF_TC_INGRESS, kernel->skeleton->progs.vnet_tc_from_port);
	if (error)
		detach_one(ifindex, BPF_TC_EGRESS);
	return error;
}

int vnet_kernel_detach(struct vnet_kernel *kernel, __u32 ifindex, int uplink)
{
	int error;

	if (!uplink)
		vnet_kernel_leave_short(kernel, ifindex);
	error = detach_one(ifindex, BPF_TC_INGRESS);
	if (!uplink && !error)
		error = detach_one(ifindex, BPF_TC_EGRESS);
	return error;
}

int vnet_kernel_test_run(struct vnet_kernel *kernel, enum vnet_hook hook, __u32 ifindex,
			 const void *frame, __u32 length, __u32 repeat, __u32 *action,
			 __u32 *nanoseconds)
{
	const struct bpf_program *programs[] = {
		[VNET_FROM_PORT] = kernel->skeleton->progs.vnet_tc_from_port,
		[VNET_TO_PORT] = kernel->skeleton->progs.vnet_tc_to_port,
		[VNET_FROM_UPLINK] = kernel->skeleton->progs.vnet_tc_uplink,
	};
	struct __sk_buff context = {.ifindex = ifindex};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = length,
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = (int)repeat);
	int error = bpf_prog_test_run_opts(bpf_program__fd(programs[hook]), &options);

	*action = options.retval;
	*nanoseconds = options.duration;
	return error;
}
