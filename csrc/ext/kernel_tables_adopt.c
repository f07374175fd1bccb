/* SPDX-License-Identifier: Apache-2.0 */
/* Rules are read from the maps of an earlier agent as its programs read them: whole at any moment. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel_tables.h"

enum pin { LINES, HANDLERS, PINS };
static const char *const names[PINS] = {"vnet_lines", "vnet_handlers"};

static void pin_path(const struct vnet_kernel *kernel, enum pin pin, const char *suffix,
		     char path[VNET_PIN_PATH])
{
	snprintf(path, VNET_PIN_PATH, "%s/%s%s", kernel->directory, names[pin], suffix);
}

int vnet_kernel_tables_pinned(const struct vnet_kernel *kernel)
{
	char path[VNET_PIN_PATH];

	pin_path(kernel, LINES, "", path);
	return access(path, F_OK) == 0;
}

static int replace_pin(const struct vnet_kernel *kernel, enum pin pin, int fd)
{
	char path[VNET_PIN_PATH], part[VNET_PIN_PATH];

	pin_path(kernel, pin, "", path);
	pin_path(kernel, pin, "_new", part);
	unlink(part); /* of one that died here */
	if (bpf_obj_pin(fd, part))
		return -errno;
	return rename(part, path) ? -errno : 0;
}

/*
 * Two maps that belong together: lines go last, and without them there is nothing to adopt. An
 * agent that dies in between leaves rules that it would make again from its files.
 */
int vnet_tables_pin(const struct vnet_kernel *kernel, int lines, int handlers)
{
	int error;

	vnet_kernel_tables_unpin(kernel);
	error = replace_pin(kernel, HANDLERS, handlers);
	return error ? error : replace_pin(kernel, LINES, lines);
}

void vnet_kernel_tables_unpin(const struct vnet_kernel *kernel)
{
	char path[VNET_PIN_PATH];

	for (enum pin pin = LINES; pin < PINS; pin++) {
		pin_path(kernel, pin, "_new", path);
		unlink(path);
		pin_path(kernel, pin, "", path);
		unlink(path);
	}
}

/* A pinned array, read-only; its size in *size. NULL with errno. */
static void *map_pinned(const struct vnet_kernel *kernel, enum pin pin, size_t element, size_t *size)
{
	struct bpf_map_info info = {0};
	__u32 length = sizeof(info);
	char path[VNET_PIN_PATH];
	void *memory = NULL;
	int fd;

	pin_path(kernel, pin, "", path);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return NULL;
	if (!bpf_obj_get_info_by_fd(fd, &info, &length) && info.value_size == element) {
		*size = (size_t)info.max_entries * element;
		memory = mmap(NULL, *size, PROT_READ, MAP_SHARED, fd, 0);
	}
	close(fd);
	return memory == MAP_FAILED ? NULL : memory;
}

struct found {
	__u64 order;
	struct vnet_handler_rule rule;
};

struct reading {
	struct vnet_handlers *from;
	struct found *found;
	__u32 count, room;
	int error;
};

static void read_rule(void *arg, __u32 entry, const struct vnet_handler_rule *rule)
{
	struct reading *reading = arg;
	struct found *more;
	__u32 room;

	if (reading->count == reading->room) {
		room = reading->room ? 2 * reading->room : 64;
		more = realloc(reading->found, room * sizeof(*more));
		if (!more) {
			reading->error = -ENOMEM;
			return;
		}
		reading->found = more;
		reading->room = room;
	}
	more = &reading->found[reading->count++];
	more->order = reading->from->classifier.image.line[entry].entry.order;
	more->rule = *rule;
}

/* The greatest first: among equals the one that came first has the greater order. */
static int compare(const void *a, const void *b)
{
	__u64 x = ((const struct found *)a)->order, y = ((const struct found *)b)->order;

	return x < y ? 1 : x > y ? -1 : 0;
}

static int adopt_table(struct vnet_handlers *from, struct vnet_handlers *to, __u32 table)
{
	struct reading reading = {.from = from};
	int miss = vnet_handlers_miss(from, table);
	struct vnet_handler_rule *rules = NULL;

	if (miss < 0)
		return 0;
	vnet_handlers_visit(from, table, read_rule, &reading);
	if (!reading.error) {
		rules = malloc((reading.count + 1UL) * sizeof(*rules));
		if (!rules)
			reading.error = -ENOMEM;
	}
	if (!reading.error) {
		qsort(reading.found, reading.count, sizeof(*reading.found), compare);
		for (__u32 i = 0; i < reading.count; i++)
			rules[i] = reading.found[i].rule;
		reading.error = vnet_handlers_replace(to, table, rules, reading.count, miss, NULL);
	}
	free(rules);
	free(reading.found);
	return reading.error;
}

int vnet_tables_adopt(const struct vnet_kernel *kernel, struct vnet_handlers *handlers)
{
	size_t lines_size = 0, handlers_size = 0;
	struct vnet_handlers from = {0};
	int error = 0;

	from.memory.lines = map_pinned(kernel, LINES, sizeof(union vnet_line), &lines_size);
	from.memory.handler = map_pinned(kernel, HANDLERS, sizeof(struct vnet_handler),
					 &handlers_size);
	if (from.memory.lines && from.memory.handler &&
	    handlers_size == VNET_HANDLER_ROOM * sizeof(struct vnet_handler) &&
	    from.memory.lines->head.version == VNET_IMAGE_VERSION) {
		from.classifier.image.line = from.memory.lines;
		from.classifier.image.lines = lines_size / sizeof(union vnet_line);
		for (__u32 table = 0; !error && table < VNET_HANDLER_TABLES; table++)
			error = adopt_table(&from, handlers, table);
	}
	if (from.memory.lines)
		munmap(from.memory.lines, lines_size);
	if (from.memory.handler)
		munmap(from.memory.handler, handlers_size);
	return error;
}
