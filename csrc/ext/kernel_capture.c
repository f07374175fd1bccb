/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of captured frames: it is there only while somebody captures. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel_internal.h"

/* Owns the map and libbpf's view of it. `to`, `room` and `done` are of the read that runs. */
struct vnet_kernel_ring {
	int map;
	struct ring_buffer *buffer;
	char *to;
	size_t room, done;
};

static int rings(const struct vnet_kernel *kernel)
{
	return bpf_map__fd(kernel->skeleton->maps.vnet_rings);
}

/* One record; the read ends when the next one, which may be as long as any, might not fit. */
static int take(void *arg, void *data, size_t size)
{
	struct vnet_kernel_ring *ring = arg;
	const struct vnet_capture_record *record = data;
	size_t length = sizeof(*record) + record->captured;

	if (size < length)
		return 0;
	memcpy(ring->to + ring->done, data, length);
	ring->done += length;
	return ring->room - ring->done < sizeof(*record) + VNET_CAPTURE_SNAP ? -ENOSPC : 0;
}

static void free_ring(struct vnet_kernel_ring *ring)
{
	ring_buffer__free(ring->buffer);
	if (ring->map >= 0)
		close(ring->map);
	free(ring);
}

int vnet_kernel_capture_open(struct vnet_kernel *kernel, __u32 size)
{
	struct vnet_kernel_ring *ring;
	__u32 zero = 0, pages = sysconf(_SC_PAGESIZE);
	int error;

	if (kernel->ring)
		return -EBUSY;
	while (pages < size && pages < 1U << 30)
		pages <<= 1;
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	ring->map = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "vnet_ring", 0, 0, pages, NULL);
	if (ring->map < 0)
		goto fail;
	ring->buffer = ring_buffer__new(ring->map, take, ring, NULL);
	if (!ring->buffer)
		goto fail;
	if (bpf_map_update_elem(rings(kernel), &zero, &ring->map, BPF_ANY))
		goto fail;
	kernel->ring = ring;
	return ring_buffer__epoll_fd(ring->buffer);
fail:
	error = -errno;
	free_ring(ring);
	return error;
}

int vnet_kernel_is_capturing(const struct vnet_kernel *kernel)
{
	return kernel->ring != NULL;
}

size_t vnet_kernel_capture_read(struct vnet_kernel *kernel, void *to, size_t room)
{
	struct vnet_kernel_ring *ring = kernel->ring;

	ring->to = to;
	ring->room = room;
	ring->done = 0;
	ring_buffer__consume(ring->buffer);
	return ring->done;
}

int vnet_kernel_capture_get(struct vnet_kernel *kernel, __u32 local_id,
			    struct vnet_capture *capture)
{
	int fd = bpf_map__fd(kernel->skeleton->maps.vnet_captures);

	return bpf_map_lookup_elem(fd, &local_id, capture) ? -errno : 0;
}

void vnet_kernel_capture_close(struct vnet_kernel *kernel)
{
	__u32 zero = 0;

	if (kernel->skeleton && rings(kernel) >= 0)
		bpf_map_delete_elem(rings(kernel), &zero);
	if (kernel->ring)
		free_ring(kernel->ring);
	kernel->ring = NULL;
}
