/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's tables in the kernel: programs and maps of their own, made when they are first
 * used. An agent that finds tables in force makes new ones of the same rules beside them, and then
 * has its programs take the place of the old ones: no frame finds half of a table.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "classifier_map.h"
#include "handlers.h"
#include "kernel_internal.h"
#include "kernel_tables.h"
#include "stages.h"
#include "tables.skel.h"

/* Owns all of it. */
struct vnet_kernel_tables {
	struct tables_bpf *skeleton;
	struct vnet_handlers handlers;
	struct vnet_handler_memory memory;
	struct ring_buffer *buffer;
	char *to; /* of the read that runs, with `room` and `done` */
	size_t room, done;
};

static void *map(const struct bpf_map *map, size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

	return memory == MAP_FAILED ? NULL : memory;
}

#define LINES_SIZE (VNET_HANDLER_LINES * sizeof(union vnet_line))
#define HANDLERS_SIZE (VNET_HANDLER_ROOM * sizeof(struct vnet_handler))

static size_t rates_size(const struct vnet_kernel *kernel)
{
	return kernel->max_ports * sizeof(struct vnet_packet_rate);
}

/* -- load */

static int load(struct vnet_kernel *kernel, struct vnet_kernel_tables *tables)
{
	struct tables_bpf *skeleton = tables_bpf__open();
	__u32 token[2];
	int error;

	tables->skeleton = skeleton;
	if (!skeleton)
		return -errno;
	if (getrandom(token, sizeof(token), 0) != sizeof(token))
		return -EIO;
	memcpy((void *)skeleton->rodata->vnet_token, token, sizeof(token));
	error = vnet_kernel_share_maps(kernel, skeleton->obj);
	if (!error)
		error = bpf_map__set_max_entries(skeleton->maps.vnet_lines, VNET_HANDLER_LINES);
	if (!error)
		error = bpf_map__set_max_entries(skeleton->maps.vnet_handlers, VNET_HANDLER_ROOM);
	if (!error)
		error = bpf_map__set_max_entries(skeleton->maps.vnet_packet_rates,
						 kernel->max_ports);
	return error ? error : tables_bpf__load(skeleton);
}

static int map_memory(const struct vnet_kernel *kernel, struct vnet_kernel_tables *tables)
{
	struct vnet_handler_memory *memory = &tables->memory;

	memory->lines = map(tables->skeleton->maps.vnet_lines, LINES_SIZE);
	memory->handler = map(tables->skeleton->maps.vnet_handlers, HANDLERS_SIZE);
	memory->rate = map(tables->skeleton->maps.vnet_packet_rates, rates_size(kernel));
	memory->wait = vnet_wait_for_programs;
	if (!memory->lines || !memory->handler || !memory->rate)
		return -ENOMEM;
	return vnet_handlers_init(&tables->handlers, memory);
}

/* -- packet-ins */

/* One record; the read ends when the next one, which may be as long as any, might not fit. */
static int take(void *arg, void *data, size_t size)
{
	struct vnet_kernel_tables *tables = arg;
	const struct vnet_packet_in *in = data;
	size_t length = sizeof(*in) + in->captured;

	if (size < length)
		return 0;
	memcpy(tables->to + tables->done, data, length);
	tables->done += length;
	return tables->room - tables->done < sizeof(*in) + VNET_PACKET_SNAP ? -ENOSPC : 0;
}

static int open_ring(struct vnet_kernel *kernel, struct vnet_kernel_tables *tables)
{
	struct epoll_event event = {.events = EPOLLIN};
	int packets = vnet_kernel_packet_fd(kernel);

	if (packets < 0)
		return packets;
	tables->buffer = ring_buffer__new(bpf_map__fd(tables->skeleton->maps.vnet_packets), take,
					  tables, NULL);
	if (!tables->buffer)
		return -errno;
	return epoll_ctl(packets, EPOLL_CTL_ADD, ring_buffer__epoll_fd(tables->buffer), &event)
		       ? -errno
		       : 0;
}

/* There before any table is, so that somebody can wait for the first frame. */
int vnet_kernel_packet_fd(struct vnet_kernel *kernel)
{
	if (kernel->packets < 0)
		kernel->packets = epoll_create1(EPOLL_CLOEXEC);
	return kernel->packets < 0 ? -errno : kernel->packets;
}

