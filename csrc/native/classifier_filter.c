/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter of a set: which subtables can hold a match. Bits are only added while rules come and
 * go; the filter is made anew when enough rules have gone (classifier.c).
 */
#include <stdlib.h>

#include "classifier_internal.h"

/* A set with less of either is looked up faster without. */
#define LEAST_SUBTABLES 4
#define LEAST_RULES 128

enum { LEAST_BITS = 7, MOST_BITS = 12, LENGTHS = 65 };

static const __u64 transport_levels[] = VNET_FILTER_TRANSPORT;

/* The mask of the first `length` bits of eight bytes in network order. */
static __u64 prefix_mask(__u32 length)
{
	return length ? __builtin_bswap64(~0ULL << (64 - length)) : 0;
}

static __u32 prefix_length(__u64 mask)
{
	__u64 leading = __builtin_bswap64(~mask);

	return leading ? (__u32)__builtin_clzll(leading) : 64;
}

struct survey {
	struct vnet_classifier *classifier;
	__u32 source[2][LENGTHS]; /* rules by prefix length, of the lower and the upper half */
	__u32 destination[2][LENGTHS];
};

static void survey_rule(__u32 line, void *arg)
{
	struct survey *survey = arg;
	struct vnet_match match;

	vnet_entry_read(survey->classifier, line, &match);
	survey->source[0][prefix_length(match.mask.word[VNET_WORD_SOURCE])]++;
	survey->source[1][prefix_length(match.mask.word[VNET_WORD_SOURCE_HIGH])]++;
	survey->destination[0][prefix_length(match.mask.word[VNET_WORD_DESTINATION])]++;
	survey->destination[1][prefix_length(match.mask.word[VNET_WORD_DESTINATION_HIGH])]++;
}

/*
 * The three levels that take the most bits of the rules' prefixes, the longest first; those not
 * needed stay 0. `constant`: leading bits that say nothing, ::ffff of IPv4.
 */
static void choose_levels(const __u32 *rules, __u32 constant, __u64 *masks)
{
	__u32 best[VNET_FILTER_LEVELS] = {0};
	__u64 longer[LENGTHS + 1] = {0}, taken, most = 0;

	for (__u32 i = LENGTHS; i-- > constant;)
		longer[i] = longer[i + 1] + rules[i];
	for (__u32 a = constant + 1; a < LENGTHS; a++)
		for (__u32 b = constant; b <= a; b++)
			for (__u32 c = constant; c <= b; c++) {
				taken = (a - constant) * longer[a] +
					(b - constant) * (longer[b] - longer[a]) +
					(c - constant) * (longer[c] - longer[b]);
				if (taken <= most)
					continue;
				most = taken;
				best[0] = a;
				best[1] = b;
				best[2] = c;
			}
	for (int i = 0; i < VNET_FILTER_LEVELS; i++)
		if (best[i] > constant && (!i || best[i] < best[i - 1]))
			masks[i] = prefix_mask(best[i]);
}

__u32 vnet_filter_lines(const struct vnet_set *set)
{
	__u32 levels = VNET_FILTER_GROUPS * VNET_FILTER_LEVELS;

	return set->filter ? 1 + (levels << (set->filter_bits - 3)) : 0;
}

static void set_bit(__u64 *word, __u64 bit)
{
	if (!(*word & bit))
		vnet_publish(*word, *word | bit);
}

struct add {
	struct vnet_classifier *classifier;
	struct vnet_set *set;
	__u64 bit;
};

static void add_group(const struct add *add, __u32 group, const __u64 *levels, __u64 value,
		      __u64 mask)
{
	const struct vnet_set *set = add->set;
	__u32 index, line;

	for (__u32 i = 0; i < VNET_FILTER_LEVELS; i++) {
		if (!levels[i] || levels[i] & ~mask)
			continue;
		index = vnet_filter_index(&vnet_at(add->classifier, 0)->head, value & levels[i],
					  set->filter_bits);
		line = set->filter + 1 +
		       ((group * VNET_FILTER_LEVELS + i) << (set->filter_bits - 3)) + (index >> 3);
		set_bit(&vnet_at(add->classifier, line)->word[index & 7], add->bit);
		return;
	}
	set_bit(&add->set->always[group], add->bit);
}

