/* SPDX-License-Identifier: Apache-2.0 */
/* The classifier's image, and rules that come and go one by one. */
#include "classifier.h"

#include <stdlib.h>
#include <sys/random.h>

#include "classifier_internal.h"

static int fill_head(struct vnet_classifier *classifier, __u32 sets)
{
	struct vnet_image_head *head = &vnet_at(classifier, 0)->head;
	struct vnet_image_wide *wide = &vnet_at(classifier, 1)->head_wide;

	head->sets = sets;
	/* Whoever knew the factors could write rules that all share a hash. */
	if (getrandom(head->factor, sizeof(head->factor), 0) != sizeof(head->factor) ||
	    getrandom(wide->factor, sizeof(wide->factor), 0) != sizeof(wide->factor) ||
	    getrandom(&head->filter_factor, 8, 0) != 8)
		return -1;
	for (int i = 0; i < VNET_NARROW_WORDS; i++)
		head->factor[i] |= 1;
	for (int i = 0; i < VNET_WIDE_WORDS; i++)
		wide->factor[i] |= 1;
	head->filter_factor |= 1;
	vnet_publish(head->version, VNET_IMAGE_VERSION);
	return 0;
}

int vnet_classifier_init(struct vnet_classifier *classifier, __u32 lines, __u32 sets, void *memory,
			 void (*wait)(void *arg), void *arg)
{
	__u32 reserved = VNET_DIRECTORY + (sets + VNET_DIRECTORY_SETS - 1) / VNET_DIRECTORY_SETS;

	memset(classifier, 0, sizeof(*classifier));
	if (lines > VNET_MAX_LINES || !sets || sets > lines / 2 || reserved >= lines)
		return -EINVAL;
	classifier->owns_lines = !memory;
	classifier->image.lines = lines;
	classifier->image.line = memory;
	if (!memory) {
		classifier->image.line = aligned_alloc(64, lines * sizeof(union vnet_line));
		if (!classifier->image.line)
			return -ENOMEM;
		memset(classifier->image.line, 0, lines * sizeof(union vnet_line));
	}
	if (!vnet_blocks_init(&classifier->blocks, lines, reserved, wait, arg) &&
	    !fill_head(classifier, sets))
		return 0;
	vnet_classifier_free(classifier);
	return -ENOMEM;
}

void vnet_classifier_free(struct vnet_classifier *classifier)
{
	vnet_blocks_free(&classifier->blocks);
	if (classifier->owns_lines)
		free(classifier->image.line);
	memset(classifier, 0, sizeof(*classifier));
}

static void set_present(struct vnet_set *set, __u32 index, int present)
{
	__u64 bit = 1ULL << index;

	vnet_publish(set->present, present ? set->present | bit : set->present & ~bit);
}

int vnet_classifier_insert(struct vnet_classifier *classifier, __u32 set,
			   const struct vnet_match *match, __u32 *entry)
{
	struct vnet_set *into = vnet_set_of(classifier, set);
	struct vnet_subtable *subtable;
	struct vnet_bits bits;
	__u32 line;
	int index;

	if (!into || vnet_match_check(match))
		return -EINVAL;
	if (into->sequence == ~0U)
		return -E2BIG; /* vnet_classifier_replace counts anew */
	vnet_match_bits(match, &bits);
	index = vnet_set_find_subtable(classifier, set, &bits);
	if (index < 0)
		return index;
	into = vnet_set_of(classifier, set);
	subtable = vnet_subtable_of(classifier, into, index);
	line = vnet_entry_write(classifier, match, into->sequence);
	if (!line)
		return -ENOMEM;
	vnet_at(classifier, line)->entry.subtable = index;
	vnet_filter_add(classifier, into, &bits.value, &bits.mask, index);
	if (vnet_subtable_add(classifier, subtable,
			      vnet_subtable_hash(classifier, subtable, &bits.value), line)) {
		vnet_blocks_give(&classifier->blocks, line,
				 vnet_entry_block(&vnet_at(classifier, line)->entry));
		return -ENOMEM;
	}
	set_present(into, index, 1);
	into->sequence++;
	into->rules++;
	if (vnet_filter_is_due(into))
		vnet_set_renew_filter(classifier, set);
	if (entry)
		*entry = line;
	return 0;
}

/* NULL when the line is no rule of the set. */
static struct vnet_subtable *subtable_of(struct vnet_classifier *classifier, __u32 set,
					 __u32 entry)
{
	struct vnet_set *from = vnet_set_of(classifier, set);
	const struct vnet_entry *line;

	if (!from || entry < classifier->blocks.reserved || entry >= classifier->image.lines)
		return NULL;
	line = &vnet_at(classifier, entry)->entry;
	if (line->subtable >= from->used ||
	    line->more > (VNET_ENTRY_MIDDLE | VNET_ENTRY_WIDE) ||
	    entry + (1U << vnet_entry_block(line)) > classifier->image.lines)
		return NULL;
	return vnet_subtable_of(classifier, from, line->subtable);
}

int vnet_classifier_delete(struct vnet_classifier *classifier, __u32 set, __u32 entry)
{
	struct vnet_subtable *subtable = subtable_of(classifier, set, entry);
	struct vnet_set *from;
	struct vnet_bits bits;

	if (!subtable)
		return -EINVAL;
	from = vnet_set_of(classifier, set);
	vnet_entry_bits(classifier, entry, &bits);
	if (vnet_subtable_drop(classifier, subtable,
			       vnet_subtable_hash(classifier, subtable, &bits.value), entry))
		return -EINVAL;
	if (!vnet_wide_of(subtable)->rules)
		set_present(from, vnet_at(classifier, entry)->entry.subtable, 0);
	from->rules--;
	from->removed++;
	vnet_blocks_retire(&classifier->blocks, entry,
			   vnet_entry_block(&vnet_at(classifier, entry)->entry));
	if (from->filter && from->removed > from->rules / 2 + 64)
		vnet_set_renew_filter(classifier, set);
	return 0;
}

int vnet_classifier_read(struct vnet_classifier *classifier, __u32 set, __u32 entry,
			 struct vnet_match *match)
{
	struct vnet_subtable *subtable = subtable_of(classifier, set, entry);
	struct vnet_bits bits;
	__u64 hash;

	if (!subtable)
		return -EINVAL;
	vnet_entry_read(classifier, entry, match);
	vnet_match_bits(match, &bits);
	hash = vnet_subtable_hash(classifier, subtable, &bits.value);
	return vnet_subtable_holds(classifier, subtable, hash, entry) ? 0 : -EINVAL;
}
