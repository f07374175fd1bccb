/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules that subtables are to be chosen for, and the masks that may be chosen. A rule's shape is
 * its mask brought down to the lattice of classifier_relax.h; a candidate serves rules whose
 * shapes it is within.
 */
#ifndef VNET_CLASSIFIER_COVER_H
#define VNET_CLASSIFIER_COVER_H

#include "classifier_internal.h"

enum {
	VNET_MOST_SHAPES = 2048,
	VNET_MOST_CANDIDATES = 1 << 15,
	VNET_NO_CHOICE = 255,
	VNET_GROUP_CLASSES = 17,
};

/*
 * Costs of a look-up: to probe a subtable; to look at a rule there, of those that frames of the
 * rules' kind meet, and, with less weight, of the most that any frame can meet.
 */
#define VNET_PROBE_COST 24.0
#define VNET_RULE_COST 16.0
#define VNET_WORST_RULE_COST 0.8

/* Distinct masks, found by their hash. */
struct vnet_masks {
	struct vnet_fields *mask;
	__u32 *slot; /* 1 + index */
	__u32 count;
	__u32 most;
};

struct vnet_candidate {
	double score; /* of its last evaluation: mostly what it can serve only gets less */
	double bound; /* of this turn */
	__u32 index;
	__u32 served;
	__u32 limit; /* groups larger than this are left to others */
};

/*
 * Owns all of it but `bits` and `chosen`. Rules have places in the order of their shapes, so that
 * those which a candidate can serve are in pieces; `chosen` is by place until
 * vnet_cover_finish().
 */
struct vnet_cover {
	const struct vnet_bits *bits;
	__u32 rules;
	__u8 *chosen;
	__u32 *rule;       /* by place */
	__u32 *first;      /* by shape: its first place; one more at the end */
	__u32 *shape_left; /* by shape: rules not yet served */
	struct vnet_masks shapes;
	struct vnet_masks candidates;
	__u64 *eligible; /* by candidate, a bit for each shape */
	__u32 eligible_words;
	struct vnet_candidate *queue;
	__u64 *column[VNET_WORDS]; /* values by word, by place; NULL: no rule asks for the word */
	__u32 *at;                 /* by place: which group, under a candidate's mask */
	__u16 *group;              /* rules not yet served, by the hash of their masked values */
	__u32 group_mask;
};

/* 0 or -ENOMEM; to be freed in either case. */
int vnet_cover_init(struct vnet_cover *cover);
void vnet_cover_free(struct vnet_cover *cover);
int vnet_cover_is_eligible(const struct vnet_cover *cover, __u32 candidate, __u32 shape);
/* How many rules that are left a candidate would serve, at which limit, and its score so. */
void vnet_cover_evaluate(struct vnet_cover *cover, struct vnet_candidate *candidate);
/* Serves them: they get `choice`. */
void vnet_cover_serve(struct vnet_cover *cover, const struct vnet_candidate *candidate,
		      __u32 choice);
/* Brings `chosen` into the order of `bits`. */
int vnet_cover_finish(struct vnet_cover *cover);

#endif