void vnet_filter_add(struct vnet_classifier *classifier, struct vnet_set *set,
		     const struct vnet_fields *value, const struct vnet_fields *mask,
		     __u32 subtable)
{
	struct add add = {.classifier = classifier, .set = set, .bit = 1ULL << subtable};
	const struct vnet_filter *filter = &vnet_at(classifier, set->filter)->filter;
	int high = filter->high != 0;

	if (!set->filter)
		return;
	add_group(&add, 0, filter->source,
		  value->word[high ? VNET_WORD_SOURCE_HIGH : VNET_WORD_SOURCE],
		  mask->word[high ? VNET_WORD_SOURCE_HIGH : VNET_WORD_SOURCE]);
	add_group(&add, 1, filter->destination,
		  value->word[high ? VNET_WORD_DESTINATION_HIGH : VNET_WORD_DESTINATION],
		  mask->word[high ? VNET_WORD_DESTINATION_HIGH : VNET_WORD_DESTINATION]);
	add_group(&add, 2, transport_levels, value->word[VNET_WORD_TRANSPORT],
		  mask->word[VNET_WORD_TRANSPORT]);
}

static void add_rule(__u32 line, void *arg)
{
	struct add *add = arg;
	struct vnet_bits bits;

	vnet_entry_bits(add->classifier, line, &bits);
	vnet_filter_add(add->classifier, add->set, &bits.value, &bits.mask,
			(__u32)__builtin_ctzll(add->bit));
}

static void visit_set(struct vnet_classifier *classifier, struct vnet_set *set,
		      void (*step)(__u32 line, void *arg), void *arg, __u64 *bit)
{
	for (__u32 i = 0; i < set->used; i++) {
		*bit = 1ULL << i;
		vnet_subtable_visit(classifier, vnet_subtable_of(classifier, set, i), step, arg);
	}
}

static __u8 filter_bits(__u32 rules)
{
	__u32 bits = vnet_block_order(rules) - 2;

	return bits < LEAST_BITS ? LEAST_BITS : bits > MOST_BITS ? MOST_BITS : bits;
}

int vnet_filter_bits_are_valid(__u8 bits)
{
	return bits >= LEAST_BITS && bits <= MOST_BITS;
}

int vnet_filter_is_due(const struct vnet_set *set)
{
	return set->rules >= LEAST_RULES &&
	       __builtin_popcountll(set->present) >= LEAST_SUBTABLES &&
	       (!set->filter || filter_bits(set->rules) > set->filter_bits);
}

int vnet_filter_make(struct vnet_classifier *classifier, struct vnet_set *set)
{
	struct add add = {.classifier = classifier, .set = set};
	struct vnet_filter *filter;
	struct survey *survey;
	int high;

	set->filter = 0;
	set->filter_bits = 0;
	set->removed = 0;
	memset(set->always, 0, sizeof(set->always));
	if (!vnet_filter_is_due(set))
		return 0;
	survey = calloc(1, sizeof(*survey));
	if (!survey)
		return -ENOMEM;
	set->filter_bits = filter_bits(set->rules);
	set->filter = 1; /* for the number of lines */
	set->filter = vnet_blocks_take(&classifier->blocks,
				       vnet_block_order(vnet_filter_lines(set)));
	if (!set->filter) {
		free(survey);
		return -ENOMEM;
	}
	survey->classifier = classifier;
	visit_set(classifier, set, survey_rule, survey, &add.bit);
	memset(vnet_at(classifier, set->filter), 0,
	       vnet_filter_lines(set) * sizeof(union vnet_line));
	filter = &vnet_at(classifier, set->filter)->filter;
	/* Prefixes of IPv6 are in the upper half; where rules have any, most of them are IPv6. */
	high = survey->source[1][0] + survey->destination[1][0] < set->rules;
	filter->high = high;
	choose_levels(survey->source[high], high ? 0 : 32, filter->source);
	choose_levels(survey->destination[high], high ? 0 : 32, filter->destination);
	free(survey);
	visit_set(classifier, set, add_rule, &add, &add.bit);
	return 0;
}
