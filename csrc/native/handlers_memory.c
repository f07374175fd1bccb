/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of handlers in this process: what no rule needs takes no memory. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "handlers.h"

#define LINES_SIZE (VNET_HANDLER_LINES * sizeof(union vnet_line))
#define HANDLERS_SIZE (VNET_HANDLER_ROOM * sizeof(struct vnet_handler))

/* Zeroed. NULL when memory is short. */
static void *map(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void unmap(void *memory, size_t size)
{
	if (memory)
		munmap(memory, size);
}

static void release(const struct vnet_handler_memory *memory)
{
	unmap(memory->lines, LINES_SIZE);
	unmap(memory->handler, HANDLERS_SIZE);
	free(memory->rate);
}

struct vnet_handlers *vnet_handlers_make(__u32 max_ports)
{
	struct vnet_handlers *handlers = malloc(sizeof(*handlers));
	struct vnet_handler_memory memory = {
		.lines = map(LINES_SIZE),
		.handler = map(HANDLERS_SIZE),
		.rate = calloc(max_ports, sizeof(*memory.rate)),
	};

	if (!handlers || !memory.lines || !memory.handler || !memory.rate ||
	    vnet_handlers_init(handlers, &memory)) {
		release(&memory);
		free(handlers);
		return NULL;
	}
	handlers->ring = vnet_ring_make(VNET_PACKET_RING, sizeof(struct vnet_packet_in),
					offsetof(struct vnet_packet_in, captured));
	if (handlers->ring)
		return handlers;
	vnet_handlers_unmake(handlers);
	return NULL;
}

void vnet_handlers_unmake(struct vnet_handlers *handlers)
{
	struct vnet_handler_memory memory;

	if (!handlers)
		return;
	memory = handlers->memory;
	vnet_handlers_free(handlers);
	release(&memory);
	free(handlers);
}
