/* SPDX-License-Identifier: Apache-2.0 */
/* Rules as they come in, and as they stand in the image. */
#include "classifier_internal.h"

static const enum vnet_word middle_words[] = VNET_ENTRY_MIDDLE_WORDS;
static const enum vnet_word wide_words[] = VNET_ENTRY_WIDE_WORDS;

int vnet_match_check(const struct vnet_match *match)
{
	if (match->source_ports[0] > match->source_ports[1] ||
	    match->destination_ports[0] > match->destination_ports[1] ||
	    match->mask.word[VNET_WORD_TRANSPORT] & VNET_TRANSPORT_PORTS)
		return -EINVAL;
	return 0;
}

/* The leading bits that two ports share. */
static __u16 shared_bits(const __u16 *ports)
{
	__u32 differ = ports[0] ^ ports[1];

	return differ ? (__u16)(0xffff0000U >> __builtin_clz(differ << 16)) : 0xffff;
}

void vnet_match_bits(const struct vnet_match *match, struct vnet_bits *bits)
{
	for (int i = 0; i < VNET_WORDS; i++)
		bits->value.word[i] = match->value.word[i] & match->mask.word[i];
	bits->mask = match->mask;
	bits->mask.source_port = shared_bits(match->source_ports);
	bits->mask.destination_port = shared_bits(match->destination_ports);
	bits->value.source_port = match->source_ports[0] & bits->mask.source_port;
	bits->value.destination_port = match->destination_ports[0] & bits->mask.destination_port;
}

static int any(const struct vnet_match *match, const enum vnet_word *words)
{
	__u64 mask = 0;

	for (int i = 0; i < 4; i++)
		mask |= match->mask.word[words[i]];
	return mask != 0;
}

static void write_words(union vnet_line *line, const struct vnet_match *match,
			const enum vnet_word *words)
{
	for (int i = 0; i < 4; i++) {
		line->words.pair[i][0] = match->value.word[words[i]] & match->mask.word[words[i]];
		line->words.pair[i][1] = match->mask.word[words[i]];
	}
}

static void read_words(const union vnet_line *line, struct vnet_match *match,
		       const enum vnet_word *words)
{
	for (int i = 0; i < 4; i++) {
		match->value.word[words[i]] = line->words.pair[i][0];
		match->mask.word[words[i]] = line->words.pair[i][1];
	}
}

static __u32 more_lines(__u8 more)
{
	return !!(more & VNET_ENTRY_MIDDLE) + !!(more & VNET_ENTRY_WIDE);
}

__u32 vnet_entry_block(const struct vnet_entry *entry)
{
	return vnet_block_order(1 + more_lines(entry->more));
}

__u32 vnet_entry_write(struct vnet_classifier *classifier, const struct vnet_match *match,
		       __u32 sequence)
{
	const struct vnet_fields *value = &match->value, *mask = &match->mask;
	__u8 more = (any(match, middle_words) ? VNET_ENTRY_MIDDLE : 0) |
		    (any(match, wide_words) ? VNET_ENTRY_WIDE : 0);
	__u32 index = vnet_blocks_take(&classifier->blocks, vnet_block_order(1 + more_lines(more)));
	union vnet_line *line = vnet_at(classifier, index);

	if (!index)
		return 0;
	line->entry = (struct vnet_entry){
		.order = (__u64)match->priority << 32 | (__u32)~sequence,
		.action = match->action,
		.more = more,
		.source_ports = {match->source_ports[0], match->source_ports[1]},
		.destination_ports = {match->destination_ports[0], match->destination_ports[1]},
		.transport_mask = mask->word[VNET_WORD_TRANSPORT] >> 32,
		.source_mask = mask->word[VNET_WORD_SOURCE],
		.destination_mask = mask->word[VNET_WORD_DESTINATION],
	};
	line->entry.transport =
		value->word[VNET_WORD_TRANSPORT] >> 32 & line->entry.transport_mask;
	line->entry.source = value->word[VNET_WORD_SOURCE] & line->entry.source_mask;
	line->entry.destination = value->word[VNET_WORD_DESTINATION] & line->entry.destination_mask;
	if (more & VNET_ENTRY_MIDDLE)
		write_words(++line, match, middle_words);
	if (more & VNET_ENTRY_WIDE)
		write_words(++line, match, wide_words);
	return index;
}

void vnet_entry_read(struct vnet_classifier *classifier, __u32 index, struct vnet_match *match)
{
	const union vnet_line *line = vnet_at(classifier, index);
	const struct vnet_entry *entry = &line->entry;

	memset(match, 0, sizeof(*match));
	match->priority = entry->order >> 32;
	match->action = entry->action;
	memcpy(match->source_ports, entry->source_ports, sizeof(match->source_ports));
	memcpy(match->destination_ports, entry->destination_ports,
	       sizeof(match->destination_ports));
	match->value.word[VNET_WORD_TRANSPORT] = (__u64)entry->transport << 32;
	match->mask.word[VNET_WORD_TRANSPORT] = (__u64)entry->transport_mask << 32;
	match->value.word[VNET_WORD_SOURCE] = entry->source;
	match->mask.word[VNET_WORD_SOURCE] = entry->source_mask;
	match->value.word[VNET_WORD_DESTINATION] = entry->destination;
	match->mask.word[VNET_WORD_DESTINATION] = entry->destination_mask;
	if (entry->more & VNET_ENTRY_MIDDLE)
		read_words(++line, match, middle_words);
	if (entry->more & VNET_ENTRY_WIDE)
		read_words(++line, match, wide_words);
}

void vnet_entry_bits(struct vnet_classifier *classifier, __u32 line, struct vnet_bits *bits)
{
	struct vnet_match match;

	vnet_entry_read(classifier, line, &match);
	vnet_match_bits(&match, bits);
}

__u64 vnet_entry_slot(const struct vnet_entry *entry, __u64 hash, __u32 line)
{
	const __u16 *ports = entry->destination_ports;
	__u32 proto = (entry->transport_mask & 0xff) == 0xff ? entry->transport & 0xff
							      : VNET_SLOT_ANY_PROTO;

	return vnet_slot(hash, line, proto, ports[0] == ports[1] ? ports[0] : 0);
}
