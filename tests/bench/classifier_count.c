/* SPDX-License-Identifier: Apache-2.0 */
#include "classifier_count.h"

static __u64 lines_read, subtables_read;
static __u32 subtables_at, subtables_lines;

static union vnet_line *count_line(struct vnet_image *image, __u32 index)
{
	lines_read++;
	if (index - subtables_at < subtables_lines && (index - subtables_at) % 2 == 0)
		subtables_read++;
	return vnet_line(image, index);
}

#define vnet_line(image, index) count_line(image, index)
#include "classifier_lookup.h"

void count_visits(struct vnet_image *image, const struct vnet_fields *frames, __u32 number,
		  struct count *count)
{
	const struct vnet_set *set = &image->line[image->line[VNET_DIRECTORY].root[0]].set;
	struct vnet_hit hit;
	__u64 before;

	*count = (struct count){0};
	subtables_at = set->subtables;
	subtables_lines = 2U << set->capacity;
	lines_read = subtables_read = 0;
	for (__u32 i = 0; i < number; i++) {
		before = subtables_read;
		vnet_classifier_lookup(image, 0, &frames[i], &hit);
		if (subtables_read - before > count->most_subtables)
			count->most_subtables = subtables_read - before;
	}
	count->lines = lines_read;
	count->subtables = subtables_read;
}
