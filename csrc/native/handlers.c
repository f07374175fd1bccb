/* SPDX-License-Identifier: Apache-2.0 */
#include "handlers.h"

#include <stdlib.h>

#include "classifier_internal.h"
#include "meter.h"

/* What makes two handlers the same. */
struct content {
	struct vnet_actions actions;
	__u32 cookie;
	__u32 zero;
};

static struct vnet_handler *at(struct vnet_handlers *handlers, __u32 index)
{
	return &handlers->memory.handler[index];
}

int vnet_handlers_init(struct vnet_handlers *handlers, const struct vnet_handler_memory *memory)
{
	int error;

	memset(handlers, 0, sizeof(*handlers));
	handlers->memory = *memory;
	error = vnet_classifier_init(&handlers->classifier, VNET_HANDLER_LINES, VNET_HANDLER_TABLES,
				     memory->lines, memory->wait, NULL);
	if (error)
		return error;
	handlers->spare = malloc(VNET_HANDLER_ROOM * sizeof(*handlers->spare));
	handlers->gone = malloc(VNET_HANDLER_ROOM * sizeof(*handlers->gone));
	if (!handlers->spare || !handlers->gone ||
	    vnet_table_init(&handlers->known, sizeof(struct content), sizeof(__u32),
			    VNET_HANDLER_ROOM)) {
		vnet_handlers_free(handlers);
		return -ENOMEM;
	}
	for (__u32 i = VNET_HANDLER_ROOM - 1; i >= VNET_MISS_COUNT; i--)
		handlers->spare[handlers->spares++] = i;
	return 0;
}

void vnet_handlers_free(struct vnet_handlers *handlers)
{
	vnet_classifier_free(&handlers->classifier);
	vnet_table_free(&handlers->known);
	vnet_ring_free(handlers->ring);
	free(handlers->spare);
	free(handlers->gone);
	memset(handlers, 0, sizeof(*handlers));
}

/* -- what rules do */

static int ends(__u8 code)
{
	return code == VNET_OP_NONE || code == VNET_OP_NORMAL || code == VNET_OP_DROP ||
	       code == VNET_OP_OUTPUT || code == VNET_OP_GOTO || code == VNET_OP_CONTROLLER;
}

static int op_is_known(const struct vnet_op *op, __u32 table)
{
	switch (op->code) {
	case VNET_OP_GOTO:
		return op->arg > table && op->arg < VNET_HANDLER_TABLES;
	case VNET_OP_SET:
		return op->field >= VNET_SET_SOURCE_MAC && op->field <= VNET_SET_MARK;
	case VNET_OP_METER:
		return op->value != 0 && op->wide != 0 && op->wide <= ~0U;
	case VNET_OP_NAT:
		return op->field >= VNET_NAT_SOURCE && op->field <= VNET_NAT_DESTINATION_HIGH &&
		       (op->value & 0xffff) <= op->value >> 16 &&
		       !(op->value & 0xffff) == !(op->value >> 16);
	case VNET_OP_MIRROR:
	case VNET_OP_COPY:
		return op->value != 0;
	case VNET_OP_PUSH_VLAN:
	case VNET_OP_POP_VLAN:
		return 1;
	}
	return ends(op->code);
}

int vnet_actions_check(const struct vnet_actions *actions, __u32 table, __u32 *op)
{
	int meters = 0;

	for (*op = 0; *op < VNET_MAX_OPS; ++*op) {
		meters += actions->op[*op].code == VNET_OP_METER;
		if (!op_is_known(&actions->op[*op], table) || meters > 1)
			return 0;
		if (ends(actions->op[*op].code))
			return 1;
	}
	return 1;
}

/* A byte takes 8e9 / (1000 kbit/s) ns; as exactly as `mult` has room for. */
static void set_rate(struct vnet_rate *rate, const struct vnet_op *op)
{
	const __u64 ticks = 8000000ULL * VNET_METER_TICKS;

	for (rate->shift = 34; (ticks << rate->shift) / op->value >> 43; rate->shift--)
		;
	rate->mult = (ticks << rate->shift) / op->value;
	rate->burst = (unsigned __int128)op->wide * 125 * ticks / op->value;
}

