/* SPDX-License-Identifier: Apache-2.0 */
#include "classifier_cover.h"

#include <stdlib.h>

#include "classifier_relax.h"

static const __u64 factors[VNET_WORDS] = {
	0x9e3779b97f4a7c15ULL, 0xbf58476d1ce4e5b9ULL, 0x94d049bb133111ebULL, 0xd6e8feb86659fd93ULL,
	0xc2b2ae3d27d4eb4fULL, 0x165667b19e3779f9ULL, 0xff51afd7ed558ccdULL, 0xc4ceb9fe1a85ec53ULL,
	0x2545f4914f6cdd1dULL, 0xa0761d6478bd642fULL, 0xe7037ed1a0b428dbULL};

static int masks_init(struct vnet_masks *masks, __u32 most)
{
	masks->most = most;
	masks->mask = malloc(most * sizeof(*masks->mask));
	masks->slot = calloc(2 * (size_t)most, sizeof(*masks->slot));
	return masks->mask && masks->slot ? 0 : -ENOMEM;
}

static void masks_free(struct vnet_masks *masks)
{
	free(masks->mask);
	free(masks->slot);
}

/* The index of a mask, added if need be; `most` when there is no room. */
static __u32 masks_find(struct vnet_masks *masks, const struct vnet_fields *mask)
{
	__u32 at, end = 2 * masks->most;
	__u64 hash = 0;

	for (int i = 0; i < VNET_WORDS; i++)
		hash += mask->word[i] * factors[i];
	at = (vnet_hash_finish(hash) >> 32) % end;
	for (; masks->slot[at]; at = at + 1 == end ? 0 : at + 1)
		if (!memcmp(&masks->mask[masks->slot[at] - 1], mask, sizeof(*mask)))
			return masks->slot[at] - 1;
	if (masks->count == masks->most)
		return masks->most;
	masks->mask[masks->count] = *mask;
	masks->slot[at] = ++masks->count;
	return masks->count - 1;
}

static void find_shapes(struct vnet_cover *cover)
{
	struct vnet_fields shape, nothing = {0};
	__u32 index;

	masks_find(&cover->shapes, &nothing);
	for (__u32 i = 0; i < cover->rules; i++) {
		vnet_lattice_floor(&cover->bits[i].mask, &shape);
		index = masks_find(&cover->shapes, &shape);
		/* Too many kinds: it will be found with what has no bits to hash. */
		cover->shape[i] = index < cover->shapes.most ? index : 0;
		cover->shape_left[cover->shape[i]]++;
	}
}

static void add_candidates(struct vnet_cover *cover, const struct vnet_fields *shape)
{
	__u8 source[VNET_LATTICE_LENGTHS], destination[VNET_LATTICE_LENGTHS];
	__u32 sources = vnet_lattice_lengths(&shape->word[VNET_WORD_SOURCE_HIGH], source);
	__u32 destinations =
		vnet_lattice_lengths(&shape->word[VNET_WORD_DESTINATION_HIGH], destination);
	struct vnet_lattice point;
	struct vnet_fields mask;

	for (__u32 s = 0; s < sources; s++)
		for (__u32 d = 0; d < destinations; d++)
			for (__u32 flags = 0; flags < VNET_LATTICE_FLAGS; flags++) {
				point = (struct vnet_lattice){source[s], destination[d], flags};
				vnet_lattice_mask(shape, &point, &mask);
				masks_find(&cover->candidates, &mask);
			}
}

int vnet_cover_is_eligible(const struct vnet_cover *cover, __u32 candidate, __u32 shape)
{
	return cover->eligible[(size_t)candidate * cover->eligible_words + shape / 64] >>
		       shape % 64 & 1;
}

static int find_candidates(struct vnet_cover *cover)
{
	struct vnet_candidate *candidate;

	for (__u32 i = 0; i < cover->shapes.count; i++)
		add_candidates(cover, &cover->shapes.mask[i]);
	cover->eligible_words = (cover->shapes.count + 63) / 64;
	cover->eligible = calloc((size_t)cover->candidates.count * cover->eligible_words, 8);
	cover->queue = calloc(cover->candidates.count, sizeof(*cover->queue));
	if (!cover->eligible || !cover->queue)
		return -ENOMEM;
	for (__u32 i = 0; i < cover->candidates.count; i++) {
		candidate = &cover->queue[i];
		candidate->index = i;
		candidate->score = cover->rules;
		for (__u32 j = 0; j < cover->shapes.count; j++)
			if (vnet_within(&cover->candidates.mask[i], &cover->shapes.mask[j]))
				cover->eligible[(size_t)i * cover->eligible_words + j / 64] |=
					1ULL << j % 64;
	}
	return 0;
}

/* The values once more, so that a pass over one word of all rules is a pass over memory. */
static int make_columns(struct vnet_cover *cover)
{
	struct vnet_fields any = {0};

	for (__u32 i = 0; i < cover->rules; i++)
		for (int word = 0; word < VNET_WORDS; word++)
			any.word[word] |= cover->bits[i].mask.word[word];
	for (int word = 0; word < VNET_WORDS; word++) {
		if (!any.word[word])
			continue;
		cover->column[word] = malloc(cover->rules * sizeof(__u64));
		if (!cover->column[word])
			return -ENOMEM;
		for (__u32 i = 0; i < cover->rules; i++)
			cover->column[word][i] = cover->bits[i].value.word[word];
	}
	return 0;
}

