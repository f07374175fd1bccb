/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The operator's tables: a frame goes through them from table 0 on, before policy and forwarding
 * see it. Each table's best rule says what is done; GOTO leads only forward, so that the way ends.
 */
#ifndef VNET_TABLES_H
#define VNET_TABLES_H

#include "mangle.h"

/* Where a frame goes from a table: to the one with this number, or ... */
enum vnet_way {
	VNET_WAY_NORMAL = VNET_HANDLER_TABLES, /* past all of them */
	VNET_WAY_DROP,
	VNET_WAY_LEAVE, /* as walk->action says */
	VNET_WAY_GONE,  /* the controller has it */
};

/* The frame as others see it, with its tag; -1 when it does not let itself be changed. */
VNET_INLINE int vnet_walk_dress(struct vnet_ctx *ctx, const struct vnet_walk *walk)
{
	return vnet_walk_tagged(walk) ? vnet_push_tag(ctx, walk->tci) : 0;
}

VNET_INLINE int vnet_walk_undress(struct vnet_ctx *ctx, const struct vnet_walk *walk)
{
	return vnet_walk_tagged(walk) ? vnet_pop_tag(ctx) : 0;
}

VNET_INLINE __u32 vnet_walk_drop(struct vnet_walk *walk, __u32 reason)
{
	walk->reason = reason;
	return VNET_WAY_DROP;
}

/* A port that frames can be sent to, and not the frame's own: it would come back for ever. */
VNET_INLINE __u32 vnet_walk_tap(struct vnet_ctx *ctx, const struct vnet_walk *walk, __u32 local_id)
{
	const struct vnet_port *port = vnet_port(ctx, local_id);

	if (!port || !local_id || port->local_id != local_id || port->role != VNET_ACTIVE ||
	    local_id == walk->fields.in_port)
		return 0;
	return port->ifindex;
}

VNET_INLINE __u32 vnet_walk_output(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 local_id)
{
	walk->action = VNET_REDIRECT;
	if (local_id)
		walk->ifindex = vnet_walk_tap(ctx, walk, local_id);
	else
		walk->action = vnet_way_out(ctx, walk->fields.network, &walk->ifindex);
	if (!walk->ifindex)
		return vnet_walk_drop(walk, VNET_REASON_NO_DESTINATION);
	return vnet_walk_dress(ctx, walk) ? vnet_walk_drop(walk, VNET_REASON_VLAN)
					  : VNET_WAY_LEAVE;
}

/*
 * A copy to a port. A mirror's goes past its tables: two that mirror to each other would never end.
 * Others end where the kernel's nesting does.
 */
VNET_INLINE __u32 vnet_walk_copy(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 local_id,
				 int is_mirror)
{
	__u32 ifindex = vnet_walk_tap(ctx, walk, local_id);

	if (!ifindex)
		return VNET_WAY_NORMAL;
	if (vnet_walk_dress(ctx, walk))
		return vnet_walk_drop(walk, VNET_REASON_VLAN);
	if (is_mirror)
		vnet_emit_past(ctx, ifindex);
	else
		vnet_emit(ctx, ifindex);
	return vnet_walk_undress(ctx, walk) ? vnet_walk_drop(walk, VNET_REASON_VLAN)
					    : VNET_WAY_NORMAL;
}

/* Whether the port's rate has room for one more; as vnet_capture_take(). */
VNET_INLINE int vnet_packet_take(struct vnet_ctx *ctx, __u32 local_id, __u64 now)
{
	const struct vnet_packet_rate *rate = vnet_packet_rate(ctx, 0);
	struct vnet_packet_rate *of = vnet_packet_rate(ctx, local_id);
	__u64 due;

	if (!rate || !of)
		return 0;
	due = of->due_ns;
	if (due < now)
		due = now;
	if (due - now > rate->burst_ns)
		return 0;
	of->due_ns = due + rate->interval_ns;
	return 1;
}

