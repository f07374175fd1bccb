/* SPDX-License-Identifier: Apache-2.0 */
#include "ring.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct vnet_ring *vnet_ring_make(size_t size, size_t head_size, size_t captured_at)
{
	struct vnet_ring *ring = calloc(1, sizeof(*ring) + size);

	if (!ring)
		return NULL;
	ring->size = size;
	ring->head_size = head_size;
	ring->captured_at = captured_at;
	ring->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (ring->fd >= 0)
		return ring;
	free(ring);
	return NULL;
}

void vnet_ring_free(struct vnet_ring *ring)
{
	if (!ring)
		return;
	close(ring->fd);
	free(ring);
}

static void put(struct vnet_ring *ring, const void *from, size_t length)
{
	size_t at = ring->head % ring->size;
	size_t first = length < ring->size - at ? length : ring->size - at;

	memcpy(ring->data + at, from, first);
	memcpy(ring->data, (const char *)from + first, length - first);
	ring->head += length;
}

static void peek(const struct vnet_ring *ring, size_t offset, void *to, size_t length)
{
	size_t at = (ring->tail + offset) % ring->size;
	size_t first = length < ring->size - at ? length : ring->size - at;

	memcpy(to, ring->data + at, first);
	memcpy((char *)to + first, ring->data, length - first);
}

int vnet_ring_write(struct vnet_ring *ring, const void *head, const __u8 *frame)
{
	__u32 captured;

	memcpy(&captured, (const char *)head + ring->captured_at, sizeof(captured));
	if (ring->head_size + captured > ring->size - (ring->head - ring->tail))
		return -1;
	put(ring, head, ring->head_size);
	put(ring, frame, captured);
	eventfd_write(ring->fd, 1);
	return 0;
}

size_t vnet_ring_read(struct vnet_ring *ring, void *to, size_t room)
{
	size_t done = 0, length;
	__u32 captured;
	eventfd_t count;

	while (ring->tail != ring->head) {
		peek(ring, ring->captured_at, &captured, sizeof(captured));
		length = ring->head_size + captured;
		if (length > room - done)
			return done;
		peek(ring, 0, (char *)to + done, length);
		ring->tail += length;
		done += length;
	}
	eventfd_read(ring->fd, &count);
	return done;
}
