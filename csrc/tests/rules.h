/* SPDX-License-Identifier: Apache-2.0 */
/* Rules and frames that often meet, and the search through all rules that the classifier replaces. */
#ifndef VNET_TEST_RULES_H
#define VNET_TEST_RULES_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classifier.h"
#include "classifier_lookup.h"

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#define RULES_MISS 0xffffffffU

/* Where random choices come from: a generator, or a fuzzer's bytes (then 0 for ever). */
struct choices {
	__u64 state;
	const __u8 *data;
	size_t size;
};

static inline __u32 choose(struct choices *choices, __u32 below)
{
	__u32 value = 0;

	if (choices->data) {
		for (int i = 0; i < 2 && choices->size; i++, choices->size--)
			value = value << 8 | *choices->data++;
		return value % below;
	}
	choices->state += 0x9e3779b97f4a7c15ULL;
	return (__u32)(vnet_hash_finish(choices->state) >> 32) % below;
}

static inline void choose_address(struct choices *choices, __u8 *address, int family)
{
	memset(address, 0, 16);
	address[15] = choose(choices, 4);
	address[14] = choose(choices, 3);
	if (family == 4) {
		address[10] = address[11] = 0xff;
		address[12] = 10;
		address[13] = choose(choices, 2);
	} else {
		address[0] = 0x20;
		address[7] = choose(choices, 3);
	}
}

static inline __u16 choose_port(struct choices *choices)
{
	static const __u16 ports[] = {0, 1, 22, 53, 79, 80, 81, 443, 1023, 1024, 8080, 65535};

	return ports[choose(choices, sizeof(ports) / sizeof(*ports))];
}

static inline void choose_frame(struct choices *choices, struct vnet_fields *frame)
{
	static const __u8 protos[] = {1, 6, 17, 255};

	memset(frame, 0, sizeof(*frame));
	frame->family = choose(choices, 3) ? 4 : 6;
	choose_address(choices, frame->source, frame->family);
	choose_address(choices, frame->destination, frame->family);
	frame->proto = protos[choose(choices, 4)];
	frame->source_port = choose_port(choices);
	frame->destination_port = choose_port(choices);
	frame->type = choose(choices, 2);
	frame->in_port = choose(choices, 2);
	frame->kind = choose(choices, 2) ? VNET_KIND_EGRESS : 0;
	frame->source_mac[5] = choose(choices, 2);
	frame->ethertype = 0x800;
	frame->vlan = choose(choices, 2) ? VNET_VLAN_PRESENT | choose(choices, 2) : 0;
	frame->network = choose(choices, 2);
	frame->destination_identity = choose(choices, 2);
	frame->metadata = choose(choices, 2);
}

static inline void mask_prefix(__u8 *mask, __u32 length)
{
	for (__u32 i = 0; i < 16; i++, length = length > 8 ? length - 8 : 0)
		mask[i] = length >= 8 ? 0xff : (__u8)(0xff00 >> length);
}

static inline void choose_ports(struct choices *choices, __u16 port, __u16 *range)
{
	range[0] = 0;
	range[1] = 65535;
	switch (choose(choices, 4)) {
	case 0:
		range[0] = range[1] = port;
		break;
	case 1:
		range[0] = port - port % 64;
		range[1] = range[0] + 63;
		break;
	case 2:
		range[port >= 1024] = port >= 1024 ? 65535 : 0;
		range[port < 1024] = port < 1024 ? 1023 : 1024;
	}
}

static inline void choose_match(struct choices *choices, struct vnet_match *match)
{
	static const __u8 lengths[] = {0, 33, 64, 96, 104, 112, 119, 120, 127, 128};
	struct vnet_fields *mask = &match->mask;

	memset(match, 0, sizeof(*match));
	choose_frame(choices, &match->value);
	mask_prefix(mask->source, lengths[choose(choices, sizeof(lengths))]);
	mask_prefix(mask->destination, lengths[choose(choices, sizeof(lengths))]);
	if (match->value.family == 4 && choose(choices, 2))
		mask->word[VNET_WORD_SOURCE_HIGH] = mask->word[VNET_WORD_DESTINATION_HIGH] = 0;
	mask->family = choose(choices, 4) ? 255 : 0;
	mask->proto = choose(choices, 4) ? 255 : 0;
	choose_ports(choices, match->value.source_port, match->source_ports);
	choose_ports(choices, match->value.destination_port, match->destination_ports);
	if (!choose(choices, 4)) {
		mask->type = choose(choices, 2) ? 255 : 1;
		mask->kind = choose(choices, 2) ? VNET_KIND_EGRESS : 0;
		mask->in_port = choose(choices, 2) ? ~0U : 0;
		mask->source_mac[5] = choose(choices, 2) ? 255 : 0;
		mask->vlan = choose(choices, 2) ? VNET_VLAN_PRESENT | 0xfff : 0;
		mask->network = choose(choices, 2) ? ~0U : 0;
		mask->destination_identity = choose(choices, 2) ? 1 : 0;
		mask->metadata = choose(choices, 2) ? 0x101 : 0;
	}
	if (!choose(choices, 8))
		mask->destination[choose(choices, 16)] ^= 1 << choose(choices, 8);
	match->priority = choose(choices, 8);
}

static inline int matches(const struct vnet_match *match, const struct vnet_fields *frame)
{
	const __u8 *value = (const __u8 *)&match->value, *mask = (const __u8 *)&match->mask;
	const __u8 *bytes = (const __u8 *)frame;

	for (size_t i = 0; i < sizeof(*frame); i++)
		if ((bytes[i] & mask[i]) != (value[i] & mask[i]))
			return 0;
	return frame->source_port >= match->source_ports[0] &&
	       frame->source_port <= match->source_ports[1] &&
	       frame->destination_port >= match->destination_ports[0] &&
	       frame->destination_port <= match->destination_ports[1];
}

/* A rule as the oracle knows it; `age` counts insertions, entry 0 is none. */
struct known {
	struct vnet_match match;
	__u32 entry;
	__u32 age;
};

/* The action of the greatest priority, of the first inserted among equals. */
static inline __u32 search(const struct known *known, __u32 count, const struct vnet_fields *frame)
{
	const struct known *best = NULL;

	for (__u32 i = 0; i < count; i++) {
		if (!known[i].entry || !matches(&known[i].match, frame))
			continue;
		if (!best || known[i].match.priority > best->match.priority ||
		    (known[i].match.priority == best->match.priority && known[i].age < best->age))
			best = &known[i];
	}
	return best ? best->match.action : RULES_MISS;
}

static inline __u32 look_up(struct vnet_classifier *classifier, __u32 set,
			    const struct vnet_fields *frame)
{
	struct vnet_hit hit = {0};

	CHECK(!vnet_classifier_lookup(&classifier->image, set, frame, &hit));
	CHECK(!hit.order == (hit.action == RULES_MISS));
	return hit.action;
}

#define CHECK_IMAGE(classifier)                                                                    \
	do {                                                                                       \
		const char *wrong = vnet_classifier_check(classifier);                             \
		if (wrong) {                                                                       \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, wrong);                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#endif
