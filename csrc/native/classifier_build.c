/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set made whole, beside what is there, and put in its place with one store. Readers have
 * either.
 */
#include <stdlib.h>

#include "classifier_internal.h"

/* Rules on their way into a set, in order of their sequence. */
struct build {
	struct vnet_classifier *classifier;
	__u32 count;
	__u32 at;
	__u32 *line;
	struct vnet_bits *bits;
	__u8 *chosen;
	struct vnet_choice choices[VNET_MAX_SUBTABLES];
	int masks;
	__u32 root; /* of the new set, 0: none yet */
};

static int build_init(struct build *build, struct vnet_classifier *classifier, __u32 count)
{
	memset(build, 0, sizeof(*build));
	build->classifier = classifier;
	build->count = count;
	build->line = calloc(count + 1UL, sizeof(*build->line));
	build->bits = malloc((count + 1UL) * sizeof(*build->bits));
	build->chosen = malloc(count + 1UL);
	return build->line && build->bits && build->chosen ? 0 : -ENOMEM;
}

static void build_free(struct build *build)
{
	free(build->line);
	free(build->bits);
	free(build->chosen);
}

static void retire_region(struct vnet_classifier *classifier, struct vnet_subtable *subtable)
{
	if ((__u32)subtable->region)
		vnet_blocks_retire(&classifier->blocks, (__u32)subtable->region,
				   VNET_SUBTABLE_BITS(subtable->region));
}

void vnet_set_retire(struct vnet_classifier *classifier, __u32 root)
{
	struct vnet_set set = vnet_at(classifier, root)->set;

	for (__u32 i = 0; set.subtables && i < set.used; i++)
		retire_region(classifier, vnet_subtable_of(classifier, &set, i));
	if (set.subtables)
		vnet_blocks_retire(&classifier->blocks, set.subtables, set.capacity + 1U);
	if (set.filter)
		vnet_blocks_retire(&classifier->blocks, set.filter,
				   vnet_block_order(vnet_filter_lines(&set)));
	vnet_blocks_retire(&classifier->blocks, root, 0);
}

struct top {
	__u64 order;
	__u32 choice;
};

static int by_top(const void *a, const void *b)
{
	const struct top *x = a, *y = b;

	return x->order < y->order ? 1 : x->order > y->order ? -1 : 0;
}

/* The subtables with the highest rules come first: the others are seldom visited then. */
static void sort_choices(struct build *build)
{
	struct top top[VNET_MAX_SUBTABLES] = {0};
	struct vnet_choice choices[VNET_MAX_SUBTABLES];
	__u8 place[VNET_MAX_SUBTABLES];
	__u64 order;

	for (int i = 0; i < build->masks; i++)
		top[i].choice = i;
	for (__u32 i = 0; i < build->count; i++) {
		order = vnet_at(build->classifier, build->line[i])->entry.order;
		if (order > top[build->chosen[i]].order)
			top[build->chosen[i]].order = order;
	}
	qsort(top, build->masks, sizeof(*top), by_top);
	for (int i = 0; i < build->masks; i++) {
		place[top[i].choice] = i;
		choices[i] = build->choices[top[i].choice];
	}
	memcpy(build->choices, choices, build->masks * sizeof(*choices));
	for (__u32 i = 0; i < build->count; i++)
		build->chosen[i] = place[build->chosen[i]];
}

static int make_subtables(struct build *build, struct vnet_set *set)
{
	struct vnet_classifier *classifier = build->classifier;
	struct vnet_subtable *subtable;
	int error;

	set->capacity = vnet_block_order(build->masks + 1);
	set->subtables = vnet_blocks_take(&classifier->blocks, set->capacity + 1U);
	if (!set->subtables)
		return -ENOMEM;
	memset(vnet_at(classifier, set->subtables), 0, sizeof(union vnet_line) * 2 << set->capacity);
	for (int i = 0; i < build->masks; i++) {
		subtable = vnet_subtable_of(classifier, set, i);
		vnet_subtable_init(subtable, &build->choices[i].mask);
		vnet_wide_of(subtable)->limit = build->choices[i].limit;
		set->used++;
		error = vnet_subtable_reserve(classifier, subtable, build->choices[i].rules);
		if (error)
			return error;
		set->present |= 1ULL << i;
	}
	return 0;
}

