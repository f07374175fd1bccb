/* SPDX-License-Identifier: Apache-2.0 */
/* What the classifier asks of its surroundings, natively; csrc/bpf/classifier_env.h in the kernel. */
#ifndef VNET_CLASSIFIER_ENV_H
#define VNET_CLASSIFIER_ENV_H

#include "classifier_image.h"
#include "env.h"

/* `line` is plain memory or a mapped array map; whoever made it owns it. */
struct vnet_image {
	union vnet_line *line;
	__u32 lines;
};

static inline union vnet_line *vnet_line(struct vnet_image *image, __u32 index)
{
	return index < image->lines ? &image->line[index] : NULL;
}

static inline __u32 vnet_lowest_bit(__u64 word)
{
	return __builtin_ctzll(word);
}

#endif