/* `what`: bytes of the frame, the table and enum vnet_packet_in_why, from the lowest bits on. */
VNET_OUTLINE __u32 vnet_walk_controller(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 what,
					__u32 cookie)
{
	struct vnet_packet_in in = {.cookie = cookie, .table = what >> 16, .why = what >> 24};

	if (!walk)
		return VNET_WAY_DROP;
	if (!vnet_packet_take(ctx, walk->fields.in_port, vnet_now(ctx)))
		return vnet_walk_drop(walk, VNET_REASON_CONTROLLER_RATE);
	in.metadata = walk->fields.metadata;
	in.local_id = walk->fields.in_port;
	in.direction = vnet_walk_direction(walk);
	in.length = vnet_length(ctx);
	in.captured = what & 0xffff;
	if (in.captured > in.length)
		in.captured = in.length;
	in.tagged = vnet_walk_tagged(walk) != 0;
	in.vlan = in.tagged ? walk->tci : 0;
	return vnet_packet_write(ctx, &in) ? vnet_walk_drop(walk, VNET_REASON_CONTROLLER_RATE)
					   : VNET_WAY_GONE;
}

/* Actions under way. */
struct vnet_doing {
	struct vnet_ctx *ctx;
	struct vnet_walk *walk;
	struct vnet_handler *handler;
	__u32 table;
	__u32 way;
	__u32 action; /* the handler's index */
};

VNET_INLINE __u32 vnet_push(struct vnet_walk *walk, __u16 tci)
{
	if (vnet_walk_tagged(walk))
		return vnet_walk_drop(walk, VNET_REASON_VLAN);
	vnet_walk_tag(walk, tci);
	return VNET_WAY_NORMAL;
}

VNET_INLINE __u32 vnet_walk_meter(struct vnet_doing *doing)
{
	struct vnet_rate *rate = vnet_handler_rate(doing->ctx, doing->handler);
	__u32 frames, bytes;

	if (!rate)
		return VNET_WAY_NORMAL;
	vnet_wire_size(doing->ctx, &frames, &bytes);
	if (vnet_rate_take(rate, vnet_now_exact(doing->ctx) * VNET_METER_TICKS, bytes))
		return VNET_WAY_NORMAL;
	return vnet_walk_drop(doing->walk, VNET_REASON_RATE);
}

/* 1 when it was the last one. */
static long vnet_do(__u32 index, void *state)
{
	struct vnet_doing *doing = state;
	const struct vnet_op *op = &doing->handler->actions.op[index & (VNET_MAX_OPS - 1)];

	switch (op->code) {
	case VNET_OP_NONE:
	case VNET_OP_NORMAL:
		return 1;
	case VNET_OP_SET:
		vnet_set_field(doing->ctx, doing->walk, op->field, op->wide);
		return 0;
	case VNET_OP_PUSH_VLAN:
		doing->way = vnet_push(doing->walk, op->arg);
		return doing->way != VNET_WAY_NORMAL;
	case VNET_OP_POP_VLAN:
		doing->walk->fields.vlan = 0;
		return 0;
	case VNET_OP_NAT:
		doing->walk->nat[(op->field - VNET_NAT_SOURCE) & 1] = doing->action;
		return 0;
	case VNET_OP_METER:
		doing->way = vnet_walk_meter(doing);
		return doing->way != VNET_WAY_NORMAL;
	case VNET_OP_MIRROR:
	case VNET_OP_COPY:
		doing->way = vnet_walk_copy(doing->ctx, doing->walk, op->value,
					    op->code == VNET_OP_MIRROR);
		return doing->way != VNET_WAY_NORMAL;
	case VNET_OP_OUTPUT:
		doing->way = vnet_walk_output(doing->ctx, doing->walk, op->value);
		return 1;
	case VNET_OP_CONTROLLER:
		doing->way = vnet_walk_controller(
			doing->ctx, doing->walk,
			op->arg | doing->table << 16 | VNET_IN_RULE << 24, op->value);
		return 1;
	case VNET_OP_GOTO:
		if (op->arg > doing->table && op->arg < VNET_HANDLER_TABLES) {
			doing->way = op->arg;
			return 1;
		}
		break;
	}
	doing->way = vnet_walk_drop(doing->walk, VNET_REASON_HANDLER);
	return 1;
}
_Static_assert((VNET_MAX_OPS & (VNET_MAX_OPS - 1)) == 0, "VNET_MAX_OPS masks an index");

