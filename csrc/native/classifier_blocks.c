/* SPDX-License-Identifier: Apache-2.0 */
#include "classifier_blocks.h"

#include <stdlib.h>
#include <string.h>

/* So many lines may wait for readers before they are waited for. */
#define RETIRED_SHARE 16
#define RETIRED_LEAST 1024

static void list_add(struct vnet_blocks *blocks, __u32 line, __u32 order)
{
	__u32 next = blocks->head[order];

	blocks->order[line] = order + 1;
	blocks->next[line] = next;
	blocks->previous[line] = 0;
	if (next)
		blocks->previous[next] = line;
	blocks->head[order] = line;
}

static void list_remove(struct vnet_blocks *blocks, __u32 line, __u32 order)
{
	__u32 next = blocks->next[line], previous = blocks->previous[line];

	blocks->order[line] = 0;
	if (next)
		blocks->previous[next] = previous;
	if (previous)
		blocks->next[previous] = next;
	else
		blocks->head[order] = next;
}

/* The largest aligned blocks that cover the lines from `line` to before `end`. */
static void add_run(struct vnet_blocks *blocks, __u32 line, __u32 end)
{
	__u32 order;

	blocks->free_lines += end - line;
	while (line < end) {
		order = (__u32)__builtin_ctz(line);
		while (order >= VNET_BLOCK_ORDERS || (1U << order) > end - line)
			order--;
		list_add(blocks, line, order);
		line += 1U << order;
	}
}

int vnet_blocks_init(struct vnet_blocks *blocks, __u32 lines, __u32 reserved,
		     void (*wait)(void *arg), void *arg)
{
	memset(blocks, 0, sizeof(*blocks));
	blocks->lines = lines;
	blocks->reserved = reserved ? reserved : 1;
	blocks->wait = wait;
	blocks->arg = arg;
	blocks->next = calloc(lines, sizeof(*blocks->next));
	blocks->previous = calloc(lines, sizeof(*blocks->previous));
	blocks->order = calloc(lines, 1);
	if (!blocks->next || !blocks->previous || !blocks->order) {
		vnet_blocks_free(blocks);
		return -1;
	}
	add_run(blocks, blocks->reserved, lines);
	return 0;
}

void vnet_blocks_exclude(struct vnet_blocks *blocks, const __u8 *used)
{
	__u32 line = blocks->reserved, end;

	memset(blocks->head, 0, sizeof(blocks->head));
	memset(blocks->order, 0, blocks->lines);
	blocks->free_lines = 0;
	for (; line < blocks->lines; line = end + 1) {
		for (end = line; end < blocks->lines && !used[end]; end++)
			;
		add_run(blocks, line, end);
	}
}

void vnet_blocks_free(struct vnet_blocks *blocks)
{
	free(blocks->next);
	free(blocks->previous);
	free(blocks->order);
	free(blocks->retired);
	memset(blocks, 0, sizeof(*blocks));
}

static __u32 take(struct vnet_blocks *blocks, __u32 order)
{
	__u32 larger = order, line;

	while (larger < VNET_BLOCK_ORDERS && !blocks->head[larger])
		larger++;
	if (larger >= VNET_BLOCK_ORDERS)
		return 0;
	line = blocks->head[larger];
	list_remove(blocks, line, larger);
	while (larger-- > order)
		list_add(blocks, line + (1U << larger), larger);
	blocks->free_lines -= 1U << order;
	return line;
}

__u32 vnet_blocks_take(struct vnet_blocks *blocks, __u32 order)
{
	__u32 line = take(blocks, order);

	if (line || !blocks->retired_count)
		return line;
	vnet_blocks_reclaim(blocks);
	return take(blocks, order);
}

void vnet_blocks_give(struct vnet_blocks *blocks, __u32 line, __u32 order)
{
	__u32 buddy;

	blocks->free_lines += 1U << order;
	for (; order + 1 < VNET_BLOCK_ORDERS; order++) {
		buddy = line ^ 1U << order;
		if (buddy >= blocks->lines || blocks->order[buddy] != order + 1)
			break;
		list_remove(blocks, buddy, order);
		line &= ~(1U << order);
	}
	list_add(blocks, line, order);
}

void vnet_blocks_reclaim(struct vnet_blocks *blocks)
{
	if (!blocks->retired_count)
		return;
	blocks->wait(blocks->arg);
	for (size_t i = 0; i < blocks->retired_count; i++)
		vnet_blocks_give(blocks, (__u32)blocks->retired[i], blocks->retired[i] >> 32);
	blocks->retired_count = 0;
	blocks->retired_lines = 0;
}

static int grow_retired(struct vnet_blocks *blocks)
{
	size_t room = blocks->retired_room ? 2 * blocks->retired_room : 256;
	__u64 *retired = realloc(blocks->retired, room * sizeof(*retired));

	if (!retired)
		return -1;
	blocks->retired = retired;
	blocks->retired_room = room;
	return 0;
}

void vnet_blocks_retire(struct vnet_blocks *blocks, __u32 line, __u32 order)
{
	if (!blocks->wait) {
		vnet_blocks_give(blocks, line, order);
		return;
	}
	if (blocks->retired_count == blocks->retired_room && grow_retired(blocks)) {
		vnet_blocks_reclaim(blocks);
		blocks->wait(blocks->arg);
		vnet_blocks_give(blocks, line, order);
		return;
	}
	blocks->retired[blocks->retired_count++] = line | (__u64)order << 32;
	blocks->retired_lines += 1U << order;
	if (blocks->retired_lines > RETIRED_LEAST + blocks->lines / RETIRED_SHARE)
		vnet_blocks_reclaim(blocks);
}
