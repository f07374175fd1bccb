/* SPDX-License-Identifier: Apache-2.0 */
/* Frames for a reader in this process, first in first out, with the manners of a BPF ring buffer. */
#ifndef VNET_RING_H
#define VNET_RING_H

#include <linux/types.h>
#include <stddef.h>

/*
 * Owns its memory and `fd`, which is readable while there are records. A record is a head of
 * `head_size`, with the length of what follows in 32 bits at `captured_at`.
 */
struct vnet_ring {
	size_t size;
	size_t head_size;
	size_t captured_at;
	size_t head; /* where the next record goes; both only grow */
	size_t tail;
	int fd;
	__u8 data[];
};

/* NULL, with errno, when memory or descriptors are short. */
struct vnet_ring *vnet_ring_make(size_t size, size_t head_size, size_t captured_at);
void vnet_ring_free(struct vnet_ring *ring);
/* The record's head, and as many bytes of the frame as it says. 0; -1 when there is no room. */
int vnet_ring_write(struct vnet_ring *ring, const void *head, const __u8 *frame);
/* As many whole records as fit into `room` bytes; returns their length. */
size_t vnet_ring_read(struct vnet_ring *ring, void *to, size_t room);

#endif
