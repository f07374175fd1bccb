/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The look-up. A set's rules are in at most 64 subtables, each a hash table over some of the bits
 * that its rules ask for, so that one probe finds all of its rules that a frame may match; they
 * are coalesced as in TupleMerge (Daly et al., IEEE/ACM ToN 2019), and pruned as in Srinivasan's
 * tuple space search (SIGCOMM 1999): for a few bits of address and transport the filter knows
 * which subtables can hold a match at all.
 *
 * The bound: 64 subtables, and in each the buckets and rules that share one hash. All of it
 * follows from the rules; vnet_classifier_measure() says how much it is.
 */
#ifndef VNET_CLASSIFIER_LOOKUP_H
#define VNET_CLASSIFIER_LOOKUP_H

#include "classifier_env.h"
#include "classifier_hash.h"

#ifdef __clang__
#define VNET_UNROLL _Pragma("unroll")
#else
#define VNET_UNROLL _Pragma("GCC unroll 4")
#endif

/* What the writer may change meanwhile is read once. */
#define vnet_once(word) (*(const volatile __typeof__(word) *)&(word))

struct vnet_hit {
	__u64 order;  /* 0: no rule matched */
	__u32 entry;  /* line of the rule */
	__u32 action; /* its, or the set's for what no rule matches */
};

/* A look-up under way. */
struct vnet_seek {
	struct vnet_image *image;
	const struct vnet_fields *fields;
	const union vnet_line *head;
	const union vnet_line *bucket;
	__u64 candidates; /* subtables not yet visited */
	__u64 hash;
	__u64 want;
	__u64 match; /* slots of the bucket not yet looked at */
	__u32 subtables;
	__u32 base;
	__u32 mask;
	__u32 at; /* of the bucket */
	struct vnet_hit best;
};

VNET_INLINE int vnet_entry_pairs(const struct vnet_entry_words *words,
				 const struct vnet_fields *fields, const enum vnet_word *order)
{
	__u64 differ = 0;

	VNET_UNROLL
	for (int i = 0; i < 4; i++)
		differ |= (fields->word[order[i]] & words->pair[i][1]) ^ words->pair[i][0];
	return !differ;
}

/* The fields that few rules ask for. */
VNET_INLINE int vnet_entry_more_matches(struct vnet_image *image, __u32 index, __u8 more,
					const struct vnet_fields *fields)
{
	const enum vnet_word middle[] = VNET_ENTRY_MIDDLE_WORDS, wide[] = VNET_ENTRY_WIDE_WORDS;
	const union vnet_line *line;

	if (more & VNET_ENTRY_MIDDLE) {
		line = vnet_line(image, ++index);
		if (!line || !vnet_entry_pairs(&line->words, fields, middle))
			return 0;
	}
	if (more & VNET_ENTRY_WIDE) {
		line = vnet_line(image, ++index);
		if (!line || !vnet_entry_pairs(&line->words, fields, wide))
			return 0;
	}
	return 1;
}

VNET_INLINE int vnet_entry_matches(struct vnet_image *image, __u32 index,
				   const struct vnet_entry *entry, const struct vnet_fields *fields)
{
	__u64 transport = fields->word[VNET_WORD_TRANSPORT];
	__u16 source_port = transport, destination_port = transport >> 16;
	__u64 differ;

	differ = (fields->word[VNET_WORD_SOURCE] & entry->source_mask) ^ entry->source;
	differ |= (fields->word[VNET_WORD_DESTINATION] & entry->destination_mask) ^
		  entry->destination;
	differ |= (__u32)(transport >> 32 & entry->transport_mask) ^ entry->transport;
	if (differ || source_port < entry->source_ports[0] ||
	    source_port > entry->source_ports[1] ||
	    destination_port < entry->destination_ports[0] ||
	    destination_port > entry->destination_ports[1])
		return 0;
	return !entry->more || vnet_entry_more_matches(image, index, entry->more, fields);
}

static long vnet_seek_slot(__u32 index, void *state)
{
	struct vnet_seek *seek = state;
	__u64 match = seek->match, slot;
	const union vnet_line *line;

	(void)index;
	if (!match)
		return 1;
	seek->match = match & (match - 1);
	slot = vnet_once(seek->bucket->word[vnet_lowest_bit(match) >> 3 & 7]);
	if (!vnet_slot_may_match(slot, seek->want))
		return 0;
	line = vnet_line(seek->image, VNET_SLOT_LINE(slot));
	if (!line || line->entry.order <= seek->best.order ||
	    !vnet_entry_matches(seek->image, VNET_SLOT_LINE(slot), &line->entry, seek->fields))
		return 0;
	seek->best.order = line->entry.order;
	seek->best.action = line->entry.action;
	seek->best.entry = VNET_SLOT_LINE(slot);
	return 0;
}

