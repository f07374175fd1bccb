/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A subtable's hash table. A rule whose first bucket is full goes on, by a step of its own hash,
 * to the next; the buckets it passed count it, so that a reader knows how far to follow.
 */
#include "classifier_internal.h"

static const enum vnet_word narrow_words[] = VNET_NARROW_ORDER;

/* Of seven slots a bucket, so many are filled before the region grows. */
#define FILL 5

static struct vnet_bucket *bucket_at(struct vnet_classifier *classifier, __u64 region, __u32 at)
{
	return &vnet_at(classifier, (__u32)region + (at & (vnet_region_lines(region) - 1)))->bucket;
}

void vnet_subtable_mask(struct vnet_subtable *subtable, struct vnet_fields *mask)
{
	for (int i = 0; i < VNET_NARROW_WORDS; i++)
		mask->word[narrow_words[i]] = subtable->mask[i];
	memcpy(&mask->word[VNET_WORD_SOURCE_MAC], vnet_wide_of(subtable)->mask,
	       sizeof(vnet_wide_of(subtable)->mask));
}

void vnet_subtable_init(struct vnet_subtable *subtable, const struct vnet_fields *mask)
{
	struct vnet_subtable_wide *wide = vnet_wide_of(subtable);
	__u64 flags = 0;

	memset(subtable, 0, 2 * sizeof(union vnet_line));
	for (int i = 0; i < VNET_NARROW_WORDS; i++) {
		subtable->mask[i] = mask->word[narrow_words[i]];
		if (i >= 3 && subtable->mask[i])
			flags |= VNET_SUBTABLE_MIDDLE;
	}
	for (int i = 0; i < VNET_WIDE_WORDS; i++) {
		wide->mask[i] = mask->word[VNET_WORD_SOURCE_MAC + i];
		if (wide->mask[i])
			flags |= VNET_SUBTABLE_WIDE;
	}
	subtable->region = flags << 40;
}

__u64 vnet_subtable_hash(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			 const struct vnet_fields *value)
{
	__u32 flags = VNET_SUBTABLE_FLAGS(subtable->region);
	__u64 hash = vnet_hash_narrow(&vnet_at(classifier, 0)->head, subtable->mask, value, flags);

	if (flags & VNET_SUBTABLE_WIDE)
		hash += vnet_hash_wide(&vnet_at(classifier, 1)->head_wide,
				       vnet_wide_of(subtable)->mask, value);
	return vnet_hash_finish(hash);
}

__u32 vnet_subtable_group(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			  __u64 hash, __u32 most)
{
	__u32 lines = vnet_region_lines(subtable->region), at = VNET_HASH_BUCKET(hash), count = 0;
	const struct vnet_bucket *bucket;
	__u64 match;

	for (__u32 i = 0; i < lines && count < most; i++, at += VNET_HASH_STEP(hash)) {
		bucket = bucket_at(classifier, subtable->region, at);
		match = vnet_bucket_match(bucket->marks, VNET_HASH_MARK(hash));
		for (; match; match &= match - 1)
			if (!((bucket->slot[__builtin_ctzll(match) >> 3] ^
			       VNET_HASH_PRINT(hash)) >> 48))
				count++;
		if (!vnet_bucket_overflow(bucket->marks))
			break;
	}
	return count;
}

static void count_passing(struct vnet_bucket *bucket, int more)
{
	__u32 passing = vnet_bucket_overflow(bucket->marks);

	if (passing != 255) /* once there it is not known any more */
		vnet_publish(bucket->marks, bucket->marks + ((__u64)more << 56));
}

/* There is a free slot. The slot is published last, then its mark. */
static void put_slot(struct vnet_classifier *classifier, __u64 region, __u64 hash, __u64 slot)
{
	__u32 at = VNET_HASH_BUCKET(hash);
	struct vnet_bucket *bucket;
	__u64 unused;

	for (;; at += VNET_HASH_STEP(hash)) {
		bucket = bucket_at(classifier, region, at);
		unused = vnet_bucket_match(bucket->marks, 0);
		if (unused)
			break;
		count_passing(bucket, 1);
	}
	at = __builtin_ctzll(unused) >> 3;
	vnet_publish(bucket->slot[at], slot);
	vnet_publish(bucket->marks, bucket->marks | VNET_HASH_MARK(hash) << 8 * at);
}

static int room_for(__u32 lines, __u32 rules)
{
	return lines == 1 ? rules <= VNET_BUCKET_SLOTS : rules <= FILL * (__u64)lines;
}

struct move {
	struct vnet_classifier *classifier;
	struct vnet_subtable *subtable;
	__u64 region;
};

static void move_rule(__u32 line, void *arg)
{
	const struct move *move = arg;
	struct vnet_bits bits;
	__u64 hash;

	vnet_entry_bits(move->classifier, line, &bits);
	hash = vnet_subtable_hash(move->classifier, move->subtable, &bits.value);
	put_slot(move->classifier, move->region, hash,
		 vnet_entry_slot(&vnet_at(move->classifier, line)->entry, hash, line));
}