int vnet_cover_init(struct vnet_cover *cover)
{
	__u32 groups = 4U << vnet_block_order(cover->rules);

	cover->group_mask = groups - 1;
	cover->group = malloc(groups * sizeof(*cover->group));
	cover->shape = malloc(cover->rules * sizeof(*cover->shape));
	cover->shape_left = calloc(VNET_MOST_SHAPES, sizeof(*cover->shape_left));
	if (!cover->group || !cover->shape || !cover->shape_left ||
	    masks_init(&cover->shapes, VNET_MOST_SHAPES) ||
	    masks_init(&cover->candidates, VNET_MOST_CANDIDATES) || make_columns(cover))
		return -ENOMEM;
	find_shapes(cover);
	return find_candidates(cover);
}

void vnet_cover_free(struct vnet_cover *cover)
{
	for (int word = 0; word < VNET_WORDS; word++)
		free(cover->column[word]);
	free(cover->group);
	free(cover->shape);
	free(cover->shape_left);
	free(cover->eligible);
	free(cover->queue);
	masks_free(&cover->shapes);
	masks_free(&cover->candidates);
}

/* The words that a candidate hashes, and the shapes that it can serve. */
struct view {
	__u32 words;
	const __u64 *column[VNET_WORDS];
	__u64 mask[VNET_WORDS];
	__u64 factor[VNET_WORDS];
	__u8 eligible[VNET_MOST_SHAPES];
};

static void make_view(const struct vnet_cover *cover, __u32 candidate, struct view *view)
{
	const struct vnet_fields *mask = &cover->candidates.mask[candidate];

	view->words = 0;
	for (int i = 0; i < VNET_WORDS; i++) {
		if (!mask->word[i])
			continue;
		view->column[view->words] = cover->column[i];
		view->mask[view->words] = mask->word[i];
		view->factor[view->words++] = factors[i];
	}
	for (__u32 i = 0; i < cover->shapes.count; i++)
		view->eligible[i] = vnet_cover_is_eligible(cover, candidate, i);
}

static __u16 *group_of(const struct vnet_cover *cover, const struct view *view, __u32 rule)
{
	__u64 hash = 0;

	for (__u32 i = 0; i < view->words; i++)
		hash += (view->column[i][rule] & view->mask[i]) * view->factor[i];
	hash ^= hash >> 32;
	return &cover->group[(hash * factors[0] >> 32) & cover->group_mask];
}

static void count_groups(struct vnet_cover *cover, const struct view *view)
{
	__u16 *group;

	memset(cover->group, 0, (cover->group_mask + 1UL) * sizeof(*cover->group));
	for (__u32 i = 0; i < cover->rules; i++) {
		if (cover->chosen[i] != VNET_NO_CHOICE || !view->eligible[cover->shape[i]])
			continue;
		group = group_of(cover, view, i);
		*group += *group != 0xffff;
	}
}

/* A frame is thought to match each rule as often as any other. */
void vnet_cover_evaluate(struct vnet_cover *cover, struct vnet_candidate *candidate)
{
	__u64 looked_at[VNET_GROUP_CLASSES] = {0}, looks = 0;
	__u32 served[VNET_GROUP_CLASSES] = {0}, serves = 0, class, group;
	struct view view;
	double score;

	make_view(cover, candidate->index, &view);
	count_groups(cover, &view);
	for (__u32 i = 0; i < cover->rules; i++) {
		if (!view.eligible[cover->shape[i]])
			continue;
		group = *group_of(cover, &view, i);
		class = vnet_block_order(group);
		looked_at[class] += group;
		served[class] += cover->chosen[i] == VNET_NO_CHOICE;
	}
	candidate->served = 0;
	candidate->score = 0;
	for (class = 0; class < VNET_GROUP_CLASSES; class++) {
		looks += looked_at[class];
		serves += served[class];
		score = serves / (VNET_PROBE_COST + VNET_RULE_COST * (double)looks / cover->rules +
				  VNET_WORST_RULE_COST * (1U << class));
		if (score <= candidate->score)
			continue;
		candidate->score = score;
		candidate->served = serves;
		candidate->limit = 1U << class;
	}
}

void vnet_cover_serve(struct vnet_cover *cover, const struct vnet_candidate *candidate,
		      __u32 choice)
{
	struct view view;

	make_view(cover, candidate->index, &view);
	count_groups(cover, &view);
	for (__u32 i = 0; i < cover->rules; i++) {
		if (cover->chosen[i] != VNET_NO_CHOICE || !view.eligible[cover->shape[i]] ||
		    *group_of(cover, &view, i) > candidate->limit)
			continue;
		cover->chosen[i] = choice;
		cover->shape_left[cover->shape[i]]--;
	}
}
