/* SPDX-License-Identifier: Apache-2.0 */
#include "ring.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "capture_abi.h"

struct vnet_ring *vnet_ring_make(size_t size)
{
	struct vnet_ring *ring = calloc(1, sizeof(*ring) + size);

	if (!ring)
		return NULL;
	ring->size = size;
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

static void peek(const struct vnet_ring *ring, void *to, size_t length)
{
	size_t at = ring->tail % ring->size;
	size_t first = length < ring->size - at ? length : ring->size - at;

	memcpy(to, ring->data + at, first);
	memcpy((char *)to + first, ring->data, length - first);
}

int vnet_ring_write(struct vnet_ring *ring, const struct vnet_capture_record *record,
		    const __u8 *frame)
{
	if (sizeof(*record) + record->captured > ring->size - (ring->head - ring->tail))
		return -1;
	put(ring, record, sizeof(*record));
	put(ring, frame, record->captured);
	eventfd_write(ring->fd, 1);
	return 0;
}

size_t vnet_ring_read(struct vnet_ring *ring, void *to, size_t room)
{
	struct vnet_capture_record record;
	size_t done = 0, length;
	eventfd_t count;

	while (ring->tail != ring->head) {
		peek(ring, &record, sizeof(record));
		length = sizeof(record) + record.captured;
		if (length > room - done)
			return done;
		peek(ring, (char *)to + done, length);
		ring->tail += length;
		done += length;
	}
	eventfd_read(ring->fd, &count);
	return done;
}
