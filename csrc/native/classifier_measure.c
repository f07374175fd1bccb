/* SPDX-License-Identifier: Apache-2.0 */
/* What a set takes, and what a look-up in it may cost at most. */
#include "classifier_internal.h"

struct tour {
	struct vnet_classifier *classifier;
	struct vnet_subtable *subtable;
	struct vnet_measure *measure;
	__u32 longest_group;
};

static void tour_rule(__u32 line, void *arg)
{
	struct tour *tour = arg;
	struct vnet_bits bits;
	__u32 group;

	vnet_entry_bits(tour->classifier, line, &bits);
	group = vnet_subtable_group(tour->classifier, tour->subtable,
				    vnet_subtable_hash(tour->classifier, tour->subtable,
						       &bits.value),
				    ~0U);
	if (group > tour->longest_group)
		tour->longest_group = group;
	tour->measure->bytes += sizeof(union vnet_line)
				<< vnet_entry_block(&vnet_at(tour->classifier, line)->entry);
}

/* A probe goes on only from buckets that count a rule as passed. */
static __u32 longest_chain(struct vnet_classifier *classifier, const struct vnet_subtable *subtable)
{
	__u32 lines = vnet_region_lines(subtable->region), passed = 0;

	for (__u32 i = 0; i < lines; i++)
		passed += vnet_bucket_overflow(
				  vnet_at(classifier, (__u32)subtable->region + i)->bucket.marks) >
			  0;
	return passed < lines ? passed + 1 : lines;
}

static void tour_subtable(struct tour *tour)
{
	struct vnet_measure *measure = tour->measure;
	__u32 lines = vnet_region_lines(tour->subtable->region);
	__u32 chain = longest_chain(tour->classifier, tour->subtable);

	tour->longest_group = 0;
	vnet_subtable_visit(tour->classifier, tour->subtable, tour_rule, tour);
	measure->buckets += lines;
	measure->bytes += lines * sizeof(union vnet_line);
	measure->worst_rules += tour->longest_group;
	measure->worst_buckets += chain;
	if (tour->longest_group > measure->longest_group)
		measure->longest_group = tour->longest_group;
	if (chain > measure->longest_chain)
		measure->longest_chain = chain;
}

int vnet_classifier_measure(struct vnet_classifier *classifier, __u32 set,
			    struct vnet_measure *measure)
{
	struct vnet_set *of = vnet_set_of(classifier, set);
	struct tour tour = {.classifier = classifier, .measure = measure};

	memset(measure, 0, sizeof(*measure));
	if (!of)
		return -EINVAL;
	measure->rules = of->rules;
	measure->filter_bytes = vnet_filter_lines(of) * sizeof(union vnet_line);
	measure->bytes = sizeof(union vnet_line) * (1 + (2ULL << of->capacity));
	if (of->filter)
		measure->bytes += sizeof(union vnet_line)
				  << vnet_block_order(vnet_filter_lines(of));
	for (__u32 i = 0; i < of->used; i++) {
		tour.subtable = vnet_subtable_of(classifier, of, i);
		tour_subtable(&tour);
		measure->subtables += of->present >> i & 1;
	}
	return 0;
}