/* What a table's rule, or its miss, does with the frame: where it goes on. */
VNET_OUTLINE __u32 vnet_walk_do(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 table,
				__u32 action)
{
	struct vnet_doing doing = {
		.ctx = ctx, .walk = walk, .table = table & 15, .way = VNET_WAY_NORMAL,
		.action = action};

	if (!walk)
		return VNET_WAY_DROP;
	switch (action) {
	case VNET_MISS_CONTINUE:
		return doing.table + 1;
	case VNET_MISS_DROP:
		return vnet_walk_drop(walk, VNET_REASON_HANDLER);
	case VNET_MISS_CONTROLLER:
		return vnet_walk_controller(
			ctx, walk, VNET_PACKET_SNAP | doing.table << 16 | VNET_IN_MISS << 24, 0);
	}
	doing.handler = vnet_handler(ctx, action);
	if (!doing.handler)
		return vnet_walk_drop(walk, VNET_REASON_HANDLER);
	vnet_loop(VNET_MAX_OPS, vnet_do, &doing);
	return doing.way;
}

/* The action that a table has for the frame. */
VNET_OUTLINE __u32 vnet_walk_find(struct vnet_ctx *ctx, struct vnet_walk *walk, __u32 table)
{
	struct vnet_hit hit = {0};

	if (!walk || vnet_classifier_lookup(vnet_image(ctx), table, &walk->fields, &hit))
		return VNET_MISS_CONTINUE;
	vnet_walk_seen(ctx, table, &hit);
	return hit.action;
}

VNET_INLINE void vnet_count_left(struct vnet_ctx *ctx, const struct vnet_port *port,
				 __u32 direction)
{
	struct vnet_counters *counters = vnet_counters(ctx, port->local_id);

	if (!counters || direction != VNET_EGRESS)
		return;
	counters->tx_frames++;
	counters->tx_bytes += vnet_length(ctx);
}

/* What the tables have for those who come behind them. */
struct vnet_onward {
	__u32 mark;   /* for the connection that the frame may begin */
	__u32 nat[2]; /* as in struct vnet_walk */
};

/*
 * The whole way of a frame through the tables. VNET_TABLED: policy and forwarding come next, for the
 * frame as it is now. Otherwise it is counted, and what is returned becomes of it.
 */
VNET_INLINE __u32 vnet_tables(struct vnet_ctx *ctx, const struct vnet_port *port, __u32 direction,
			      struct vnet_verdict *verdict, struct vnet_onward *onward)
{
	struct vnet_walk walk = {0};
	__u32 way = 0, action;

	walk.reason = vnet_walk_begin(ctx, &walk, port->local_id, direction);
	if (walk.reason)
		way = VNET_WAY_DROP;
	for (int i = 0; i < VNET_HANDLER_TABLES && way < VNET_HANDLER_TABLES; i++) {
		action = vnet_walk_find(ctx, &walk, way);
		way = vnet_walk_do(ctx, &walk, way, action);
	}
	verdict->reason = VNET_REASON_NONE;
	if (way == VNET_WAY_NORMAL) {
		onward->mark = walk.fields.mark;
		onward->nat[0] = walk.nat[0];
		onward->nat[1] = walk.nat[1];
		if (!vnet_walk_dress(ctx, &walk))
			return VNET_TABLED;
		walk.reason = VNET_REASON_VLAN;
	}
	/* The VM's limits are for all that it sends. */
	if (way == VNET_WAY_LEAVE && direction == VNET_EGRESS) {
		walk.reason = vnet_limit(ctx, port, direction, VNET_REASON_NONE);
		if (walk.reason)
			way = VNET_WAY_DROP;
	}
	if (way == VNET_WAY_LEAVE || way == VNET_WAY_GONE) {
		action = way == VNET_WAY_LEAVE ? walk.action : VNET_HANDED;
		verdict->ifindex = walk.ifindex;
		vnet_count_left(ctx, port, direction);
		vnet_capture(ctx, port, direction, action, VNET_REASON_NONE);
		return action;
	}
	verdict->reason = walk.reason;
	vnet_count_drop(vnet_counters(ctx, port->local_id), walk.reason);
	vnet_capture(ctx, port, direction, VNET_DROP, walk.reason);
	return VNET_DROP;
}

#endif
