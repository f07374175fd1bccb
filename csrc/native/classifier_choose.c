/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which subtables a set gets, when all of its rules are known. A weighted set cover, greedily: the
 * mask is taken that serves the most rules for what it will cost each look-up, then the next for
 * the rules that are left. A mask serves a rule if it is within the rule's own and if not too many
 * others share its bits of value.
 */
#include <stdlib.h>

#include "classifier_cover.h"

static int by_bound(const void *a, const void *b)
{
	const struct vnet_candidate *x = a, *y = b;

	if (x->bound != y->bound)
		return x->bound < y->bound ? 1 : -1;
	return x->index < y->index ? -1 : 1;
}

/* No candidate's score is above what it could serve at no cost but a probe's. */
static double upper_bound(const struct vnet_cover *cover, const struct vnet_candidate *candidate)
{
	double sum = 0;

	for (__u32 i = 0; i < cover->shapes.count; i++)
		if (cover->shape_left[i] && vnet_cover_is_eligible(cover, candidate->index, i))
			sum += cover->shape_left[i];
	sum /= VNET_PROBE_COST;
	return sum < candidate->score ? sum : candidate->score;
}

/* The best candidate now, or NULL when none serves any rule. */
static struct vnet_candidate *find_best(struct vnet_cover *cover)
{
	struct vnet_candidate *best = NULL, *candidate;

	for (__u32 i = 0; i < cover->candidates.count; i++)
		cover->queue[i].bound = upper_bound(cover, &cover->queue[i]);
	qsort(cover->queue, cover->candidates.count, sizeof(*cover->queue), by_bound);
	for (__u32 i = 0; i < cover->candidates.count; i++) {
		candidate = &cover->queue[i];
		if (best && candidate->bound <= best->score)
			break;
		vnet_cover_evaluate(cover, candidate);
		if (candidate->served && (!best || candidate->score > best->score))
			best = candidate;
	}
	return best;
}

/* The place of a mask among the choices, which it may have been before, for smaller groups. */
static __u32 place_choice(struct vnet_choice *choices, __u32 count,
			  const struct vnet_fields *mask)
{
	for (__u32 i = 0; i < count; i++)
		if (!memcmp(&choices[i].mask, mask, sizeof(*mask)))
			return i;
	choices[count] = (struct vnet_choice){.mask = *mask};
	return count;
}

/* What no mask serves, or is left when there are no more subtables, shares one. */
static __u32 choose_rest(struct vnet_cover *cover, struct vnet_choice *choices, __u32 count)
{
	const struct vnet_fields nothing = {0};
	__u32 left = 0, place = 0;

	for (__u32 i = 0; i < cover->rules; i++)
		left += cover->chosen[i] == VNET_NO_CHOICE;
	if (!left)
		return count;
	place = place_choice(choices, count, &nothing);
	for (__u32 i = 0; i < cover->rules; i++)
		if (cover->chosen[i] == VNET_NO_CHOICE)
			cover->chosen[i] = place;
	choices[place].rules += left;
	choices[place].limit = left;
	return place == count ? count + 1 : count;
}

static __u32 choose(struct vnet_cover *cover, struct vnet_choice *choices)
{
	__u32 left = cover->rules, count = 0, place;
	struct vnet_candidate *best;

	while (left && count < VNET_MAX_SUBTABLES - 1) {
		best = find_best(cover);
		if (!best)
			break;
		place = place_choice(choices, count, &cover->candidates.mask[best->index]);
		choices[place].rules += best->served;
		if (best->limit > choices[place].limit)
			choices[place].limit = best->limit;
		left -= best->served;
		vnet_cover_serve(cover, best, place);
		count += place == count;
	}
	return choose_rest(cover, choices, count);
}

int vnet_choose_masks(const struct vnet_bits *bits, __u32 count, struct vnet_choice *choices,
		      __u8 *chosen)
{
	struct vnet_cover cover = {.bits = bits, .rules = count, .chosen = chosen};
	int result;

	memset(chosen, VNET_NO_CHOICE, count);
	if (count <= VNET_BUCKET_SLOTS) /* one bucket, at once */
		return choose_rest(&cover, choices, 0);
	result = vnet_cover_init(&cover);
	if (!result)
		result = choose(&cover, choices);
	if (result > 0 && vnet_cover_finish(&cover))
		result = -ENOMEM;
	vnet_cover_free(&cover);
	return result;
}
