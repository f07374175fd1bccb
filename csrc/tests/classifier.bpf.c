// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The classifier's look-up as programs of its own, for tests and benches: it answers what it is
 * asked in a frame, or looks up one after another of many frames' fields.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "classifier_kernel.h"
#include "classifier_lookup.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Of a bench; `trace_length` of them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_fields);
} trace SEC(".maps");

const volatile __u32 trace_length = 1;
__u32 next = 0;
__u64 sum = 0; /* of the actions: a look-up that nobody asks for could be left out */

SEC("tc")
int answer(struct __sk_buff *skb)
{
	struct classifier_answer reply = {};
	struct classifier_question question;

	if (bpf_skb_load_bytes(skb, 0, &question, sizeof(question)))
		return TC_ACT_SHOT;
	reply.error = vnet_classifier_lookup(NULL, question.set, &question.fields, &reply.hit);
	if (bpf_skb_store_bytes(skb, 0, &reply, sizeof(reply), 0))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

static __always_inline const struct vnet_fields *next_fields(void)
{
	__u32 index = next++;

	if (next >= trace_length)
		next = 0;
	return bpf_map_lookup_elem(&trace, &index);
}

SEC("tc")
int replay(struct __sk_buff *skb)
{
	const struct vnet_fields *fields = next_fields();
	struct vnet_hit hit = {};

	if (!fields || vnet_classifier_lookup(NULL, 0, fields, &hit))
		return TC_ACT_SHOT;
	sum += hit.action;
	return TC_ACT_OK;
}

/* What `replay` costs but for the look-up. */
SEC("tc")
int replay_nothing(struct __sk_buff *skb)
{
	const struct vnet_fields *fields = next_fields();

	if (!fields)
		return TC_ACT_SHOT;
	sum += fields->word[VNET_WORD_SOURCE];
	return TC_ACT_OK;
}