static int translates(const struct vnet_actions *actions)
{
	for (int i = 0; i < VNET_MAX_OPS && !ends(actions->op[i].code); i++)
		if (actions->op[i].code == VNET_OP_NAT)
			return 1;
	return 0;
}

/* The index of what a rule does, with one user more; 0 without room. */
static __u32 take(struct vnet_handlers *handlers, const struct vnet_handler_rule *rule)
{
	struct content content = {.actions = rule->actions, .cookie = rule->cookie};
	__u32 *known = vnet_table_get(&handlers->known, &content), index;

	if (known) {
		at(handlers, *known)->users++;
		return *known;
	}
	if (!handlers->spares && handlers->gones) {
		if (handlers->memory.wait)
			handlers->memory.wait(NULL);
		while (handlers->gones)
			handlers->spare[handlers->spares++] = handlers->gone[--handlers->gones];
	}
	if (!handlers->spares)
		return 0;
	index = handlers->spare[handlers->spares - 1];
	if (vnet_table_put(&handlers->known, &content, &index))
		return 0;
	handlers->spares--;
	handlers->translating += translates(&rule->actions);
	*at(handlers, index) = (struct vnet_handler){
		.actions = rule->actions, .cookie = rule->cookie, .users = 1};
	/* What lies behind an action that ends is nobody's, and was not checked. */
	for (int i = 0; i < VNET_MAX_OPS && !ends(rule->actions.op[i].code); i++)
		if (rule->actions.op[i].code == VNET_OP_METER)
			set_rate(&at(handlers, index)->rate, &rule->actions.op[i]);
	return index;
}

/* One user less. */
static void give(struct vnet_handlers *handlers, __u32 index)
{
	struct vnet_handler *handler = at(handlers, index);
	struct content content = {.actions = handler->actions, .cookie = handler->cookie};

	if (--handler->users)
		return;
	vnet_table_remove(&handlers->known, &content);
	handlers->translating -= translates(&handler->actions);
	handlers->gone[handlers->gones++] = index;
}

/* -- what is there */

struct visit {
	struct vnet_handlers *handlers;
	void (*step)(void *arg, __u32 entry, const struct vnet_handler_rule *rule);
	void *arg;
};

static void visit_line(__u32 line, void *arg)
{
	const struct visit *visit = arg;
	struct vnet_handler_rule rule = {0};
	const struct vnet_handler *handler;

	vnet_entry_read(&visit->handlers->classifier, line, &rule.match);
	if (rule.match.action >= VNET_HANDLER_ROOM)
		return;
	handler = at(visit->handlers, rule.match.action);
	rule.actions = handler->actions;
	rule.cookie = handler->cookie;
	visit->step(visit->arg, line, &rule);
}

void vnet_handlers_visit(struct vnet_handlers *handlers, __u32 table,
			 void (*step)(void *arg, __u32 entry, const struct vnet_handler_rule *rule),
			 void *arg)
{
	struct vnet_classifier *classifier = &handlers->classifier;
	const struct vnet_set *set = vnet_set_of(classifier, table);
	struct visit visit = {.handlers = handlers, .step = step, .arg = arg};

	for (__u32 i = 0; set && i < set->used; i++)
		vnet_subtable_visit(classifier, vnet_subtable_of(classifier, set, i), visit_line,
				    &visit);
}

int vnet_handlers_miss(struct vnet_handlers *handlers, __u32 table)
{
	const struct vnet_set *set = vnet_set_of(&handlers->classifier, table);

	return set ? (int)set->miss : -1;
}

int vnet_handlers_used(struct vnet_handlers *handlers)
{
	for (__u32 table = 0; table < VNET_HANDLER_TABLES; table++)
		if (vnet_handlers_miss(handlers, table) >= 0)
			return 1;
	return 0;
}

