/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator's tables ask of their surroundings, natively; csrc/bpf/handler_env.h in the
 * kernel. */
#ifndef VNET_HANDLER_ENV_H
#define VNET_HANDLER_ENV_H

#include "classifier_lookup.h"
#include "handlers.h"

/* Beside the size of what changes, in bytes, for vnet_fix_transport_sum(). */
#define VNET_SUM_ADDRESS 0x10      /* it is of the pseudo header */
#define VNET_SUM_ZERO_IS_NONE 0x20 /* a checksum of 0 is none */
/* For vnet_patch(): no checksum in the frame makes up for it. */
#define VNET_PATCH_COUNTED 1

static inline struct vnet_image *vnet_image(struct vnet_ctx *ctx)
{
	return &ctx->datapath->handlers->classifier.image;
}

static inline struct vnet_handler *vnet_handler(struct vnet_ctx *ctx, __u32 index)
{
	return index < VNET_HANDLER_ROOM ? &ctx->datapath->handlers->memory.handler[index] : NULL;
}

/* What a METER takes from; NULL: a trace, which takes nothing. */
static inline struct vnet_rate *vnet_handler_rate(struct vnet_ctx *ctx,
						  struct vnet_handler *handler)
{
	return ctx->trace ? NULL : &handler->rate;
}

/* A trace takes nothing from the live ones. */
static inline struct vnet_packet_rate *vnet_packet_rate(struct vnet_ctx *ctx, __u32 local_id)
{
	struct vnet_packet_rate *rate = &ctx->datapath->handlers->memory.rate[local_id];

	if (local_id >= ctx->datapath->max_ports)
		return NULL;
	if (!ctx->trace)
		return rate;
	ctx->trace->rate[local_id != 0] = *rate;
	return &ctx->trace->rate[local_id != 0];
}

/* 0, or -1 when there is no room. */
static inline int vnet_packet_write(struct vnet_ctx *ctx, struct vnet_packet_in *in)
{
	if (ctx->trace)
		return 0;
	in->time_ns = ctx->now;
	return ctx->datapath->handlers->ring
		       ? vnet_ring_write(ctx->datapath->handlers->ring, in, ctx->data)
		       : -1;
}

/* A copy that goes past the tables of whoever gets it. */
static inline void vnet_emit_past(struct vnet_ctx *ctx, __u32 ifindex)
{
	vnet_emit(ctx, ifindex);
}

static inline void vnet_walk_seen(struct vnet_ctx *ctx, __u32 table, const struct vnet_hit *hit)
{
	struct vnet_trace *trace = ctx->trace;

	if (trace && trace->steps < VNET_TRACE_STEPS)
		trace->step[trace->steps++] = (struct vnet_trace_step){
			.table = table, .entry = hit->order ? hit->entry : 0, .action = hit->action};
}

/* vnet_store(), where it is said whether a sum from the hardware must be told of the change. */
static inline int vnet_patch(struct vnet_ctx *ctx, __u32 offset, const void *from, __u32 length,
			     __u64 flags)
{
	(void)flags;
	return vnet_store(ctx, offset, from, length);
}

/* A checksum at `offset` over what was `from` and is `to`, words of `size` bytes as they lie there. */
int vnet_fix_sum(struct vnet_ctx *ctx, __u32 offset, __u32 from, __u32 to, __u32 size);
int vnet_fix_transport_sum(struct vnet_ctx *ctx, __u32 offset, __u32 from, __u32 to, __u64 flags);

#endif
