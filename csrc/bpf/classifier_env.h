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

/*
 * BPF has no instruction for it, and clang 16 does not end on __builtin_ctzll where its result is
 * multiplied. Every six bits in a row of the factor are others: the first six of its multiple by a
 * single bit tell which bit that is.
 */
#define VNET_BIT_FACTOR 0x03f79d71b4cb0a89ULL
static const __u8 vnet_bit_numbers[64] = {
	0, 1, 48, 2, 57, 49, 28, 3, 61, 58, 50, 42, 38, 29, 17, 4,
	62, 55, 59, 36, 53, 51, 43, 22, 45, 39, 33, 30, 24, 18, 12, 5,
	63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21, 44, 32, 23, 11,
	46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9, 13, 8, 7, 6,
};

VNET_INLINE __u32 vnet_lowest_bit(__u64 word)
{
	return vnet_bit_numbers[(word & -word) * VNET_BIT_FACTOR >> 58];
}

#endif
