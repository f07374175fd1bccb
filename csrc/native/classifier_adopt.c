/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image that another process left. The books outside of it are made anew from what its sets
 * refer to. The other one may have ended in the midst of a change: readers do not mind, but what
 * only the writer looks at is counted again.
 */
#include <stdlib.h>

#include "classifier_internal.h"

struct adopt {
	struct vnet_classifier *classifier;
	struct vnet_subtable *subtable; /* under way */
	__u32 index;
	__u32 rules;     /* of the subtable */
	__u32 *passed;   /* by bucket of the subtable: rules that went on to a further one */
	__u32 sequences; /* of the set: no rule has had this one */
	__u8 *used;      /* by line */
	int wrong;
};

/* The block is this one's alone. */
static int claim(struct adopt *adopt, __u32 line, __u32 order)
{
	__u32 lines = adopt->classifier->image.lines;

	if (order >= VNET_BLOCK_ORDERS || line & ((1U << order) - 1) ||
	    line < adopt->classifier->blocks.reserved || line >= lines ||
	    1U << order > lines - line)
		return -EINVAL;
	for (__u32 i = 0; i < 1U << order; i++)
		if (adopt->used[line + i]++)
			return -EINVAL;
	return 0;
}

/* Its own line comes first: how many there are is in there. */
static int claim_entry(struct adopt *adopt, __u32 line)
{
	const struct vnet_entry *entry;

	if (claim(adopt, line, 0))
		return -EINVAL;
	entry = &vnet_at(adopt->classifier, line)->entry;
	if (!entry->more)
		return 0;
	adopt->used[line] = 0;
	return entry->more <= (VNET_ENTRY_MIDDLE | VNET_ENTRY_WIDE)
		       ? claim(adopt, line, vnet_entry_block(entry))
		       : -EINVAL;
}

static void adopt_rule(__u32 line, void *arg)
{
	struct adopt *adopt = arg;
	struct vnet_classifier *classifier = adopt->classifier;
	struct vnet_entry *entry;
	struct vnet_bits bits;
	__u32 sequence;
	__u64 hash;

	if (adopt->wrong || claim_entry(adopt, line)) {
		adopt->wrong = 1;
		return;
	}
	vnet_entry_bits(classifier, line, &bits);
	hash = vnet_subtable_hash(classifier, adopt->subtable, &bits.value);
	if (vnet_subtable_count_passed(classifier, adopt->subtable, hash, line, adopt->passed))
		adopt->wrong = 1;
	entry = &vnet_at(classifier, line)->entry;
	entry->subtable = adopt->index;
	sequence = ~(__u32)entry->order;
	if (sequence == ~0U || entry->order > adopt->subtable->top)
		adopt->wrong = 1;
	else if (sequence >= adopt->sequences)
		adopt->sequences = sequence + 1;
	adopt->rules++;
}

static int adopt_subtable(struct adopt *adopt)
{
	__u64 region = adopt->subtable->region;

	if (claim(adopt, (__u32)region, VNET_SUBTABLE_BITS(region)))
		return -EINVAL;
	adopt->rules = 0;
	adopt->passed = calloc(vnet_region_lines(region), sizeof(*adopt->passed));
	if (!adopt->passed)
		return -ENOMEM;
	vnet_subtable_visit(adopt->classifier, adopt->subtable, adopt_rule, adopt);
	if (!adopt->wrong)
		vnet_subtable_repair(adopt->classifier, adopt->subtable, adopt->passed);
	free(adopt->passed);
	vnet_wide_of(adopt->subtable)->rules = adopt->rules;
	return adopt->wrong ? -EINVAL : 0;
}

static int adopt_subtables(struct adopt *adopt, struct vnet_set *set)
{
	__u64 present = 0;
	__u32 rules = 0;
	int error;

	adopt->sequences = 0;
	for (adopt->index = 0; adopt->index < set->used; adopt->index++) {
		adopt->subtable = vnet_subtable_of(adopt->classifier, set, adopt->index);
		error = adopt_subtable(adopt);
		if (error)
			return error;
		rules += adopt->rules;
		if (adopt->rules)
			present |= 1ULL << adopt->index;
	}
	vnet_publish(set->present, present);
	set->rules = rules;
	if (set->sequence < adopt->sequences)
		set->sequence = adopt->sequences;
	return 0;
}

static int adopt_set(struct adopt *adopt, __u32 root)
{
	struct vnet_set *set;

	if (claim(adopt, root, 0))
		return -EINVAL;
	set = &vnet_at(adopt->classifier, root)->set;
	if (set->capacity > vnet_block_order(VNET_MAX_SUBTABLES) ||
	    set->used > 1U << set->capacity || claim(adopt, set->subtables, set->capacity + 1U))
		return -EINVAL;
	if (set->filter && (!vnet_filter_bits_are_valid(set->filter_bits) ||
			    claim(adopt, set->filter, vnet_block_order(vnet_filter_lines(set)))))
		return -EINVAL;
	return adopt_subtables(adopt, set);
}

static int adopt_sets(struct adopt *adopt)
{
	struct vnet_classifier *classifier = adopt->classifier;
	int error;

	for (__u32 set = 0; set < vnet_at(classifier, 0)->head.sets; set++) {
		if (!*vnet_root(classifier, set))
			continue;
		error = adopt_set(adopt, *vnet_root(classifier, set));
		if (error)
			return error;
	}
	vnet_blocks_exclude(&classifier->blocks, adopt->used);
	/* What nothing refers to may have been in use until just now. */
	if (classifier->blocks.wait)
		classifier->blocks.wait(classifier->blocks.arg);
	return 0;
}

int vnet_classifier_adopt(struct vnet_classifier *classifier, __u32 lines, void *memory,
			  void (*wait)(void *arg), void *arg)
{
	struct adopt adopt = {.classifier = classifier};
	const struct vnet_image_head *head = memory;
	int error = -ENOMEM;
	__u32 reserved;

	memset(classifier, 0, sizeof(*classifier));
	if (lines > VNET_MAX_LINES || lines <= VNET_DIRECTORY ||
	    head->version != VNET_IMAGE_VERSION || !head->sets || head->sets > lines / 2)
		return -EINVAL;
	reserved = VNET_DIRECTORY + (head->sets + VNET_DIRECTORY_SETS - 1) / VNET_DIRECTORY_SETS;
	if (reserved >= lines)
		return -EINVAL;
	classifier->image.lines = lines;
	classifier->image.line = memory;
	adopt.used = calloc(lines, 1);
	if (adopt.used && !vnet_blocks_init(&classifier->blocks, lines, reserved, wait, arg))
		error = adopt_sets(&adopt);
	free(adopt.used);
	if (error)
		vnet_classifier_free(classifier);
	return error;
}
