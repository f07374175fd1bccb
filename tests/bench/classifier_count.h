/* SPDX-License-Identifier: Apache-2.0 */
/* What look-ups in set 0 read, counted: the same code as classifier_lookup.h, compiled once more. */
#ifndef VNET_CLASSIFIER_COUNT_H
#define VNET_CLASSIFIER_COUNT_H

#include "classifier_env.h"

struct count {
	__u64 lines;          /* of 64 bytes */
	__u64 subtables;      /* visited */
	__u32 most_subtables; /* by one look-up */
};

void count_visits(struct vnet_image *image, const struct vnet_fields *frames, __u32 number,
		  struct count *count);

#endif
