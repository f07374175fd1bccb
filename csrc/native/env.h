/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the core asks of its surroundings, natively. csrc/bpf/env.h answers the same in the kernel.
 * Loads return 0, or -1 when the frame is too short; lookups return NULL when there is nothing.
 */
#ifndef VNET_ENV_H
#define VNET_ENV_H

#include <string.h>

#include "datapath.h"

#define VNET_OUTLINE static inline
#define VNET_APART static inline

#define VNET_ENV_TABLE(ctx, id) (&(ctx)->datapath->table[VNET_TABLE_##id])

static inline int vnet_load(struct vnet_ctx *ctx, __u32 offset, void *to, __u32 length)
{
	if (offset > ctx->length || length > ctx->length - offset)
		return -1;
	memcpy(to, ctx->data + offset, length);
	return 0;
}

/* Changes the frame, in a copy that the run owns; -1 when it is too short or memory is. */
int vnet_store(struct vnet_ctx *ctx, __u32 offset, const void *from, __u32 length);

/* The bytes at a fixed place, NULL when the frame ends before. */
static inline const __u8 *vnet_peek(struct vnet_ctx *ctx, __u32 offset, __u32 length)
{
	return length <= ctx->length && offset <= ctx->length - length ? ctx->data + offset : NULL;
}

static inline __u16 vnet_get16(const __u8 *from)
{
	__u16 word;

	memcpy(&word, from, sizeof(word));
	return word;
}

static inline __u32 vnet_get32(const __u8 *from)
{
	__u32 word;

	memcpy(&word, from, sizeof(word));
	return word;
}

static inline __u64 vnet_get64(const __u8 *from)
{
	__u64 word;

	memcpy(&word, from, sizeof(word));
	return word;
}

static inline __u32 vnet_length(struct vnet_ctx *ctx)
{
	return ctx->length;
}

/* Interfaces have no MTU here. */
static inline int vnet_fits(struct vnet_ctx *ctx, __u32 ifindex)
{
	(void)ctx, (void)ifindex;
	return 1;
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

/* Frames are not sent here by an agent, and do not tell where they came in. */
static inline int vnet_is_replayed(struct vnet_ctx *ctx)
{
	(void)ctx;
	return 0;
}

static inline int vnet_is_from_outside(struct vnet_ctx *ctx)
{
	(void)ctx;
	return 0;
}

static inline __u64 vnet_now(struct vnet_ctx *ctx)
{
	return ctx->now;
}

static inline __u64 vnet_now_exact(struct vnet_ctx *ctx)
{
	return ctx->now;
}

static inline __u32 vnet_gso_size(struct vnet_ctx *ctx)
{
	return ctx->gso_size;
}

/* A trace takes nothing of what the port may send. */
static inline struct vnet_meters *vnet_meters_of(struct vnet_ctx *ctx, __u32 local_id)
{
	return ctx->trace ? NULL : vnet_table_get(VNET_ENV_TABLE(ctx, METERS), &local_id);
}

/* A trace opens nothing. */
static inline struct vnet_port *vnet_opener(struct vnet_ctx *ctx, __u32 local_id)
{
	return ctx->trace ? NULL : &ctx->datapath->ports[local_id];
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

/* A trace must not leave hints, and its interface is none of the table's. */
static inline __u32 *vnet_hint(struct vnet_ctx *ctx, __u32 index)
{
	return ctx->trace ? NULL : &ctx->datapath->hints[index];
}

static inline struct vnet_port *vnet_port(struct vnet_ctx *ctx, __u32 local_id)
{
	return local_id < ctx->datapath->max_ports ? &ctx->datapath->ports[local_id] : NULL;
}

static inline __u32 *vnet_uplink(struct vnet_ctx *ctx, __u32 network)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, UPLINKS), &network);
}

static inline struct vnet_segment *vnet_segment(struct vnet_ctx *ctx, __u32 network)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, SEGMENTS), &network);
}

static inline __u32 *vnet_vlan(struct vnet_ctx *ctx, const struct vnet_vlan_key *key)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, VLANS), key);
}

static inline struct vnet_binding *vnet_binding(struct vnet_ctx *ctx,
						const struct vnet_binding_key *key)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, BINDINGS), key);
}

/* The 802.1Q tag; -1 for any other. */
static inline int vnet_load_tag(struct vnet_ctx *ctx, __u16 *tci)
{
	__u8 tag[4];

	if (vnet_load(ctx, 12, tag, sizeof(tag)) || tag[0] != 0x81 || tag[1] != 0)
		return -1;
	*tci = tag[2] << 8 | tag[3];
	return 0;
}

/* Of 16-bit words as they lie there, to be folded. */
static inline __u32 vnet_sum(const void *bytes, __u32 length, __u32 sum)
{
	__u16 word;

	for (__u32 i = 0; i < length; i += sizeof(word)) {
		memcpy(&word, (const __u8 *)bytes + i, sizeof(word));
		sum += word;
	}
	return sum;
}

/* Change the frame; -1, and nothing is changed, when it is too short or memory is. */
int vnet_pop_tag(struct vnet_ctx *ctx);
int vnet_push_tag(struct vnet_ctx *ctx, __u16 tci);
int vnet_rewrite(struct vnet_ctx *ctx, const __u8 *frame, __u32 length);

static inline __u32 *vnet_find_mac(struct vnet_ctx *ctx, const struct vnet_mac_key *key)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, FDB), key);
}

