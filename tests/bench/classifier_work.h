/* SPDX-License-Identifier: Apache-2.0 */
/* The rules and frames of one bench, as classbench.py writes them. */
#ifndef VNET_CLASSIFIER_WORK_H
#define VNET_CLASSIFIER_WORK_H

#include <stdio.h>
#include <stdlib.h>

#include "classifier.h"

struct work {
	__u32 rules;
	__u32 frames;
	struct vnet_match *match;
	struct vnet_fields *frame;
	__u32 *entry; /* by rule; 0 at first */
};

static inline void die(const char *what)
{
	fprintf(stderr, "classifier: %s\n", what);
	exit(1);
}

/* Lasts until the process ends. */
static inline void read_work(struct work *work, const char *path)
{
	FILE *file = fopen(path, "rb");
	__u32 counts[2];

	if (!file || fread(counts, sizeof(counts), 1, file) != 1)
		die("the file cannot be read");
	work->rules = counts[0];
	work->frames = counts[1];
	work->match = calloc(work->rules, sizeof(*work->match));
	work->frame = calloc(work->frames, sizeof(*work->frame));
	work->entry = calloc(work->rules, sizeof(*work->entry));
	if (!work->match || !work->frame || !work->entry ||
	    fread(work->match, sizeof(*work->match), work->rules, file) != work->rules ||
	    fread(work->frame, sizeof(*work->frame), work->frames, file) != work->frames)
		die("the file is cut short");
	fclose(file);
}

/* Lines enough for the rules, twice over while they are replaced. */
static inline __u32 work_lines(const struct work *work)
{
	return 16384 + 8 * work->rules;
}

#endif
