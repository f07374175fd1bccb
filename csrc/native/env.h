/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the core asks of its surroundings, natively. csrc/bpf/env.h answers the same in the kernel.
 * Loads return 0, or -1 when the frame is too short; lookups return NULL when there is nothing.
 */
#ifndef VNET_ENV_H
#define VNET_ENV_H

#include <string.h>

#include "datapath.h"

#define VNET_ENV_TABLE(ctx, id) (&(ctx)->datapath->table[VNET_TABLE_##id])

static inline int vnet_load(struct vnet_ctx *ctx, __u32 offset, void *to, __u32 length)
{
	if (offset > ctx->length || length > ctx->length - offset)
		return -1;
	memcpy(to, ctx->data + offset, length);
	return 0;
}

static inline __u32 vnet_length(struct vnet_ctx *ctx)
{
	return ctx->length;
}

static inline __u32 vnet_ifindex(struct vnet_ctx *ctx)
{
	return ctx->ifindex;
}

/* Whether a VLAN tag was taken off the frame already. */
static inline int vnet_tagged(struct vnet_ctx *ctx)
{
	(void)ctx;
	return 0;
}

static inline __u64 vnet_now(struct vnet_ctx *ctx)
{
	return ctx->now;
}

static inline const struct vnet_settings *vnet_settings(struct vnet_ctx *ctx)
{
	return &ctx->datapath->settings;
}

static inline struct vnet_iface *vnet_iface(struct vnet_ctx *ctx, __u32 ifindex)
{
	if (ctx->trace)
		return &ctx->trace->iface;
	return vnet_table_get(VNET_ENV_TABLE(ctx, IFACES), &ifindex);
}

static inline struct vnet_port *vnet_port(struct vnet_ctx *ctx, __u32 local_id)
{
	return local_id < ctx->datapath->max_ports ? &ctx->datapath->ports[local_id] : NULL;
}

static inline __u32 *vnet_uplink(struct vnet_ctx *ctx, __u32 network)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, UPLINKS), &network);
}

static inline __u32 *vnet_find_mac(struct vnet_ctx *ctx, const struct vnet_mac_key *key)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, FDB), key);
}

static inline __u32 *vnet_member(struct vnet_ctx *ctx, const struct vnet_member_key *key)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, MEMBERS), key);
}

static inline int vnet_has_address(struct vnet_ctx *ctx, const struct vnet_address_key *key)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, ADDRESSES), key) != NULL;
}

static inline struct vnet_policy *vnet_policy(struct vnet_ctx *ctx, __u32 id)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, POLICIES), &id);
}

static inline struct vnet_rule *vnet_rule(struct vnet_ctx *ctx, const struct vnet_rule_key *key)
{
	struct vnet_rule *rule = vnet_table_get(VNET_ENV_TABLE(ctx, RULES), key);

	if (rule && ctx->trace && ctx->trace->rules < VNET_TRACE_RULES)
		ctx->trace->rule[ctx->trace->rules++] = rule->number;
	return rule;
}

static inline struct vnet_table *vnet_conns(struct vnet_ctx *ctx, __u32 local_id)
{
	struct vnet_datapath *datapath = ctx->datapath;

	if (local_id >= datapath->max_ports || !datapath->conns[local_id].bucket)
		return NULL;
	return &datapath->conns[local_id];
}

static inline struct vnet_conn *vnet_conn_find(struct vnet_ctx *ctx, __u32 local_id,
					       const struct vnet_conn_key *key)
{
	struct vnet_table *conns = vnet_conns(ctx, local_id);

	if (ctx->trace) {
		ctx->trace->conns++;
		ctx->trace->conn = *key;
	}
	return conns ? vnet_table_get(conns, key) : NULL;
}

static inline int vnet_conn_add(struct vnet_ctx *ctx, __u32 local_id,
				const struct vnet_conn_key *key, const struct vnet_conn *conn)
{
	struct vnet_table *conns = vnet_conns(ctx, local_id);

	return conns ? vnet_table_put(conns, key, conn) : -1;
}

static inline void vnet_conn_remove(struct vnet_ctx *ctx, __u32 local_id,
				    const struct vnet_conn_key *key)
{
	struct vnet_table *conns = vnet_conns(ctx, local_id);

	if (conns)
		vnet_table_remove(conns, key);
}

static inline struct vnet_counters *vnet_counters(struct vnet_ctx *ctx, __u32 local_id)
{
	return &ctx->datapath->counters[local_id];
}

static inline struct vnet_fragment *vnet_fragment_find(struct vnet_ctx *ctx, __u32 local_id,
						       const struct vnet_fragment_key *key)
{
	if (ctx->trace) {
		ctx->trace->fragments++;
		ctx->trace->fragment = *key;
	}
	return vnet_conns(ctx, local_id) ? vnet_table_get(&ctx->datapath->fragments[local_id], key)
					 : NULL;
}

static inline void vnet_loop(__u32 count, long (*step)(__u32 index, void *state), void *state)
{
	for (__u32 i = 0; i < count; i++)
		if (step(i, state))
			return;
}

static inline void vnet_emit(struct vnet_ctx *ctx, __u32 ifindex)
{
	if (ctx->outs < VNET_MAX_OUT)
		ctx->out[ctx->outs++] = ifindex;
}

static inline void vnet_count(__u64 *counter, __u64 value)
{
	*counter += value;
}

/* Makes room in a full table; see vnet_sweep_one. */
void vnet_conn_sweep(struct vnet_ctx *ctx, __u32 local_id, __u64 now);
void vnet_fragment_add(struct vnet_ctx *ctx, __u32 local_id, const struct vnet_fragment_key *key,
		       const struct vnet_fragment *first);

#endif
