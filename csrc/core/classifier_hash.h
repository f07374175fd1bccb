/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Hashes of the classifier, where readers and the writer must agree. */
#ifndef VNET_CLASSIFIER_HASH_H
#define VNET_CLASSIFIER_HASH_H

#include "classifier_image.h"

#define VNET_SUBTABLE_FLAGS(region) ((__u32)((region) >> 40))
#define VNET_SUBTABLE_BITS(region) ((__u32)((region) >> 32) & 0xff)

/* A sum of products: the multiplications do not wait for each other. */
VNET_INLINE __u64 vnet_hash_narrow(const struct vnet_image_head *head, const __u64 *mask,
				   const struct vnet_fields *fields, __u32 flags)
{
	__u64 hash = (fields->word[VNET_WORD_SOURCE] & mask[0]) * head->factor[0] +
		     (fields->word[VNET_WORD_DESTINATION] & mask[1]) * head->factor[1] +
		     (fields->word[VNET_WORD_TRANSPORT] & mask[2]) * head->factor[2];

	if (flags & VNET_SUBTABLE_MIDDLE)
		hash += (fields->word[VNET_WORD_SOURCE_HIGH] & mask[3]) * head->factor[3] +
			(fields->word[VNET_WORD_DESTINATION_HIGH] & mask[4]) * head->factor[4] +
			(fields->word[VNET_WORD_PORT] & mask[5]) * head->factor[5];
	return hash;
}

VNET_INLINE __u64 vnet_hash_wide(const struct vnet_image_wide *wide, const __u64 *mask,
				 const struct vnet_fields *fields)
{
	const __u64 *word = &fields->word[VNET_WORD_SOURCE_MAC];

	return (word[0] & mask[0]) * wide->factor[0] + (word[1] & mask[1]) * wide->factor[1] +
	       (word[2] & mask[2]) * wide->factor[2] + (word[3] & mask[3]) * wide->factor[3] +
	       (word[4] & mask[4]) * wide->factor[4];
}
_Static_assert(VNET_WORD_METADATA == VNET_WORD_SOURCE_MAC + 4, "the wide words are in one piece");

/* The low bits of a sum of products know nothing of the high ones of the words. */
VNET_INLINE __u64 vnet_hash_finish(__u64 hash)
{
	hash ^= hash >> 32;
	hash *= 0x9fb21c651e98df25ULL;
	return hash ^ hash >> 28;
}

/* Of a finished hash: the first bucket, the step to further ones, the slot's print, the mark. */
#define VNET_HASH_BUCKET(hash) ((__u32)((hash) >> 36))
#define VNET_HASH_PRINT(hash) ((hash) << 48)
#define VNET_HASH_STEP(hash) ((__u32)((hash) >> 4) | 1)
#define VNET_HASH_MARK(hash) (((hash) >> 16 & 0x7f) | 0x80)

/* The slots of a bucket that have the mark, each as the highest bit of its byte. */
VNET_INLINE __u64 vnet_bucket_match(__u64 marks, __u64 mark)
{
	const __u64 low = 0x007f7f7f7f7f7f7fULL;
	__u64 differ = marks ^ mark * 0x0001010101010101ULL;

	return ~(((differ & low) + low) | differ) & 0x0080808080808080ULL;
}

VNET_INLINE __u32 vnet_bucket_overflow(__u64 marks)
{
	return marks >> 56;
}

#define VNET_SLOT_LINE(slot) ((__u32)(slot) & 0xffffff)
#define VNET_SLOT_ANY_PROTO 255

VNET_INLINE __u64 vnet_slot(__u64 hash, __u32 line, __u64 proto, __u64 destination_port)
{
	return VNET_HASH_PRINT(hash) | destination_port << 32 | proto << 24 | line;
}

/* Whether a slot's rule can match what `want`, a slot of the frame's own, stands for. */
VNET_INLINE int vnet_slot_may_match(__u64 slot, __u64 want)
{
	__u64 differ = slot ^ want;

	if (differ >> 48)
		return 0;
	if (differ << 16 >> 48 && slot << 16 >> 48)
		return 0;
	return !(differ >> 24 & 0xff) || (slot >> 24 & 0xff) == VNET_SLOT_ANY_PROTO;
}

/* Which of a filter level's 2^bits words is that of a masked word. */
VNET_INLINE __u32 vnet_filter_index(const struct vnet_image_head *head, __u64 masked, __u32 bits)
{
	return (__u32)(masked * head->filter_factor >> 32) >> (32 - bits);
}

#endif
