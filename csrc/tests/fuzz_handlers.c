/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: tables of an operator, and frames through them. Input: how many rules (up to 15), each
 * of 32 bytes (table, what it matches, its three actions), then per frame one byte of hook (bit 0)
 * and whether it is tagged (bit 1), one byte of length, the frame.
 */
#include "bench.h"
#include "handlers.h"
#include "pipeline.h"

enum { RULE = 32, OTHER = 2, OTHER_TAP = 6 };

struct bytes {
	const __u8 *data;
	size_t size;
};

static __u64 take(struct bytes *bytes, int count)
{
	__u64 number = 0;

	while (count-- && bytes->size) {
		number = number << 8 | *bytes->data++;
		bytes->size--;
	}
	return number;
}

/* Of either end and family, to a few ports or to any. */
static void make_nat(struct vnet_op *op)
{
	__u32 first = op->arg >> 8;

	op->field = 1 + op->field % 4;
	op->value = first ? first | (first + (op->arg & 3)) << 16 : 0;
	op->arg = op->arg & 4 ? 6 : 4;
}

static void add_rule(struct vnet_handlers *handlers, struct bytes bytes)
{
	struct vnet_handler_rule rule = {
		.match = {.source_ports = {0, 65535}, .destination_ports = {0, 65535}}};
	__u32 table = take(&bytes, 1) & 15, word = take(&bytes, 1) % VNET_WORDS, op, entry;

	rule.match.priority = take(&bytes, 1);
	rule.match.mask.word[word] = take(&bytes, 1) << (word * 8 & 56);
	rule.match.value.word[word] = take(&bytes, 1) << (word * 8 & 56);
	for (int i = 0; i < 3; i++) {
		rule.actions.op[i].code = take(&bytes, 1) % (VNET_OP_NAT + 1);
		rule.actions.op[i].field = take(&bytes, 1) % (VNET_SET_MARK + 1);
		rule.actions.op[i].arg = take(&bytes, 2);
		rule.actions.op[i].value = rule.actions.op[i].arg & 3;
		rule.actions.op[i].wide = take(&bytes, 4) * 0x100000001ULL;
		if (rule.actions.op[i].code == VNET_OP_NAT)
			make_nat(&rule.actions.op[i]);
	}
	if (vnet_actions_check(&rule.actions, table, &op))
		CHECK(!vnet_handlers_insert(handlers, table, &rule, &entry));
	else
		CHECK(op < 3);
}

/* Headers stay where they are, and whatever is set the frame is as long as it was. */
static void see(void *arg, __u32 ifindex, const __u8 *data, __u32 length)
{
	const struct bytes *frame = arg;

	CHECK(ifindex == 0 || ifindex == BENCH_TAP || ifindex == OTHER_TAP ||
	      ifindex == BENCH_UPLINK);
	CHECK(length + 4 >= frame->size && length <= frame->size + 4);
	CHECK(length < 14 || data);
}

static void run(struct vnet_datapath *datapath, struct bytes *bytes)
{
	__u8 what = take(bytes, 1), size = take(bytes, 1), tag[4] = {0x81, 0, 0x20, 7};
	size_t length = size < bytes->size ? size : bytes->size, shift = what & 2 ? 4 : 0;
	__u8 *frame = malloc(length + shift + 1);
	struct bytes given = {frame, length + shift};
	struct vnet_ctx ctx = {
		.datapath = datapath, .data = frame, .length = length + shift,
		.ifindex = BENCH_TAP, .now = 1000000000000ULL, .leaves = see, .leaves_arg = &given};
	struct vnet_result result;

	CHECK(frame);
	if (shift && length < 12)
		ctx.length = given.size = length, shift = 0;
	memcpy(frame, bytes->data, length < 12 ? length : 12);
	memcpy(frame + 12, tag, shift);
	if (length > 12)
		memcpy(frame + 12 + shift, bytes->data + 12, length - 12);
	if (length >= 12)
		memcpy(frame + (what & 1 ? 0 : 6), bench_vm, 6);
	bytes->data += length;
	bytes->size -= length;
	result = vnet_datapath_process(&ctx, what & 1 ? VNET_TO_PORT : VNET_FROM_PORT);
	CHECK(result.action != VNET_TABLED && result.reason < VNET_REASON_COUNT);
	CHECK((result.action == VNET_DROP) == (result.reason != VNET_REASON_NONE));
	CHECK(ctx.data == frame && !ctx.changed);
	bench_walk(datapath, ctx.now);
	free(frame);
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size)
{
	static struct vnet_handlers *handlers;
	struct bytes bytes = {data, size};
	struct vnet_datapath datapath;
	__u8 drained[1 << 16];
	__u32 rules;

	if (!handlers) {
		handlers = vnet_handlers_make(4);
		CHECK(handlers);
	}
	bench_init(&datapath);
	datapath.handlers = handlers;
	datapath.ports[OTHER] = datapath.ports[BENCH_PORT];
	datapath.ports[OTHER].local_id = OTHER;
	datapath.ports[OTHER].ifindex = OTHER_TAP;
	for (rules = take(&bytes, 1) & 15; rules && bytes.size >= RULE; rules--) {
		add_rule(handlers, (struct bytes){bytes.data, RULE});
		bytes.data += RULE;
		bytes.size -= RULE;
	}
	/* An answer to a neighbour is another frame. */
	datapath.ports[BENCH_PORT].flags = VNET_PORT_ADDRESSES | VNET_PORT_TABLES;
	while (bytes.size >= 2)
		run(&datapath, &bytes);
	for (__u32 table = 0; table < VNET_HANDLER_TABLES; table++)
		CHECK(!vnet_handlers_replace(handlers, table, NULL, 0, VNET_MISS_CONTINUE, NULL));
	CHECK(!handlers->rules && !vnet_handlers_used(handlers) && !handlers->known.count);
	while (vnet_ring_read(handlers->ring, drained, sizeof(drained)))
		;
	vnet_datapath_free(&datapath);
	return 0;
}