/* A trace moves nobody. */
static inline void vnet_put_mac_place(struct vnet_ctx *ctx, const struct vnet_mac_key *key, __u32 id)
{
	if (!ctx->trace)
		vnet_table_put(VNET_ENV_TABLE(ctx, FDB), key, &id);
}

static inline void vnet_remove_mac_place(struct vnet_ctx *ctx, const struct vnet_mac_key *key)
{
	if (!ctx->trace)
		vnet_table_remove(VNET_ENV_TABLE(ctx, FDB), key);
}

static inline __u32 *vnet_member(struct vnet_ctx *ctx, const struct vnet_member_key *key)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, MEMBERS), key);
}

static inline int vnet_has_address(struct vnet_ctx *ctx, const struct vnet_address_key *key)
{
	return vnet_table_get(VNET_ENV_TABLE(ctx, ADDRESSES), key) != NULL;
}

/* Each length of a prefix in turn, as vnet_is_peer(). */
static inline int vnet_is_pair(struct vnet_ctx *ctx, const struct vnet_pair_key *key)
{
	struct vnet_pair_key masked = *key;

	for (int length = 128; length >= 0; length--) {
		if (length < 128)
			masked.address[length / 8] &= 0xff00 >> length % 8;
		masked.prefix = VNET_PAIR_WHOLE_BITS + length;
		if (vnet_table_get(VNET_ENV_TABLE(ctx, PAIRS), &masked))
			return 1;
	}
	return 0;
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

/* Each length of a prefix in turn, the longest first: IPv4 has 33 of them. */
static inline int vnet_is_peer(struct vnet_ctx *ctx, const struct vnet_peer_key *key)
{
	static const __u8 mapped[12] = {[10] = 0xff, [11] = 0xff};
	int shortest = memcmp(key->address, mapped, sizeof(mapped)) ? 0 : 96;
	struct vnet_peer_key masked = *key;

	for (int length = 128; length >= shortest; length--) {
		if (length < 128)
			masked.address[length / 8] &= 0xff00 >> length % 8;
		masked.prefix = VNET_PEER_GROUP_BITS + length;
		if (vnet_table_get(VNET_ENV_TABLE(ctx, PEERS), &masked))
			return 1;
	}
	return 0;
}

static inline struct vnet_table *vnet_conns(struct vnet_ctx *ctx, __u32 local_id)
{
	struct vnet_datapath *datapath = ctx->datapath;

	if (local_id >= datapath->max_ports || !datapath->conns[local_id].bucket)
		return NULL;
	return &datapath->conns[local_id];
}

/* Each once; what is beyond the room is taken for one that is not there. */
static inline void vnet_trace_conn(struct vnet_trace *trace, const struct vnet_conn_key *key)
{
	if (!key->way)
		trace->last = *key;
	for (__u32 i = 0; i < trace->conns; i++)
		if (!memcmp(&trace->conn[i], key, sizeof(*key)))
			return;
	if (trace->conns < VNET_TRACE_CONNS)
		trace->conn[trace->conns++] = *key;
}

static inline struct vnet_conn *vnet_conn_find(struct vnet_ctx *ctx, __u32 local_id,
					       const struct vnet_conn_key *key)
{
	struct vnet_table *conns = vnet_conns(ctx, local_id);

	if (ctx->trace)
		vnet_trace_conn(ctx->trace, key);
	return conns ? vnet_table_get(conns, key) : NULL;
}

static inline struct vnet_conn *vnet_conn_draft(struct vnet_ctx *ctx)
{
	return &ctx->datapath->draft;
}

static inline __u32 vnet_new_mark(struct vnet_ctx *ctx)
{
	return ctx->new_mark;
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

static inline void vnet_leaves(struct vnet_ctx *ctx, __u32 ifindex)
{
	if (ctx->leaves)
		ctx->leaves(ctx->leaves_arg, ifindex, ctx->data, ctx->length);
}

static inline void vnet_emit(struct vnet_ctx *ctx, __u32 ifindex)
{
	vnet_leaves(ctx, ifindex);
	if (ctx->outs < VNET_MAX_OUT)
		ctx->out[ctx->outs++] = ifindex;
}

static inline void vnet_count(__u64 *counter, __u64 value)
{
	*counter += value;
}

/* A trace is nobody's frame: it is not captured. */
static inline struct vnet_capture *vnet_capture_find(struct vnet_ctx *ctx, __u32 local_id)
{
	return ctx->trace ? NULL : vnet_table_get(VNET_ENV_TABLE(ctx, CAPTURES), &local_id);
}

/* 0, or -1 when there is no room. */
static inline int vnet_capture_write(struct vnet_ctx *ctx, __u32 local_id, __u32 what,
				     __u32 captured)
{
	struct vnet_capture_record record;

	if (!ctx->datapath->ring)
		return -1;
	vnet_capture_fill(&record, local_id, what, ctx->length, captured);
	record.time_ns = ctx->now;
	return vnet_ring_write(ctx->datapath->ring, &record, ctx->data);
}

/* Makes room in a full table; see vnet_sweep_one. */
void vnet_conn_sweep(struct vnet_ctx *ctx, __u32 local_id, __u64 now);
void vnet_fragment_add(struct vnet_ctx *ctx, __u32 local_id, const struct vnet_fragment_key *key,
		       const struct vnet_fragment *first);

#endif