static long vnet_seek_bucket(__u32 index, void *state)
{
	struct vnet_seek *seek = state;
	const union vnet_line *line;
	__u64 marks;

	(void)index;
	line = vnet_line(seek->image, seek->base + (seek->at & seek->mask));
	if (!line)
		return 1;
	marks = vnet_once(line->bucket.marks);
	seek->match = vnet_bucket_match(marks, VNET_HASH_MARK(seek->hash));
	if (seek->match) {
		seek->bucket = line;
		vnet_loop(VNET_BUCKET_SLOTS, vnet_seek_slot, seek);
	}
	seek->at += VNET_HASH_STEP(seek->hash);
	return !vnet_bucket_overflow(marks);
}

static long vnet_seek_subtable(__u32 index, void *state)
{
	struct vnet_seek *seek = state;
	const struct vnet_subtable *subtable;
	const union vnet_line *line, *wide;
	__u64 hash, region;
	__u32 at, flags;

	(void)index;
	if (!seek->candidates)
		return 1;
	at = seek->subtables + 2 * vnet_lowest_bit(seek->candidates);
	seek->candidates &= seek->candidates - 1;
	line = vnet_line(seek->image, at);
	if (!line)
		return 1;
	subtable = &line->subtable;
	if (subtable->top <= seek->best.order)
		return 0;
	region = vnet_once(subtable->region);
	flags = VNET_SUBTABLE_FLAGS(region);
	hash = vnet_hash_narrow(&seek->head->head, subtable->mask, seek->fields, flags);
	if (flags & VNET_SUBTABLE_WIDE) {
		line = vnet_line(seek->image, at + 1);
		wide = vnet_line(seek->image, 1);
		if (!line || !wide)
			return 1;
		hash += vnet_hash_wide(&wide->head_wide, line->subtable_wide.mask, seek->fields);
	}
	hash = vnet_hash_finish(hash);
	seek->hash = hash;
	seek->want = vnet_slot(hash, 0, seek->fields->proto, seek->fields->destination_port);
	seek->base = region;
	seek->mask = (1U << VNET_SUBTABLE_BITS(region)) - 1;
	seek->at = VNET_HASH_BUCKET(hash);
	vnet_loop(seek->mask + 1, vnet_seek_bucket, seek);
	return 0;
}

VNET_INLINE __u64 vnet_filter_level(struct vnet_image *image, const struct vnet_set *set,
				    const struct vnet_image_head *head, __u32 level, __u64 word,
				    __u64 mask)
{
	__u32 index = vnet_filter_index(head, word & mask, set->filter_bits);
	const union vnet_line *line;

	line = vnet_line(image, set->filter + 1 + (level << (set->filter_bits - 3)) + (index >> 3));
	return line ? line->word[index & 7] : ~0ULL;
}

/* The subtables of a set that can hold a match. */
VNET_INLINE __u64 vnet_filter(struct vnet_image *image, const struct vnet_set *set,
			      const struct vnet_image_head *head, const struct vnet_fields *fields)
{
	const __u64 transport[] = VNET_FILTER_TRANSPORT;
	const union vnet_line *line;
	__u64 group[VNET_FILTER_GROUPS], source, destination;

	if (!set->filter)
		return set->present;
	line = vnet_line(image, set->filter);
	if (!line)
		return set->present;
	for (int i = 0; i < VNET_FILTER_GROUPS; i++)
		group[i] = set->always[i];
	source = fields->word[VNET_WORD_SOURCE];
	destination = fields->word[VNET_WORD_DESTINATION];
	if (line->filter.high) {
		source = fields->word[VNET_WORD_SOURCE_HIGH];
		destination = fields->word[VNET_WORD_DESTINATION_HIGH];
	}
	VNET_UNROLL
	for (int i = 0; i < VNET_FILTER_LEVELS; i++) {
		if (line->filter.source[i])
			group[0] |= vnet_filter_level(image, set, head, i, source,
						      line->filter.source[i]);
		if (line->filter.destination[i])
			group[1] |= vnet_filter_level(image, set, head, VNET_FILTER_LEVELS + i,
						      destination, line->filter.destination[i]);
		group[2] |= vnet_filter_level(image, set, head, 2 * VNET_FILTER_LEVELS + i,
					      fields->word[VNET_WORD_TRANSPORT], transport[i]);
	}
	return set->present & group[0] & group[1] & group[2];
}

/* Looks `fields` up in a set. Returns 0, or -1 when there is no such set. */
VNET_INLINE int vnet_classifier_lookup(struct vnet_image *image, __u32 set,
				       const struct vnet_fields *fields, struct vnet_hit *hit)
{
	struct vnet_seek seek = {.image = image, .fields = fields};
	const union vnet_line *line;
	__u32 root;

	seek.head = vnet_line(image, 0);
	if (!seek.head || set >= seek.head->head.sets)
		return -1;
	line = vnet_line(image, VNET_DIRECTORY + set / VNET_DIRECTORY_SETS);
	root = line ? vnet_once(line->root[set % VNET_DIRECTORY_SETS]) : 0;
	line = root ? vnet_line(image, root) : NULL;
	if (!line)
		return -1;
	seek.subtables = line->set.subtables;
	seek.best.action = line->set.miss;
	seek.candidates = vnet_filter(image, &line->set, &seek.head->head, fields);
	vnet_loop(VNET_MAX_SUBTABLES, vnet_seek_subtable, &seek);
	*hit = seek.best;
	return 0;
}

#endif
