/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the classifier asks of its surroundings, in the kernel. */
#ifndef VNET_CLASSIFIER_ENV_H
#define VNET_CLASSIFIER_ENV_H

#include "classifier_image.h"
#include "env.h"

/* max_entries is set by who makes it; user space writes through its mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union vnet_line);
} vnet_lines SEC(".maps");

/* There is one image: its pointers are NULL. */
struct vnet_image;

VNET_INLINE union vnet_line *vnet_line(struct vnet_image *image, __u32 index)
{
	return bpf_map_lookup_elem(&vnet_lines, &index);
}

VNET_INLINE __u32 vnet_lowest_bit(__u64 word)
{
	return __builtin_ctzll(word);
}

#endif
