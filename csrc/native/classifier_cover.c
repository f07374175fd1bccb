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

/* Rules' shapes and, by those, their places. */
static int find_shapes(struct vnet_cover *cover)
{
	__u16 *shape = malloc(cover->rules * sizeof(*shape));
	struct vnet_fields floor, nothing = {0};
	__u32 index, end = 0;

	if (!shape)
		return -ENOMEM;
	masks_find(&cover->shapes, &nothing);
	for (__u32 i = 0; i < cover->rules; i++) {
		vnet_lattice_floor(&cover->bits[i].mask, &floor);
		index = masks_find(&cover->shapes, &floor);
		/* Too many kinds: it will be found with what has no bits to hash. */
		shape[i] = index < cover->shapes.most ? index : 0;
		cover->shape_left[shape[i]]++;
	}
	for (__u32 i = 0; i < cover->shapes.count; i++) {
		cover->first[i] = end;
		end += cover->shape_left[i];
	}
	for (__u32 i = 0; i < cover->rules; i++)
		cover->rule[cover->first[shape[i]]++] = i;
	/* Each is now where the next one begins. */
	memmove(cover->first + 1, cover->first, cover->shapes.count * sizeof(*cover->first));
	cover->first[0] = 0;
	free(shape);
	return 0;
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
			cover->column[word][i] = cover->bits[cover->rule[i]].value.word[word];
	}
	return 0;
}

int vnet_cover_init(struct vnet_cover *cover)
{
	__u32 groups = 4U << vnet_block_order(cover->rules);

	cover->group_mask = groups - 1;
	cover->group = malloc(groups * sizeof(*cover->group));
	cover->at = malloc(cover->rules * sizeof(*cover->at));
	cover->rule = malloc(cover->rules * sizeof(*cover->rule));
	cover->first = calloc(VNET_MOST_SHAPES + 1, sizeof(*cover->first));
	cover->shape_left = calloc(VNET_MOST_SHAPES, sizeof(*cover->shape_left));
	if (!cover->group || !cover->at || !cover->rule || !cover->first || !cover->shape_left ||
	    masks_init(&cover->shapes, VNET_MOST_SHAPES) ||
	    masks_init(&cover->candidates, VNET_MOST_CANDIDATES) || find_shapes(cover) ||
	    make_columns(cover))
		return -ENOMEM;
	return find_candidates(cover);
}

void vnet_cover_free(struct vnet_cover *cover)
{
	for (int word = 0; word < VNET_WORDS; word++)
		free(cover->column[word]);
	free(cover->group);
	free(cover->at);
	free(cover->rule);
	free(cover->first);
	free(cover->shape_left);
	free(cover->eligible);
	free(cover->queue);
	masks_free(&cover->shapes);
	masks_free(&cover->candidates);
}

/* The words that a candidate hashes. */
struct view {
	__u32 words;
	const __u64 *column[VNET_WORDS];
	__u64 mask[VNET_WORDS];
	__u64 factor[VNET_WORDS];
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
}

/* Which groups places are in; word by word, since that is a loop without another in it. */
static void find_groups(struct vnet_cover *cover, const struct view *view, __u32 first, __u32 end)
{
	enum { PIECE = 256 };
	__u64 hash[PIECE];

	for (; first < end; first += PIECE) {
		__u32 count = end - first < PIECE ? end - first : PIECE;

		memset(hash, 0, count * sizeof(*hash));
		for (__u32 word = 0; word < view->words; word++) {
			const __u64 *value = view->column[word] + first;
			__u64 mask = view->mask[word], factor = view->factor[word];

			for (__u32 i = 0; i < count; i++)
				hash[i] += (value[i] & mask) * factor;
		}
		for (__u32 i = 0; i < count; i++)
			cover->at[first + i] = ((hash[i] ^ hash[i] >> 32) * factors[0] >> 32) &
					       cover->group_mask;
	}
}

/* Of all the shapes that a candidate can serve. */
static void count_groups(struct vnet_cover *cover, __u32 candidate)
{
	struct view view;
	__u16 *group;

	make_view(cover, candidate, &view);
	memset(cover->group, 0, (cover->group_mask + 1UL) * sizeof(*cover->group));
	for (__u32 shape = 0; shape < cover->shapes.count; shape++) {
		if (!vnet_cover_is_eligible(cover, candidate, shape))
			continue;
		find_groups(cover, &view, cover->first[shape], cover->first[shape + 1]);
		if (!cover->shape_left[shape])
			continue;
		for (__u32 i = cover->first[shape]; i < cover->first[shape + 1]; i++) {
			group = &cover->group[cover->at[i]];
			*group += cover->chosen[i] == VNET_NO_CHOICE && *group != 0xffff;
		}
	}
}

/* What the rules of a candidate's groups would look at, by the size of the group. */
struct tally {
	__u64 looked_at[VNET_GROUP_CLASSES];
	__u32 served[VNET_GROUP_CLASSES];
};

static void tally_groups(const struct vnet_cover *cover, __u32 candidate, struct tally *tally)
{
	__u32 class, group;

	*tally = (struct tally){0};
	for (__u32 shape = 0; shape < cover->shapes.count; shape++) {
		if (!vnet_cover_is_eligible(cover, candidate, shape))
			continue;
		for (__u32 i = cover->first[shape]; i < cover->first[shape + 1]; i++) {
			group = cover->group[cover->at[i]];
			class = vnet_block_order(group);
			tally->looked_at[class] += group;
			tally->served[class] += cover->chosen[i] == VNET_NO_CHOICE;
		}
	}
}

/* A frame is thought to match each rule as often as any other. */
void vnet_cover_evaluate(struct vnet_cover *cover, struct vnet_candidate *candidate)
{
	__u64 looks = 0;
	__u32 serves = 0;
	struct tally tally;
	double score;

	count_groups(cover, candidate->index);
	tally_groups(cover, candidate->index, &tally);
	candidate->served = 0;
	candidate->score = 0;
	for (__u32 class = 0; class < VNET_GROUP_CLASSES; class++) {
		looks += tally.looked_at[class];
		serves += tally.served[class];
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
	count_groups(cover, candidate->index);
	for (__u32 shape = 0; shape < cover->shapes.count; shape++) {
		if (!vnet_cover_is_eligible(cover, candidate->index, shape))
			continue;
		for (__u32 i = cover->first[shape]; i < cover->first[shape + 1]; i++) {
			if (cover->chosen[i] != VNET_NO_CHOICE ||
			    cover->group[cover->at[i]] > candidate->limit)
				continue;
			cover->chosen[i] = choice;
			cover->shape_left[shape]--;
		}
	}
}

int vnet_cover_finish(struct vnet_cover *cover)
{
	__u8 *chosen = malloc(cover->rules);

	if (!chosen)
		return -ENOMEM;
	memcpy(chosen, cover->chosen, cover->rules);
	for (__u32 i = 0; i < cover->rules; i++)
		cover->chosen[cover->rule[i]] = chosen[i];
	free(chosen);
	return 0;
}
