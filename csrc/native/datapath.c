/* SPDX-License-Identifier: Apache-2.0 */
#include "datapath.h"

#include <stdlib.h>

#include "handlers.h"
#include "nat.h"
#include "pipeline.h"
#include "shortcut.h"
#include "tables.h"

static int init_tables(struct vnet_datapath *datapath)
{
	static const struct {
		__u32 key, value, max;
	} shape[VNET_TABLE_COUNT] = {
#define VNET_TABLE_SHAPE(id, name, key, value) [VNET_TABLE_##id] = {key, value, 0},
		VNET_TABLES(VNET_TABLE_SHAPE)
#undef VNET_TABLE_SHAPE
	};
	__u32 max[VNET_TABLE_COUNT] = {
		[VNET_TABLE_IFACES] = VNET_MAX_IFACES,
		[VNET_TABLE_UPLINKS] = VNET_MAX_IFACES,
		[VNET_TABLE_FDB] = datapath->max_ports * 2,
		[VNET_TABLE_MEMBERS] = datapath->max_ports * 2,
		[VNET_TABLE_ADDRESSES] = VNET_MAX_ADDRESSES,
		[VNET_TABLE_POLICIES] = VNET_MAX_POLICIES,
		[VNET_TABLE_RULES] = VNET_MAX_RULES,
		[VNET_TABLE_META] = VNET_META_COUNT,
		[VNET_TABLE_CAPTURES] = datapath->max_ports,
		[VNET_TABLE_SEGMENTS] = VNET_MAX_SEGMENTS,
		[VNET_TABLE_VLANS] = VNET_MAX_SEGMENTS,
		[VNET_TABLE_BINDINGS] = VNET_MAX_BINDINGS,
		[VNET_TABLE_GROUPS] = VNET_MAX_GROUP,
		[VNET_TABLE_PEERS] = VNET_MAX_PEERS,
		[VNET_TABLE_METERS] = datapath->max_ports,
		[VNET_TABLE_PAIRS] = VNET_MAX_PAIRS,
	};

	for (int i = 0; i < VNET_TABLE_COUNT; i++)
		if (vnet_table_init(&datapath->table[i], shape[i].key, shape[i].value, max[i]))
			return -1;
	return 0;
}

/* `ports` NULL: its own. Local ids are 1 to max_ports - 1. Returns -1 when memory is short. */
int vnet_datapath_init(struct vnet_datapath *datapath, __u32 max_ports, struct vnet_port *ports)
{
	memset(datapath, 0, sizeof(*datapath));
	vnet_settings_default(&datapath->settings);
	datapath->max_ports = max_ports;
	datapath->owns_ports = !ports;
	datapath->ports = ports ? ports : calloc(max_ports, sizeof(*ports));
	datapath->conns = calloc(max_ports, sizeof(*datapath->conns));
	datapath->fragments = calloc(max_ports, sizeof(*datapath->fragments));
	datapath->counters = calloc(max_ports, sizeof(*datapath->counters));
	if (!datapath->ports || !datapath->conns || !datapath->fragments || !datapath->counters ||
	    init_tables(datapath)) {
		vnet_datapath_free(datapath);
		return -1;
	}
	return 0;
}

void vnet_datapath_free(struct vnet_datapath *datapath)
{
	for (int i = 0; i < VNET_TABLE_COUNT; i++)
		vnet_table_free(&datapath->table[i]);
	for (__u32 i = 0; datapath->conns && datapath->fragments && i < datapath->max_ports; i++)
		vnet_datapath_conns_delete(datapath, i);
	if (datapath->owns_ports)
		free(datapath->ports);
	free(datapath->conns);
	free(datapath->fragments);
	free(datapath->counters);
	vnet_ring_free(datapath->ring);
	if (datapath->owns_handlers)
		vnet_handlers_unmake(datapath->handlers);
	memset(datapath, 0, sizeof(*datapath));
}

int vnet_datapath_conns_create(struct vnet_datapath *datapath, __u32 local_id, __u32 quota)
{
	struct vnet_table *conns = &datapath->conns[local_id];
	struct vnet_table *fragments = &datapath->fragments[local_id];

	vnet_datapath_conns_delete(datapath, local_id);
	if (vnet_table_init(conns, sizeof(struct vnet_conn_key), sizeof(struct vnet_conn), quota) ||
	    vnet_table_init(fragments, sizeof(struct vnet_fragment_key),
			    sizeof(struct vnet_fragment), VNET_FRAGMENTS)) {
		vnet_datapath_conns_delete(datapath, local_id);
		return -1;
	}
	memset(&datapath->counters[local_id], 0, sizeof(*datapath->counters));
	return 0;
}

void vnet_datapath_conns_delete(struct vnet_datapath *datapath, __u32 local_id)
{
	vnet_table_free(&datapath->conns[local_id]);
	vnet_table_free(&datapath->fragments[local_id]);
}