int vnet_subtable_reserve(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			  __u32 rules)
{
	__u64 old = subtable->region;
	struct move move = {.classifier = classifier, .subtable = subtable};
	__u32 bits = VNET_SUBTABLE_BITS(old), line;

	if ((__u32)old && room_for(1U << bits, rules))
		return 0;
	while (!room_for(1U << bits, rules))
		bits++;
	if (bits >= VNET_BLOCK_ORDERS)
		return -E2BIG;
	line = vnet_blocks_take(&classifier->blocks, bits);
	if (!line)
		return -ENOMEM;
	memset(vnet_at(classifier, line), 0, sizeof(union vnet_line) << bits);
	move.region = line | (__u64)bits << 32 | (old >> 40 << 40);
	if ((__u32)old)
		vnet_subtable_visit(classifier, subtable, move_rule, &move);
	vnet_publish(subtable->region, move.region);
	if ((__u32)old)
		vnet_blocks_retire(&classifier->blocks, (__u32)old, VNET_SUBTABLE_BITS(old));
	return 0;
}

int vnet_subtable_add(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
		      __u64 hash, __u32 line)
{
	struct vnet_subtable_wide *wide = vnet_wide_of(subtable);
	struct vnet_entry *entry = &vnet_at(classifier, line)->entry;
	int error = vnet_subtable_reserve(classifier, subtable, wide->rules + 1);

	if (error)
		return error;
	if (entry->order > subtable->top)
		vnet_publish(subtable->top, entry->order);
	put_slot(classifier, subtable->region, hash, vnet_entry_slot(entry, hash, line));
	wide->rules++;
	return 0;
}

static int find_slot(const struct vnet_bucket *bucket, __u64 hash, __u32 line)
{
	__u64 match = vnet_bucket_match(bucket->marks, VNET_HASH_MARK(hash));

	for (; match; match &= match - 1)
		if (VNET_SLOT_LINE(bucket->slot[__builtin_ctzll(match) >> 3]) == line)
			return __builtin_ctzll(match) >> 3;
	return -1;
}

/* Where a rule's slot is, and in *passed how many buckets come before it; -1: nowhere. */
static int locate(struct vnet_classifier *classifier, struct vnet_subtable *subtable, __u64 hash,
		  __u32 line, __u32 *passed)
{
	__u32 lines = vnet_region_lines(subtable->region), at = VNET_HASH_BUCKET(hash);
	const struct vnet_bucket *bucket;
	int slot;

	for (*passed = 0; *passed < lines; ++*passed, at += VNET_HASH_STEP(hash)) {
		bucket = bucket_at(classifier, subtable->region, at);
		slot = find_slot(bucket, hash, line);
		if (slot >= 0)
			return slot;
		if (!vnet_bucket_overflow(bucket->marks))
			break;
	}
	return -1;
}

int vnet_subtable_holds(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			__u64 hash, __u32 line)
{
	__u32 passed;

	return locate(classifier, subtable, hash, line, &passed) >= 0;
}

int vnet_subtable_count_passed(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			       __u64 hash, __u32 line, __u32 *passed)
{
	__u32 lines = vnet_region_lines(subtable->region), at = VNET_HASH_BUCKET(hash);

	for (__u32 i = 0; i < lines; i++, at += VNET_HASH_STEP(hash)) {
		if (find_slot(bucket_at(classifier, subtable->region, at), hash, line) >= 0)
			return 0;
		passed[at & (lines - 1)]++;
	}
	return -EINVAL;
}

int vnet_subtable_drop(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
		       __u64 hash, __u32 line)
{
	__u32 at = VNET_HASH_BUCKET(hash), passed;
	int slot = locate(classifier, subtable, hash, line, &passed);
	struct vnet_bucket *bucket;

	if (slot < 0)
		return -EINVAL;
	bucket = bucket_at(classifier, subtable->region, at + passed * VNET_HASH_STEP(hash));
	vnet_publish(bucket->marks, bucket->marks & ~(0xffULL << 8 * slot));
	vnet_publish(bucket->slot[slot], 0);
	for (__u32 i = 0; i < passed; i++, at += VNET_HASH_STEP(hash))
		count_passing(bucket_at(classifier, subtable->region, at), -1);
	vnet_wide_of(subtable)->rules--;
	return 0;
}

void vnet_subtable_visit(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			 void (*step)(__u32 line, void *arg), void *arg)
{
	__u32 lines = (__u32)subtable->region ? vnet_region_lines(subtable->region) : 0;
	struct vnet_bucket *bucket;

	for (__u32 i = 0; i < lines; i++) {
		bucket = bucket_at(classifier, subtable->region, i);
		for (int slot = 0; slot < VNET_BUCKET_SLOTS; slot++)
			if (bucket->marks >> 8 * slot & 0xff)
				step(VNET_SLOT_LINE(bucket->slot[slot]), arg);
	}
}

void vnet_subtable_repair(struct vnet_classifier *classifier, struct vnet_subtable *subtable,
			  const __u32 *passed)
{
	struct vnet_bucket *bucket;
	__u64 passing;

	for (__u32 i = 0; i < vnet_region_lines(subtable->region); i++) {
		bucket = bucket_at(classifier, subtable->region, i);
		passing = passed[i] < 255 ? passed[i] : 255;
		vnet_publish(bucket->marks, bucket->marks << 8 >> 8 | passing << 56);
		for (int slot = 0; slot < VNET_BUCKET_SLOTS; slot++)
			if (!(bucket->marks >> 8 * slot & 0xff))
				bucket->slot[slot] = 0;
	}
}
