/* SPDX-License-Identifier: Apache-2.0 */
/* What of a set changes as rules come and go: subtables are added, the filter is made anew. */
#include "classifier_internal.h"

/* A copy of the set's own line, to be changed and published. */
static struct vnet_set *copy_set(struct vnet_classifier *classifier, const struct vnet_set *old,
				 __u32 *root)
{
	*root = vnet_blocks_take(&classifier->blocks, 0);
	if (!*root)
		return NULL;
	vnet_at(classifier, *root)->set = *old;
	return &vnet_at(classifier, *root)->set;
}

void vnet_set_renew_filter(struct vnet_classifier *classifier, __u32 set)
{
	struct vnet_set *old = vnet_set_of(classifier, set), *new;
	__u32 root, old_root = *vnet_root(classifier, set);

	new = copy_set(classifier, old, &root);
	if (!new)
		return;
	if (vnet_filter_make(classifier, new)) {
		vnet_blocks_give(&classifier->blocks, root, 0);
		old->removed = 0; /* not again at once */
		return;
	}
	vnet_publish(*vnet_root(classifier, set), root);
	if (old->filter)
		vnet_blocks_retire(&classifier->blocks, old->filter,
				   vnet_block_order(vnet_filter_lines(old)));
	vnet_blocks_retire(&classifier->blocks, old_root, 0);
}

/* An index that no reader of the set to come will take for a subtable yet. */
static __u32 free_index(const struct vnet_set *set)
{
	for (__u32 i = 0; i < set->used; i++)
		if (!(set->present >> i & 1))
			return i;
	return set->used;
}

/* The set once more, with a subtable at `index` that holds nothing; *root 0: none was made. */
static int copy_with_subtable(struct vnet_classifier *classifier, const struct vnet_set *old,
			      __u32 index, const struct vnet_fields *mask, __u32 *root)
{
	struct vnet_set *new = copy_set(classifier, old, root);
	struct vnet_subtable *subtable;

	if (!new)
		return -ENOMEM;
	new->capacity += index == 1U << old->capacity;
	new->used += index == old->used;
	new->subtables = vnet_blocks_take(&classifier->blocks, new->capacity + 1U);
	if (!new->subtables)
		return -ENOMEM;
	memset(vnet_at(classifier, new->subtables), 0,
	       sizeof(union vnet_line) * 2 << new->capacity);
	memcpy(vnet_at(classifier, new->subtables), vnet_at(classifier, old->subtables),
	       sizeof(union vnet_line) * 2 << old->capacity);
	subtable = vnet_subtable_of(classifier, new, index);
	vnet_subtable_init(subtable, mask);
	vnet_wide_of(subtable)->limit = VNET_GROUP_GOAL;
	return vnet_subtable_reserve(classifier, subtable, 1);
}

/* A new subtable, not yet present. Its index, or -errno. */
static int add_subtable(struct vnet_classifier *classifier, __u32 set,
			const struct vnet_fields *mask)
{
	__u32 root, old_root = *vnet_root(classifier, set);
	struct vnet_set *old = &vnet_at(classifier, old_root)->set, *new;
	__u32 index = free_index(old);
	struct vnet_blocks *blocks = &classifier->blocks;
	__u64 region = 0;
	int error = copy_with_subtable(classifier, old, index, mask, &root);

	new = &vnet_at(classifier, root)->set;
	if (error) {
		if (root && new->subtables)
			vnet_blocks_give(blocks, new->subtables, new->capacity + 1U);
		if (root)
			vnet_blocks_give(blocks, root, 0);
		return error;
	}
	if (index < old->used)
		region = vnet_subtable_of(classifier, old, index)->region;
	vnet_publish(*vnet_root(classifier, set), root);
	if ((__u32)region)
		vnet_blocks_retire(blocks, (__u32)region, VNET_SUBTABLE_BITS(region));
	vnet_blocks_retire(blocks, old->subtables, old->capacity + 1U);
	vnet_blocks_retire(blocks, old_root, 0);
	return index;
}

static int has_mask(struct vnet_classifier *classifier, const struct vnet_set *set,
		    const struct vnet_fields *mask)
{
	struct vnet_fields other;

	for (__u32 i = 0; i < set->used; i++) {
		vnet_subtable_mask(vnet_subtable_of(classifier, set, i), &other);
		if (!memcmp(&other, mask, sizeof(other)))
			return 1;
	}
	return 0;
}

/*
 * A mask for a rule that no subtable has room for: the least exact one that is not there yet. The
 * last subtable of a set takes everything.
 */
static int new_mask(struct vnet_classifier *classifier, const struct vnet_set *set,
		    const struct vnet_fields *whole, struct vnet_fields *mask)
{
	int present = __builtin_popcountll(set->present);

	if (present == VNET_MAX_SUBTABLES)
		return 0;
	if (present == VNET_MAX_SUBTABLES - 1) {
		memset(mask, 0, sizeof(*mask));
		return !has_mask(classifier, set, mask);
	}
	for (int step = 0; step < VNET_RELAX_STEPS; step++) {
		vnet_relax_mask(whole, step, mask);
		if (!has_mask(classifier, set, mask))
			return 1;
	}
	return 0;
}

int vnet_set_find_subtable(struct vnet_classifier *classifier, __u32 set,
			   const struct vnet_bits *bits)
{
	struct vnet_set *into = vnet_set_of(classifier, set);
	__u32 best = VNET_MAX_SUBTABLES, group, least = ~0U;
	struct vnet_subtable *subtable;
	struct vnet_fields mask;

	for (__u32 i = 0; i < into->used; i++) {
		subtable = vnet_subtable_of(classifier, into, i);
		vnet_subtable_mask(subtable, &mask);
		if (!vnet_within(&mask, &bits->mask))
			continue;
		group = vnet_subtable_group(classifier, subtable,
					    vnet_subtable_hash(classifier, subtable, &bits->value),
					    least);
		if (group < vnet_wide_of(subtable)->limit)
			return i;
		if (group < least) {
			least = group;
			best = i;
		}
	}
	if (least < VNET_GROUP_GOAL)
		return best;
	if (new_mask(classifier, into, &bits->mask, &mask))
		return add_subtable(classifier, set, &mask);
	return best < VNET_MAX_SUBTABLES ? (int)best : -E2BIG;
}