size_t vnet_kernel_packet_read(struct vnet_kernel *kernel, void *to, size_t room)
{
	struct vnet_kernel_tables *tables = kernel->tables;

	if (!tables)
		return 0;
	tables->to = to;
	tables->room = room;
	tables->done = 0;
	ring_buffer__consume(tables->buffer);
	return tables->done;
}

/* -- into force */

static int set_stage(struct vnet_kernel *kernel, __u32 stage, const struct bpf_program *program)
{
	int fd = bpf_program__fd(program);

	return bpf_map_update_elem(bpf_map__fd(kernel->skeleton->maps.vnet_stages), &stage, &fd,
				   BPF_ANY)
		       ? -errno
		       : 0;
}

/* Those that others go on in come first. */
static int set_stages(struct vnet_kernel *kernel, const struct tables_bpf *skeleton)
{
	int error = set_stage(kernel, VNET_STAGE_NORMAL_FROM, skeleton->progs.vnet_normal_from);

	if (!error)
		error = set_stage(kernel, VNET_STAGE_NORMAL_TO, skeleton->progs.vnet_normal_to);
	if (!error)
		error = set_stage(kernel, VNET_STAGE_NAT_FROM, skeleton->progs.vnet_nat_from);
	if (!error)
		error = set_stage(kernel, VNET_STAGE_NAT_TO, skeleton->progs.vnet_nat_to);
	if (!error)
		error = set_stage(kernel, VNET_STAGE_TABLES_FROM, skeleton->progs.vnet_tables_from);
	if (!error)
		error = set_stage(kernel, VNET_STAGE_TABLES_TO, skeleton->progs.vnet_tables_to);
	return error;
}

static void release(struct vnet_kernel *kernel, struct vnet_kernel_tables *tables)
{
	ring_buffer__free(tables->buffer);
	vnet_handlers_free(&tables->handlers);
	if (tables->memory.lines)
		munmap(tables->memory.lines, LINES_SIZE);
	if (tables->memory.handler)
		munmap(tables->memory.handler, HANDLERS_SIZE);
	if (tables->memory.rate)
		munmap(tables->memory.rate, rates_size(kernel));
	tables_bpf__destroy(tables->skeleton);
	free(tables);
}

int vnet_kernel_tables_open(struct vnet_kernel *kernel, struct vnet_handlers **handlers)
{
	struct vnet_kernel_tables *tables;
	int error;

	if (!vnet_can_wait_for_programs())
		return -EOPNOTSUPP;
	tables = calloc(1, sizeof(*tables));
	error = tables ? load(kernel, tables) : -ENOMEM;

	if (!error)
		error = map_memory(kernel, tables);
	if (!error)
		error = vnet_tables_adopt(kernel, &tables->handlers);
	if (!error)
		error = open_ring(kernel, tables);
	if (!error)
		error = set_stages(kernel, tables->skeleton);
	if (!error)
		error = vnet_tables_pin(kernel, bpf_map__fd(tables->skeleton->maps.vnet_lines),
					bpf_map__fd(tables->skeleton->maps.vnet_handlers));
	if (error) {
		if (tables)
			release(kernel, tables);
		return error;
	}
	kernel->tables = tables;
	*handlers = &tables->handlers;
	return 0;
}

void vnet_kernel_tables_close(struct vnet_kernel *kernel)
{
	if (kernel->tables)
		release(kernel, kernel->tables);
	kernel->tables = NULL;
	if (kernel->packets >= 0)
		close(kernel->packets);
	kernel->packets = -1;
}

/* -- packet-outs */

int vnet_kernel_send(struct vnet_kernel *kernel, __u32 ifindex, int from_vm, int past_tables,
		     const void *frame, __u32 length)
{
	struct __sk_buff context = {.cb = {ifindex, from_vm, past_tables}};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = length,
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = 1);

	if (!kernel->tables)
		return -EINVAL;
	if (bpf_prog_test_run_opts(bpf_program__fd(kernel->tables->skeleton->progs.vnet_inject),
				   &options))
		return -errno;
	return (int)options.retval < 0 ? (int)options.retval : 0;
}
