/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer's side of the classifier: sets of rules in an image of lines (classifier_image.h).
 * One writer at a time. Readers look up meanwhile, natively or in the kernel, and see each change
 * whole or not at all; a rule that a change does not touch is never missed.
 *
 * Functions return 0, or -EINVAL (a rule that contradicts itself, no such set or rule), -ENOMEM
 * (no room in the image or for the writer's own), -E2BIG (a limit of the layout); the image is
 * then as before.
 */
#ifndef VNET_NATIVE_CLASSIFIER_H
#define VNET_NATIVE_CLASSIFIER_H

#include "classifier_blocks.h"
#include "classifier_env.h"

/*
 * A rule: every field's masked value, and both ports within their ranges (first and last). The
 * masks of the ports themselves are 0. The greatest priority wins, then who came first.
 */
struct vnet_match {
	struct vnet_fields value;
	struct vnet_fields mask;
	__u16 source_ports[2];
	__u16 destination_ports[2];
	__u32 priority;
	__u32 action;
};
_Static_assert(sizeof(struct vnet_match) == 192, "vnet_match");

/* Owns `image.line` if it was not given, and the book-keeping beside it. */
struct vnet_classifier {
	struct vnet_image image;
	struct vnet_blocks blocks;
	int owns_lines;
};

/* Of one set. */
struct vnet_measure {
	__u32 rules;
	__u32 subtables;
	__u32 buckets;
	__u32 longest_chain; /* buckets that one probe may read */
	__u32 longest_group; /* rules of a subtable that share a hash */
	__u32 worst_rules;   /* the bound: the sum of every subtable's longest group */
	__u32 worst_buckets; /* the bound: the sum of every subtable's longest chain */
	__u32 filter_bytes;
	__u64 bytes; /* all lines of the set */
};

/*
 * `memory`: that many zeroed lines, aligned to 64 bytes, or NULL. `wait` returns when nobody reads
 * any more what was in the image when it was called; NULL: there are no readers beside the writer.
 * At most VNET_MAX_LINES lines and half as many sets.
 */
int vnet_classifier_init(struct vnet_classifier *classifier, __u32 lines, __u32 sets, void *memory,
			 void (*wait)(void *arg), void *arg);
/*
 * Takes over an image with all of its sets, of a writer that may have ended at any point; rules
 * keep their names. -EINVAL: it is none, or is damaged; readers have what they had.
 */
int vnet_classifier_adopt(struct vnet_classifier *classifier, __u32 lines, void *memory,
			  void (*wait)(void *arg), void *arg);
void vnet_classifier_free(struct vnet_classifier *classifier);

/*
 * Puts `count` rules, in their order, in the place of all that a set has; a set that is not there
 * is made. `miss` is the action where no rule matches. `entries`: their names, or NULL.
 */
int vnet_classifier_replace(struct vnet_classifier *classifier, __u32 set,
			    const struct vnet_match *matches, __u32 count, __u32 miss,
			    __u32 *entries);
/* Takes the set away. */
int vnet_classifier_remove(struct vnet_classifier *classifier, __u32 set);
/* Chooses the subtables anew for the rules that are there; their names stay. */
int vnet_classifier_rebuild(struct vnet_classifier *classifier, __u32 set);

/* `entry`: the rule's name until it is deleted; vnet_hit.entry tells it. */
int vnet_classifier_insert(struct vnet_classifier *classifier, __u32 set,
			   const struct vnet_match *match, __u32 *entry);
int vnet_classifier_delete(struct vnet_classifier *classifier, __u32 set, __u32 entry);
/* The rule as it was given, but for bits of the value outside of the mask. */
int vnet_classifier_read(struct vnet_classifier *classifier, __u32 set, __u32 entry,
			 struct vnet_match *match);

int vnet_classifier_measure(struct vnet_classifier *classifier, __u32 set,
			    struct vnet_measure *measure);
/* The consistency walker, for tests: NULL, or what is wrong. */
const char *vnet_classifier_check(struct vnet_classifier *classifier);

#endif
