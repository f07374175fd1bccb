/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of 1, 2, 4, ... lines of an image: a buddy allocator whose books are outside of it. */
#ifndef VNET_CLASSIFIER_BLOCKS_H
#define VNET_CLASSIFIER_BLOCKS_H

#include <linux/types.h>
#include <stddef.h>

#define VNET_BLOCK_ORDERS 25

/* Owns its arrays. Block 0 is never handed out, so that 0 can mean none. */
struct vnet_blocks {
	__u32 lines;
	__u32 reserved;
	__u32 free_lines;
	__u32 head[VNET_BLOCK_ORDERS];
	__u32 *next; /* by line, of free blocks of one order */
	__u32 *previous;
	__u8 *order; /* by line: 1 + order of the free block that begins there */
	__u64 *retired; /* line | order << 32, until no reader has it */
	size_t retired_count;
	size_t retired_room;
	__u32 retired_lines;
	void (*wait)(void *arg);
	void *arg;
};

/* The first `reserved` lines stay out of it. 0, or -1 without memory. */
int vnet_blocks_init(struct vnet_blocks *blocks, __u32 lines, __u32 reserved,
		     void (*wait)(void *arg), void *arg);
void vnet_blocks_free(struct vnet_blocks *blocks);
/* Before any was handed out: blocks that are in use, by line, are not free. */
void vnet_blocks_exclude(struct vnet_blocks *blocks, const __u8 *used);
/* The first line of 2^order, 0 when there is no room even after readers were waited for. */
__u32 vnet_blocks_take(struct vnet_blocks *blocks, __u32 order);
/* Back at once: nobody has ever seen it. */
void vnet_blocks_give(struct vnet_blocks *blocks, __u32 line, __u32 order);
/* Back once nobody can be reading it. */
void vnet_blocks_retire(struct vnet_blocks *blocks, __u32 line, __u32 order);
void vnet_blocks_reclaim(struct vnet_blocks *blocks);

/* The least order whose blocks have `lines`. */
static inline __u32 vnet_block_order(__u32 lines)
{
	return lines <= 1 ? 0 : 32 - (__u32)__builtin_clz(lines - 1);
}

#endif
