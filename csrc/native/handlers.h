/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer's side of the operator's tables: rules in the classifier, and what they do in an array
 * beside it, in this process or mapped from the kernel. Rules that do the same share one entry of
 * the array, which is used again when no rule has it and no program can be reading it.
 *
 * Functions return 0, or -errno as classifier.h says; nothing has changed then.
 */
#ifndef VNET_NATIVE_HANDLERS_H
#define VNET_NATIVE_HANDLERS_H

#include "classifier.h"
#include "handler_abi.h"
#include "ring.h"
#include "table.h"

#define VNET_HANDLER_RULES 100000
/* Lines of the classifier, and handlers: every rule may do something else, and a table is replaced
 * while all that it had is still there. */
#define VNET_HANDLER_LINES (1U << 20)
#define VNET_HANDLER_ROOM (2 * VNET_HANDLER_RULES + VNET_MISS_COUNT)

/* Where readers look. */
struct vnet_handler_memory {
	union vnet_line *lines;        /* VNET_HANDLER_LINES of them, zeroed */
	struct vnet_handler *handler;  /* VNET_HANDLER_ROOM */
	struct vnet_packet_rate *rate; /* by local id */
	void (*wait)(void *arg);       /* as vnet_classifier_init(); NULL: no readers beside */
};

/* Owns all but the memory. */
struct vnet_handlers {
	struct vnet_handler_memory memory;
	struct vnet_classifier classifier;
	struct vnet_table known; /* what is done -> index */
	__u32 *spare;            /* indices that nobody has */
	__u32 spares;
	__u32 *gone; /* that readers may still have */
	__u32 gones;
	__u32 rules;
	__u32 translating; /* indices that have a NAT */
	struct vnet_ring *ring; /* of this process; NULL: the kernel has one */
};

struct vnet_handler_rule {
	struct vnet_match match; /* its `action` is not looked at */
	struct vnet_actions actions;
	__u32 cookie;
};

int vnet_handlers_init(struct vnet_handlers *handlers, const struct vnet_handler_memory *memory);
void vnet_handlers_free(struct vnet_handlers *handlers);
/* With memory of its own, for ports below `max_ports`; NULL, with errno, when that is short. */
struct vnet_handlers *vnet_handlers_make(__u32 max_ports);
void vnet_handlers_unmake(struct vnet_handlers *handlers);

/* Whether the programs can do all of it in this table; else *op is which one they cannot. */
int vnet_actions_check(const struct vnet_actions *actions, __u32 table, __u32 *op);

/* `entries` are the rules' names, until they are deleted or the table is replaced. */
int vnet_handlers_replace(struct vnet_handlers *handlers, __u32 table,
			  const struct vnet_handler_rule *rules, __u32 count, enum vnet_miss miss,
			  __u32 *entries);
int vnet_handlers_insert(struct vnet_handlers *handlers, __u32 table,
			 const struct vnet_handler_rule *rule, __u32 *entry);
/* A table that is left with nothing, and continues on a miss, is none. */
int vnet_handlers_delete(struct vnet_handlers *handlers, __u32 table, __u32 entry);

/* What a miss does; -1: there is no such table. */
int vnet_handlers_miss(struct vnet_handlers *handlers, __u32 table);
/* Each rule of a table, in no order. */
void vnet_handlers_visit(struct vnet_handlers *handlers, __u32 table,
			 void (*step)(void *arg, __u32 entry, const struct vnet_handler_rule *rule),
			 void *arg);
/* Whether any table has something. */
int vnet_handlers_used(struct vnet_handlers *handlers);

#endif
