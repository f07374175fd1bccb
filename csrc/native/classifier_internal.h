/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the classifier's writer share. Lines given are valid; -errno as classifier.h. */
#ifndef VNET_CLASSIFIER_INTERNAL_H
#define VNET_CLASSIFIER_INTERNAL_H

#include <errno.h>
#include <string.h>

#include "classifier.h"
#include "classifier_hash.h"

/* A word that readers look at, after everything that was stored before. */
#define vnet_publish(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)

/* So many rules share a hash in a subtable made for one rule, then another one is thought of. */
#define VNET_GROUP_GOAL 16

static inline union vnet_line *vnet_at(struct vnet_classifier *classifier, __u32 line)
{
	return &classifier->image.line[line];
}

static inline __u32 *vnet_root(struct vnet_classifier *classifier, __u32 set)
{
	return &vnet_at(classifier, VNET_DIRECTORY + set / VNET_DIRECTORY_SETS)
			->root[set % VNET_DIRECTORY_SETS];
}

/* NULL when there is no such set. */
static inline struct vnet_set *vnet_set_of(struct vnet_classifier *classifier, __u32 set)
{
	__u32 root = set < vnet_at(classifier, 0)->head.sets ? *vnet_root(classifier, set) : 0;

	return root ? &vnet_at(classifier, root)->set : NULL;
}

static inline struct vnet_subtable *vnet_subtable_of(struct vnet_classifier *classifier,
						     const struct vnet_set *set, __u32 index)
{
	return &vnet_at(classifier, set->subtables + 2 * index)->subtable;
}

static inline struct vnet_subtable_wide *vnet_wide_of(struct vnet_subtable *subtable)
{
	return &((union vnet_line *)subtable)[1].subtable_wide;
}

static inline __u32 vnet_region_lines(__u64 region)
{
	return 1U << VNET_SUBTABLE_BITS(region);
}

/* Whether all bits of `part` are in `whole`. */
static inline int vnet_within(const struct vnet_fields *part, const struct vnet_fields *whole)
{
	__u64 outside = 0;

	for (int i = 0; i < VNET_WORDS; i++)
		outside |= part->word[i] & ~whole->word[i];
	return !outside;
}

/*
 * What of a rule can be hashed: its value and mask, with the leading bits that all ports of a
 * range share.
 */
struct vnet_bits {
	struct vnet_fields value;
	struct vnet_fields mask;
};

/* classifier_entry.c */
int vnet_match_check(const struct vnet_match *match);
void vnet_match_bits(const struct vnet_match *match, struct vnet_bits *bits);
/* The line of a new entry that nobody sees yet, 0 without room. */
__u32 vnet_entry_write(struct vnet_classifier *classifier, const struct vnet_match *match,
		       __u32 sequence);
void vnet_entry_read(struct vnet_classifier *classifier, __u32 line, struct vnet_match *match);
void vnet_entry_bits(struct vnet_classifier *classifier, __u32 line, struct vnet_bits *bits);
__u32 vnet_entry_block(const struct vnet_entry *entry); /* order of its block */
__u64 vnet_entry_slot(const struct vnet_entry *entry, __u64 hash, __u32 line);

/* classifier_subtable.c */
void vnet_subtable_mask(struct vnet_subtable *subtable, struct vnet_fields *mask);
/* Without a region. */
void vnet_subtable_init(struct vnet_subtable *subtable, const struct vnet_fields *mask);
int vnet_subtable_reserve(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			  __u32 rules);
__u64 vnet_subtable_hash(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			 const struct vnet_fields *value);
/* Rules with this hash, counted up to `most`. */
__u32 vnet_subtable_group(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			  __u64 hash, __u32 most);
/* -ENOMEM: the region is full and cannot grow. */
int vnet_subtable_add(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
		      __u64 hash, __u32 line);
int vnet_subtable_drop(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
		       __u64 hash, __u32 line);
int vnet_subtable_holds(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			__u64 hash, __u32 line);
/* Adds 1 to each bucket, of the region's, before the rule's own; -EINVAL: its hash leads nowhere. */
int vnet_subtable_count_passed(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			       __u64 hash, __u32 line, __u32 *passed);
/*
 * After a writer that ended at any point: buckets count what passed them, by the numbers given, and
 * slots that are not in use are 0.
 */
void vnet_subtable_repair(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			  const __u32 *passed);
/* Calls with the line of each rule. */
void vnet_subtable_visit(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			 void (*step)(__u32 line, void *arg), void *arg);

/* classifier_filter.c: of a set that no reader has seen yet, but for vnet_filter_add. */
int vnet_filter_make(struct vnet_classifier *classifier, struct vnet_set *set);
void vnet_filter_add(struct vnet_classifier *classifier, struct vnet_set *set,
		     const struct vnet_fields *value, const struct vnet_fields *mask,
		     __u32 subtable);
/* Whether the set has outgrown the filter it has, or the lack of one. */
int vnet_filter_is_due(const struct vnet_set *set);
__u32 vnet_filter_lines(const struct vnet_set *set);
int vnet_filter_bits_are_valid(__u8 bits);

/* classifier_choose.c */
struct vnet_choice {
	struct vnet_fields mask;
	__u32 rules;
	__u32 limit; /* no more of them share a hash */
};
/*
 * Masks for subtables, and for each rule which one of them: `chosen[i]` of bits[i]. Returns how
 * many masks there are, VNET_MAX_SUBTABLES at most, or -ENOMEM.
 */
int vnet_choose_masks(const struct vnet_bits *bits, __u32 count, struct vnet_choice *choices,
		      __u8 *chosen);
/* A part of a rule's mask that many like it will have in common; `step` 0 is the least. */
void vnet_relax_mask(const struct vnet_fields *mask, int step, struct vnet_fields *relaxed);
#define VNET_RELAX_STEPS 4

/* classifier_set.c */
/* The subtable for a rule, made if need be: its index, or -errno. May move the set. */
int vnet_set_find_subtable(struct vnet_classifier *classifier, __u32 set,
			   const struct vnet_bits *bits);
/*
 * The filter again, without the bits of rules that are gone. Without room the old one serves. May
 * move the set.
 */
void vnet_set_renew_filter(struct vnet_classifier *classifier, __u32 set);

/* classifier_build.c */
/* A set's whole, but for its entries, when nobody can reach it any more. */
void vnet_set_retire(struct vnet_classifier *classifier, __u32 root);

#endif
