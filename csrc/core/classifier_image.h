/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The classifier's memory: one array of lines of 64 bytes, a cache line each, that refer to each
 * other by index. In the kernel it is an array map that user space has in its own memory too.
 *
 *   line 0, 1         vnet_image_head, then its wide half
 *   line 2 ...        the directory: 16 sets a line, each the line of its vnet_set, 0: none
 *   the rest          blocks of 1, 2, 4, ... lines:
 *     vnet_set          a set of rules
 *     vnet_subtable[]   its subtables, two lines each: narrow half, wide half
 *     vnet_bucket[]     a subtable's hash table
 *     vnet_filter       which subtables can hold a match: its head, then words of 64 bits
 *     vnet_entry        a rule, with up to two lines of more fields behind it
 *
 * One writer changes it while readers on other CPUs look up. A word that says where something is
 * is stored when that is complete, and what it said before stays as it was until no reader can
 * have it any more. Fields marked W are the writer's own.
 */
#ifndef VNET_CLASSIFIER_IMAGE_H
#define VNET_CLASSIFIER_IMAGE_H

#include "fields.h"

#define VNET_IMAGE_VERSION 1
#define VNET_MAX_SUBTABLES 64
#define VNET_MAX_LINES (1U << 24) /* slots have 24 bits for a line */
#define VNET_DIRECTORY 2
#define VNET_DIRECTORY_SETS 16 /* a line */

/*
 * Words that nearly every rule asks for come first; the others are read only where some rule of
 * the subtable asks for them.
 */
enum { VNET_NARROW_WORDS = 6, VNET_WIDE_WORDS = VNET_WORDS - VNET_NARROW_WORDS };
#define VNET_NARROW_ORDER                                                                          \
	{                                                                                          \
		VNET_WORD_SOURCE, VNET_WORD_DESTINATION, VNET_WORD_TRANSPORT,                      \
			VNET_WORD_SOURCE_HIGH, VNET_WORD_DESTINATION_HIGH, VNET_WORD_PORT          \
	}

struct vnet_image_head {
	__u32 version;
	__u32 sets;
	__u64 factor[VNET_NARROW_WORDS]; /* random and odd, in VNET_NARROW_ORDER */
	__u64 filter_factor;
};

struct vnet_image_wide {
	__u64 factor[VNET_WIDE_WORDS];
	__u64 reserved[3];
};

struct vnet_set {
	__u64 present;   /* subtables that hold rules */
	__u64 always[3]; /* per group of the filter: subtables that it says nothing about */
	__u32 subtables; /* line of the first */
	__u32 filter;    /* line of its head; 0: none */
	__u32 miss;      /* the action where no rule matches */
	__u32 generation;
	__u8 filter_bits; /* log2 of each level's words */
	__u8 capacity;    /* W log2 of the subtables there is room for */
	__u8 used;        /* W subtables handed out */
	__u8 reserved;
	__u32 rules;    /* W */
	__u32 sequence; /* W of the next rule */
	__u32 removed;  /* W since the filter was made: its bits are not taken back one by one */
};

enum vnet_subtable_flags { VNET_SUBTABLE_MIDDLE = 1, VNET_SUBTABLE_WIDE = 2 };

struct vnet_subtable {
	__u64 region; /* line of the buckets | log2 of their number << 32 | flags << 40 */
	__u64 top;    /* no rule here has a greater order */
	__u64 mask[VNET_NARROW_WORDS];
};

struct vnet_subtable_wide {
	__u64 mask[VNET_WIDE_WORDS];
	__u32 rules; /* W */
	__u32 limit; /* W of rules that share a hash, before another subtable is thought of */
	__u64 reserved[2];
};

/*
 * Up to 7 rules whose hashes lead here. A slot: line of the entry (24 bits) | protocol or 255 for
 * any << 24 | destination port or 0 for any << 32 | the hash's print << 48. `marks` has a byte of
 * the hash for each slot in use and 0 for the others; its last byte counts rules that went on to
 * a further bucket, and stays at 255 once there.
 */
#define VNET_BUCKET_SLOTS 7
struct vnet_bucket {
	__u64 slot[VNET_BUCKET_SLOTS];
	__u64 marks;
};

/*
 * Three groups of three levels. A level is a mask over the group's word and a table of
 * 2^filter_bits words; a rule is in one level of each group, in the first whose mask is within the
 * rule's own, or in `always`. Groups: source address, destination address, transport.
 */
enum { VNET_FILTER_GROUPS = 3, VNET_FILTER_LEVELS = 3 };
struct vnet_filter {
	__u64 source[VNET_FILTER_LEVELS]; /* 0: the level is not used */
	__u64 destination[VNET_FILTER_LEVELS];
	__u64 high; /* not 0: the addresses' upper halves are looked at (IPv6) */
	__u64 reserved;
};
#define VNET_FILTER_TRANSPORT                                                                      \
	{                                                                                          \
		VNET_TRANSPORT_PROTO | VNET_TRANSPORT_DESTINATION_PORT,                            \
			VNET_TRANSPORT_PROTO | VNET_TRANSPORT_SOURCE_PORT, VNET_TRANSPORT_PROTO    \
	}

enum vnet_entry_more { VNET_ENTRY_MIDDLE = 1, VNET_ENTRY_WIDE = 2 };

struct vnet_entry {
	__u64 order; /* priority << 32 | ~sequence: the greatest wins */
	__u32 action;
	__u8 more;     /* lines that follow: enum vnet_entry_more */
	__u8 subtable; /* W where its slot is */
	__u16 reserved;
	__u16 source_ports[2]; /* first and last */
	__u16 destination_ports[2];
	__u32 transport; /* of the transport word what is not ports */
	__u32 transport_mask;
	__u64 source;
	__u64 source_mask;
	__u64 destination;
	__u64 destination_mask;
};

/* Each value followed by its mask. */
#define VNET_ENTRY_MIDDLE_WORDS                                                                    \
	{                                                                                          \
		VNET_WORD_SOURCE_HIGH, VNET_WORD_DESTINATION_HIGH, VNET_WORD_PORT,                 \
			VNET_WORD_SOURCE_MAC                                                       \
	}
#define VNET_ENTRY_WIDE_WORDS                                                                      \
	{                                                                                          \
		VNET_WORD_TARGET_MAC, VNET_WORD_NETWORK, VNET_WORD_IDENTITY, VNET_WORD_METADATA    \
	}
struct vnet_entry_words {
	__u64 pair[4][2];
};

union vnet_line {
	__u64 word[8];
	__u32 root[VNET_DIRECTORY_SETS];
	struct vnet_image_head head;
	struct vnet_image_wide head_wide;
	struct vnet_set set;
	struct vnet_subtable subtable;
	struct vnet_subtable_wide subtable_wide;
	struct vnet_bucket bucket;
	struct vnet_filter filter;
	struct vnet_entry entry;
	struct vnet_entry_words words;
};
_Static_assert(sizeof(union vnet_line) == 64, "vnet_line");
_Static_assert(sizeof(struct vnet_set) == 64, "vnet_set");
_Static_assert(sizeof(struct vnet_subtable) == 64, "vnet_subtable");
_Static_assert(sizeof(struct vnet_entry) == 64, "vnet_entry");
_Static_assert(offsetof(struct vnet_bucket, marks) == 56, "vnet_bucket");

#endif