/* What the kernel does in programs of their own. */
static __u32 through_tables(struct vnet_ctx *ctx, enum vnet_hook hook,
			    struct vnet_verdict *verdict)
{
	__u32 direction = hook == VNET_FROM_PORT ? VNET_EGRESS : VNET_INGRESS, action;
	struct vnet_port *port = vnet_port_of(ctx);
	struct vnet_onward onward = {0};
	struct vnet_nat nat;
	struct vnet_packet p;
	int translated = 0;

	ctx->nat = &nat;
	if (!ctx->past_tables && ctx->datapath->handlers) {
		action = vnet_tables(ctx, port, direction, verdict, &onward);
		if (action != VNET_TABLED)
			return action;
		ctx->new_mark = onward.mark;
		if (port->flags & VNET_PORT_NAT || onward.nat[0] || onward.nat[1])
			translated = vnet_nat_begin(ctx, port->local_id, direction, onward.nat[0],
						    onward.nat[1]);
	}
	action = direction == VNET_EGRESS ? vnet_send(ctx, port, &p, verdict)
					  : vnet_deliver(ctx, port, verdict);
	return translated ? vnet_nat_leave(ctx, port, direction, action, verdict) : action;
}

struct vnet_result vnet_datapath_process(struct vnet_ctx *ctx, enum vnet_hook hook)
{
	const __u8 *data = ctx->data;
	__u32 length = ctx->length;
	struct vnet_verdict verdict = {0};
	struct vnet_result result;
	struct vnet_packet p;

	ctx->new_mark = 0;
	switch (hook) {
	case VNET_FROM_PORT:
		result.action = vnet_from_port(ctx, &p, &verdict);
		break;
	case VNET_TO_PORT:
		result.action = vnet_to_port(ctx, &verdict);
		break;
	case VNET_SHORTCUT:
		verdict.ifindex = vnet_take_shortcut(ctx);
		result.action = verdict.ifindex ? VNET_REDIRECT : VNET_PASS;
		break;
	default:
		result.action = vnet_from_uplink(ctx, &verdict);
	}
	if (result.action == VNET_TABLED)
		result.action = through_tables(ctx, hook, &verdict);
	result.action = vnet_finish(ctx, result.action, &verdict);
	result.reason = verdict.reason;
	result.ifindex = verdict.ifindex;
	if (vnet_is_sent(result.action))
		vnet_leaves(ctx, result.ifindex);
	else if (hook == VNET_TO_PORT && result.action == VNET_PASS)
		vnet_leaves(ctx, 0);
	/* The caller's frame is what it was. */
	free(ctx->changed);
	ctx->changed = NULL;
	ctx->data = data;
	ctx->length = length;
	return result;
}

struct sweep {
	__u64 now;
	__u32 unreplied;
	__u32 seen;
	__u32 from;
};

static int sweep_entry(const void *key, void *value, void *arg)
{
	struct sweep *sweep = arg;

	(void)key;
	if (sweep->seen++ < sweep->from || sweep->seen > sweep->from + VNET_SWEEP_ENTRIES)
		return 0;
	return vnet_sweep_one(value, sweep->now, &sweep->unreplied);
}

void vnet_conn_sweep(struct vnet_ctx *ctx, __u32 local_id, __u64 now)
{
	struct vnet_port *port = vnet_port(ctx, local_id);
	struct vnet_table *conns = vnet_conns(ctx, local_id);
	struct sweep sweep = {.now = now};

	if (!port || !conns || !vnet_sweep_due(port->quota, port->sweep_ns, now))
		return;
	port->sweep_ns = now;
	sweep.from = vnet_sweep_from(port->quota, now);
	vnet_table_visit(conns, sweep_entry, &sweep);
}

static int fragment_expired(const void *key, void *value, void *arg)
{
	(void)key;
	return ((struct vnet_fragment *)value)->expires_ns <= *(__u64 *)arg;
}

static int fragment_any(const void *key, void *value, void *arg)
{
	__u32 *left = arg;

	(void)key, (void)value;
	return *left ? (*left)--, 1 : 0;
}

/* A full table loses what expired, then some entry: the kernel's is LRU. */
void vnet_fragment_add(struct vnet_ctx *ctx, __u32 local_id, const struct vnet_fragment_key *key,
		       const struct vnet_fragment *first)
{
	struct vnet_table *fragments = &ctx->datapath->fragments[local_id];
	__u32 one = 1;

	if (!fragments->bucket || !vnet_table_put(fragments, key, first))
		return;
	if (!vnet_table_visit(fragments, fragment_expired, &ctx->now))
		vnet_table_visit(fragments, fragment_any, &one);
	vnet_table_put(fragments, key, first);
}
