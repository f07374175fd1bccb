/* SPDX-License-Identifier: Apache-2.0 */
/* The consistency walker: everything in the image is in one place, and readers find it there. */
#include <stdlib.h>

#include "classifier_internal.h"
#include "classifier_lookup.h"

struct check {
	struct vnet_classifier *classifier;
	struct vnet_set *set;
	struct vnet_subtable *subtable;
	__u32 index;   /* of the subtable */
	__u32 rules;   /* seen in it */
	__u8 *owned;   /* by line */
	__u32 *passed; /* by bucket of the region: rules that went on to a further one */
	const char *wrong;
};

static void own(struct check *check, __u32 line, __u32 count, const char *wrong)
{
	if (line > check->classifier->image.lines || count > check->classifier->image.lines - line) {
		check->wrong = wrong;
		return;
	}
	for (__u32 i = 0; i < count; i++)
		if (check->owned[line + i]++)
			check->wrong = wrong;
}

static void check_rule(__u32 line, void *arg)
{
	struct check *check = arg;
	struct vnet_classifier *classifier = check->classifier;
	const struct vnet_entry *entry = &vnet_at(classifier, line)->entry;
	struct vnet_fields mask;
	struct vnet_bits bits;
	__u64 hash;

	check->rules++;
	own(check, line, 1U << vnet_entry_block(entry), "an entry's lines are somebody else's");
	vnet_entry_bits(classifier, line, &bits);
	vnet_subtable_mask(check->subtable, &mask);
	hash = vnet_subtable_hash(classifier, check->subtable, &bits.value);
	if (vnet_subtable_count_passed(classifier, check->subtable, hash, line, check->passed))
		check->wrong = "a rule is not where its hash leads";
	if (!vnet_within(&mask, &bits.mask))
		check->wrong = "a subtable hashes what its rule does not ask for";
	if (entry->subtable != check->index)
		check->wrong = "an entry names another subtable";
	if (!entry->order || entry->order > check->subtable->top)
		check->wrong = "a rule is above its subtable's top";
	if (!vnet_subtable_holds(classifier, check->subtable, hash, line))
		check->wrong = "a reader would not follow to a rule's bucket";
	if (!(vnet_filter(&classifier->image, check->set, &vnet_at(classifier, 0)->head,
			  &bits.value) >> check->index & 1))
		check->wrong = "the filter hides a rule";
}

static void check_bucket(struct check *check, __u32 index)
{
	const struct vnet_bucket *bucket =
		&vnet_at(check->classifier, (__u32)check->subtable->region + index)->bucket;
	__u32 overflow = vnet_bucket_overflow(bucket->marks);

	for (int slot = 0; slot < VNET_BUCKET_SLOTS; slot++)
		if (!(bucket->marks >> 8 * slot & 0xff) != !bucket->slot[slot])
			check->wrong = "a slot and its mark disagree";
	if (overflow != 255 && overflow != check->passed[index])
		check->wrong = "a bucket miscounts the rules that passed it";
}

static void check_subtable(struct check *check)
{
	struct vnet_subtable *subtable = check->subtable;
	__u32 lines = vnet_region_lines(subtable->region);
	int present = check->set->present >> check->index & 1;

	if (!(__u32)subtable->region) {
		check->wrong = "a subtable has no buckets";
		return;
	}
	own(check, (__u32)subtable->region, lines, "a region's lines are somebody else's");
	check->passed = calloc(lines, sizeof(*check->passed));
	if (!check->passed) {
		check->wrong = "no memory";
		return;
	}
	check->rules = 0;
	vnet_subtable_visit(check->classifier, subtable, check_rule, check);
	for (__u32 i = 0; i < lines; i++)
		check_bucket(check, i);
	free(check->passed);
	if (check->rules != vnet_wide_of(subtable)->rules || present != !!check->rules)
		check->wrong = "a subtable miscounts its rules";
}

static void check_set(struct check *check, __u32 root)
{
	struct vnet_set *set = check->set = &vnet_at(check->classifier, root)->set;
	__u32 rules = 0;

	own(check, root, 1, "a set's line is somebody else's");
	own(check, set->subtables, 2U << set->capacity, "subtables' lines are somebody else's");
	if (set->filter)
		own(check, set->filter, 1U << vnet_block_order(vnet_filter_lines(set)),
		    "a filter's lines are somebody else's");
	if (set->used > 1U << set->capacity)
		check->wrong = "a set has more subtables than room";
	for (check->index = 0; !check->wrong && check->index < set->used; check->index++) {
		check->subtable = vnet_subtable_of(check->classifier, set, check->index);
		check_subtable(check);
		rules += check->rules;
	}
	if (!check->wrong && rules != set->rules)
		check->wrong = "a set miscounts its rules";
}

static void check_blocks(struct check *check)
{
	const struct vnet_blocks *blocks = &check->classifier->blocks;
	__u32 free_lines = 0;

	for (__u32 order = 0; order < VNET_BLOCK_ORDERS; order++)
		for (__u32 line = blocks->head[order]; line; line = blocks->next[line]) {
			own(check, line, 1U << order, "free lines are in use");
			free_lines += 1U << order;
		}
	if (free_lines != blocks->free_lines)
		check->wrong = "free lines are miscounted";
	for (size_t i = 0; i < blocks->retired_count; i++)
		own(check, (__u32)blocks->retired[i], 1U << (blocks->retired[i] >> 32),
		    "retired lines are in use");
}

const char *vnet_classifier_check(struct vnet_classifier *classifier)
{
	struct check check = {.classifier = classifier};

	check.owned = calloc(classifier->image.lines, 1);
	if (!check.owned)
		return "no memory";
	own(&check, 0, classifier->blocks.reserved, "reserved lines are in use");
	for (__u32 set = 0; !check.wrong && set < vnet_at(classifier, 0)->head.sets; set++)
		if (*vnet_root(classifier, set))
			check_set(&check, *vnet_root(classifier, set));
	if (!check.wrong)
		check_blocks(&check);
	for (__u32 line = 0; !check.wrong && line < classifier->image.lines; line++)
		if (!check.owned[line])
			check.wrong = "a line is lost";
	free(check.owned);
	return check.wrong;
}
