/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of masks. Rules with many different masks can share one subtable if it hashes only what
 * all of them ask for; so that few subtables serve many rules, they use few lengths of prefixes.
 */
#include "classifier_internal.h"
#include "classifier_relax.h"

/* Of an address' 128 bits, the shortest first; IPv4's are those behind 96. */
static const __u8 lengths[] = {0,   16,  24,  32,  40,  48,  56,  64,  80,  96,  104, 108,
			       112, 114, 116, 118, 120, 122, 124, 126, 128};

/* The leading bits of the half that are set in `mask`; 64 or less. */
static __u32 leading(__u64 mask)
{
	__u64 clear = __builtin_bswap64(~mask);

	return clear ? (__u32)__builtin_clzll(clear) : 64;
}

static __u64 half_mask(__u32 length)
{
	if (length >= 64)
		return ~0ULL;
	return length ? __builtin_bswap64(~0ULL << (64 - length)) : 0;
}

/*
 * IPv4's rules need no mask of the upper half, so the lower one counts by itself if that is not
 * there.
 */
static __u32 address_length(const __u64 *mask)
{
	__u32 high = leading(mask[0]);

	if (!mask[0])
		return mask[1] ? 64 + leading(mask[1]) : 0;
	return high < 64 ? high : 64 + leading(mask[1]);
}

static void mask_address(const __u64 *whole, __u32 length, __u64 *mask)
{
	mask[0] = whole[0] & half_mask(length);
	mask[1] = length > 64 ? whole[1] & half_mask(length - 64) : 0;
}

__u32 vnet_lattice_lengths(const __u64 *mask, __u8 *found)
{
	__u32 length = address_length(mask), count = 0;

	for (__u32 i = 0; i < sizeof(lengths) && lengths[i] <= length; i++) {
		/* Shorter than a half that is not asked for: the same as nothing. */
		if (lengths[i] && !mask[0] && lengths[i] <= 96)
			continue;
		found[count++] = lengths[i];
	}
	return count;
}

void vnet_lattice_mask(const struct vnet_fields *whole, const struct vnet_lattice *point,
		       struct vnet_fields *mask)
{
	__u64 transport = whole->word[VNET_WORD_TRANSPORT], ports = 0;

	memset(mask, 0, sizeof(*mask));
	mask_address(&whole->word[VNET_WORD_SOURCE_HIGH], point->source,
		     &mask->word[VNET_WORD_SOURCE_HIGH]);
	mask_address(&whole->word[VNET_WORD_DESTINATION_HIGH], point->destination,
		     &mask->word[VNET_WORD_DESTINATION_HIGH]);
	if (point->flags & VNET_LATTICE_SOURCE_PORT && whole->source_port == 0xffff)
		ports |= VNET_TRANSPORT_SOURCE_PORT;
	if (point->flags & VNET_LATTICE_DESTINATION_PORT && whole->destination_port == 0xffff)
		ports |= VNET_TRANSPORT_DESTINATION_PORT;
	if (point->flags & VNET_LATTICE_REST) {
		ports |= transport & ~VNET_TRANSPORT_PORTS;
		for (int i = VNET_WORD_PORT; i < VNET_WORDS; i++)
			mask->word[i] = whole->word[i];
	}
	mask->word[VNET_WORD_TRANSPORT] = transport & ports;
}

void vnet_lattice_floor(const struct vnet_fields *whole, struct vnet_fields *mask)
{
	struct vnet_lattice point = {.flags = VNET_LATTICE_FLAGS - 1};
	__u8 found[VNET_LATTICE_LENGTHS];

	point.source = found[vnet_lattice_lengths(&whole->word[VNET_WORD_SOURCE_HIGH], found) - 1];
	point.destination =
		found[vnet_lattice_lengths(&whole->word[VNET_WORD_DESTINATION_HIGH], found) - 1];
	vnet_lattice_mask(whole, &point, mask);
}

/* For rules that come one by one, as a writer that does not know the others guesses. */
void vnet_relax_mask(const struct vnet_fields *mask, int step, struct vnet_fields *relaxed)
{
	struct vnet_lattice point = {.flags = VNET_LATTICE_REST};
	__u8 source[sizeof(lengths)], destination[sizeof(lengths)];
	__u32 sources = vnet_lattice_lengths(&mask->word[VNET_WORD_SOURCE_HIGH], source);
	__u32 destinations =
		vnet_lattice_lengths(&mask->word[VNET_WORD_DESTINATION_HIGH], destination);
	__u32 back;

	if (step >= VNET_RELAX_STEPS - 1) {
		*relaxed = *mask;
		return;
	}
	/* Three, then two lengths less, then none, and exact ports. */
	back = step == 0 ? 3 : step == 1 ? 2 : 0;
	point.source = source[sources > back + 1 ? sources - 1 - back : sources > 1];
	point.destination =
		destination[destinations > back + 1 ? destinations - 1 - back : destinations > 1];
	if (step == VNET_RELAX_STEPS - 2 || !(point.source | point.destination))
		point.flags |= VNET_LATTICE_SOURCE_PORT | VNET_LATTICE_DESTINATION_PORT;
	vnet_lattice_mask(mask, &point, relaxed);
}