/* -- changes */

struct old {
	__u32 *index;
	__u32 count;
};

static void note_old(void *arg, __u32 entry, const struct vnet_handler_rule *rule)
{
	struct old *old = arg;

	(void)entry;
	old->index[old->count++] = rule->match.action;
}

static __u32 rules_of(struct vnet_handlers *handlers, __u32 table)
{
	const struct vnet_set *set = vnet_set_of(&handlers->classifier, table);

	return set ? set->rules : 0;
}

static int put(struct vnet_handlers *handlers, __u32 table, const struct vnet_match *matches,
	       __u32 count, enum vnet_miss miss, __u32 *entries)
{
	if (count || miss != VNET_MISS_CONTINUE)
		return vnet_classifier_replace(&handlers->classifier, table, matches, count, miss,
					       entries);
	return vnet_handlers_miss(handlers, table) < 0
		       ? 0
		       : vnet_classifier_remove(&handlers->classifier, table);
}

int vnet_handlers_replace(struct vnet_handlers *handlers, __u32 table,
			  const struct vnet_handler_rule *rules, __u32 count, enum vnet_miss miss,
			  __u32 *entries)
{
	__u32 before, taken = 0;
	struct vnet_match *matches;
	struct old old = {0};
	int error = -ENOMEM;

	if (table >= VNET_HANDLER_TABLES || miss >= VNET_MISS_COUNT)
		return -EINVAL;
	before = rules_of(handlers, table);
	if (handlers->rules - before + (__u64)count > VNET_HANDLER_RULES)
		return -E2BIG;
	matches = malloc((count + 1UL) * sizeof(*matches));
	old.index = malloc((before + 1UL) * sizeof(*old.index));
	if (!matches || !old.index)
		goto out;
	vnet_handlers_visit(handlers, table, note_old, &old);
	for (; taken < count; taken++) {
		matches[taken] = rules[taken].match;
		matches[taken].action = take(handlers, &rules[taken]);
		if (!matches[taken].action)
			goto undo;
	}
	error = put(handlers, table, matches, count, miss, entries);
	if (!error) {
		handlers->rules += count - before;
		while (old.count)
			give(handlers, old.index[--old.count]);
		goto out;
	}
undo:
	while (taken)
		give(handlers, matches[--taken].action);
out:
	free(matches);
	free(old.index);
	return error;
}

int vnet_handlers_insert(struct vnet_handlers *handlers, __u32 table,
			 const struct vnet_handler_rule *rule, __u32 *entry)
{
	struct vnet_match match = rule->match;
	int error;

	if (table >= VNET_HANDLER_TABLES)
		return -EINVAL;
	if (vnet_handlers_miss(handlers, table) < 0)
		return vnet_handlers_replace(handlers, table, rule, 1, VNET_MISS_CONTINUE, entry);
	if (handlers->rules >= VNET_HANDLER_RULES)
		return -E2BIG;
	match.action = take(handlers, rule);
	if (!match.action)
		return -ENOMEM;
	error = vnet_classifier_insert(&handlers->classifier, table, &match, entry);
	if (error)
		give(handlers, match.action);
	else
		handlers->rules++;
	return error;
}

int vnet_handlers_delete(struct vnet_handlers *handlers, __u32 table, __u32 entry)
{
	struct vnet_match match;
	int error;

	if (table >= VNET_HANDLER_TABLES)
		return -EINVAL;
	error = vnet_classifier_read(&handlers->classifier, table, entry, &match);
	if (!error)
		error = vnet_classifier_delete(&handlers->classifier, table, entry);
	if (error)
		return error;
	give(handlers, match.action);
	handlers->rules--;
	if (!rules_of(handlers, table) &&
	    vnet_handlers_miss(handlers, table) == VNET_MISS_CONTINUE)
		vnet_classifier_remove(&handlers->classifier, table);
	return 0;
}