/* The new set, from lines and bits; nobody sees it yet. */
static int build_set(struct build *build, __u32 miss, __u32 generation)
{
	struct vnet_classifier *classifier = build->classifier;
	struct vnet_subtable *subtable;
	struct vnet_set *set;
	__u64 hash;
	int error;

	build->masks =
		vnet_choose_masks(build->bits, build->count, build->choices, build->chosen);
	if (build->masks < 0)
		return build->masks;
	build->root = vnet_blocks_take(&classifier->blocks, 0);
	if (!build->root)
		return -ENOMEM;
	set = &vnet_at(classifier, build->root)->set;
	*set = (struct vnet_set){
		.miss = miss,
		.generation = generation,
		.rules = build->count,
		.sequence = build->count,
	};
	sort_choices(build);
	error = make_subtables(build, set);
	for (__u32 i = 0; !error && i < build->count; i++) {
		subtable = vnet_subtable_of(classifier, set, build->chosen[i]);
		hash = vnet_subtable_hash(classifier, subtable, &build->bits[i].value);
		error = vnet_subtable_add(classifier, subtable, hash, build->line[i]);
	}
	return error ? error : vnet_filter_make(classifier, set);
}

/* Entries say where they are only when that is true: a rebuild that fails changes nothing. */
static void publish(struct build *build, __u32 set)
{
	for (__u32 i = 0; i < build->count; i++)
		vnet_at(build->classifier, build->line[i])->entry.subtable = build->chosen[i];
	vnet_publish(*vnet_root(build->classifier, set), build->root);
}

static void give_entries(struct build *build)
{
	for (__u32 i = 0; i < build->count && build->line[i]; i++)
		vnet_blocks_give(&build->classifier->blocks, build->line[i],
				 vnet_entry_block(&vnet_at(build->classifier,
							   build->line[i])->entry));
}

static void retire_entry(__u32 line, void *arg)
{
	struct vnet_classifier *classifier = arg;

	vnet_blocks_retire(&classifier->blocks, line,
			   vnet_entry_block(&vnet_at(classifier, line)->entry));
}

static void retire_all(struct vnet_classifier *classifier, __u32 root)
{
	struct vnet_set *set = &vnet_at(classifier, root)->set;

	for (__u32 i = 0; i < set->used; i++)
		vnet_subtable_visit(classifier, vnet_subtable_of(classifier, set, i), retire_entry,
				    classifier);
	vnet_set_retire(classifier, root);
}

static int write_entries(struct build *build, const struct vnet_match *matches)
{
	int error;

	for (__u32 i = 0; i < build->count; i++) {
		error = vnet_match_check(&matches[i]);
		if (error)
			return error;
		build->line[i] = vnet_entry_write(build->classifier, &matches[i], i);
		if (!build->line[i])
			return -ENOMEM;
		vnet_match_bits(&matches[i], &build->bits[i]);
	}
	return 0;
}

int vnet_classifier_replace(struct vnet_classifier *classifier, __u32 set,
			    const struct vnet_match *matches, __u32 count, __u32 miss,
			    __u32 *entries)
{
	__u32 old, generation;
	struct build build;
	int error;

	if (set >= vnet_at(classifier, 0)->head.sets)
		return -EINVAL;
	if (count >= classifier->image.lines)
		return -ENOMEM;
	old = *vnet_root(classifier, set);
	generation = old ? vnet_at(classifier, old)->set.generation + 1 : 1;
	error = build_init(&build, classifier, count);
	if (!error)
		error = write_entries(&build, matches);
	if (!error)
		error = build_set(&build, miss, generation);
	if (error) {
		if (build.root)
			vnet_set_retire(classifier, build.root);
		if (build.line)
			give_entries(&build);
		build_free(&build);
		return error;
	}
	publish(&build, set);
	if (entries)
		memcpy(entries, build.line, count * sizeof(*entries));
	if (old)
		retire_all(classifier, old);
	build_free(&build);
	return 0;
}

int vnet_classifier_remove(struct vnet_classifier *classifier, __u32 set)
{
	__u32 old;

	if (!vnet_set_of(classifier, set))
		return -EINVAL;
	old = *vnet_root(classifier, set);
	vnet_publish(*vnet_root(classifier, set), 0);
	retire_all(classifier, old);
	return 0;
}

static void collect(__u32 line, void *arg)
{
	struct build *build = arg;

	build->line[build->at] = line;
	vnet_entry_bits(build->classifier, line, &build->bits[build->at++]);
}

int vnet_classifier_rebuild(struct vnet_classifier *classifier, __u32 set)
{
	struct vnet_set *old = vnet_set_of(classifier, set);
	__u32 root, sequence;
	struct build build;
	int error;

	if (!old)
		return -EINVAL;
	root = *vnet_root(classifier, set);
	sequence = old->sequence;
	error = build_init(&build, classifier, old->rules);
	for (__u32 i = 0; !error && i < old->used; i++)
		vnet_subtable_visit(classifier, vnet_subtable_of(classifier, old, i), collect,
				    &build);
	if (!error)
		error = build_set(&build, old->miss, old->generation);
	if (error) {
		if (build.root)
			vnet_set_retire(classifier, build.root);
		build_free(&build);
		return error;
	}
	vnet_at(classifier, build.root)->set.sequence = sequence;
	publish(&build, set);
	vnet_set_retire(classifier, root);
	build_free(&build);
	return 0;
}
