/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"

#include <stdlib.h>

/* What a frame may add to what it finds: a connection, and its translation's two entries. */
#define ROOM (VNET_TRACE_CONNS + 3)

/* Shares the live tables; owns what a frame changes. */
static int make_scratch(struct vnet_datapath *scratch, const struct vnet_datapath *live)
{
	*scratch = *live;
	scratch->owns_ports = 0;
	scratch->ring = NULL;
	scratch->ports = malloc(live->max_ports * sizeof(*live->ports));
	scratch->conns = calloc(live->max_ports, sizeof(*live->conns));
	scratch->fragments = calloc(live->max_ports, sizeof(*live->fragments));
	scratch->counters = calloc(live->max_ports, sizeof(*live->counters));
	if (!scratch->ports || !scratch->conns || !scratch->fragments || !scratch->counters)
		return -1;
	memcpy(scratch->ports, live->ports, live->max_ports * sizeof(*live->ports));
	return 0;
}

static void free_scratch(struct vnet_datapath *scratch, __u32 local_id)
{
	if (scratch->conns && scratch->fragments)
		vnet_datapath_conns_delete(scratch, local_id);
	free(scratch->ports);
	free(scratch->conns);
	free(scratch->fragments);
	free(scratch->counters);
}

static void parse(struct vnet_ctx *ctx, struct vnet_traced *traced)
{
	struct vnet_packet *p = &traced->packet;

	traced->parsed = vnet_parse_ethernet(ctx, p);
	if (!traced->parsed && (p->ethertype == VNET_ETH_IPV4 || p->ethertype == VNET_ETH_IPV6))
		traced->parsed = vnet_parse_ip(ctx, p);
}

struct fetched_conn {
	int has;
	struct vnet_conn_key key;
	struct vnet_conn conn;
};

/* What has been fetched so far. */
struct fetched {
	int conns, tried_fragment, has_fragment;
	struct fetched_conn conn[VNET_TRACE_CONNS];
	struct vnet_fragment_key fragment_key;
	struct vnet_fragment fragment;
};

static const struct fetched_conn *find(const struct fetched *have, const struct vnet_conn_key *key)
{
	for (int i = 0; i < have->conns; i++)
		if (!memcmp(&have->conn[i].key, key, sizeof(*key)))
			return &have->conn[i];
	return NULL;
}

/* Whether it is there, and was not had. */
static int fetch_conn(const struct vnet_trace_source *source, const struct vnet_conn_key *key,
		      struct fetched *have)
{
	struct fetched_conn *conn;

	if (have->conns == VNET_TRACE_CONNS || find(have, key))
		return 0;
	conn = &have->conn[have->conns];
	have->conns++;
	conn->key = *key;
	conn->has = !source->conn(source->arg, &conn->key, &conn->conn);
	return conn->has;
}

/* Whether the last run asked for something that is there and that it did not have. */
static int fetch(const struct vnet_trace_source *source, const struct vnet_trace *asked,
		 struct fetched *have)
{
	if (asked->fragments && !have->tried_fragment) {
		have->tried_fragment = 1;
		have->fragment_key = asked->fragment;
		have->has_fragment =
			!source->fragment(source->arg, &have->fragment_key, &have->fragment);
		if (have->has_fragment)
			return 1;
	}
	for (__u32 i = 0; i < asked->conns; i++)
		if (fetch_conn(source, &asked->conn[i], have))
			return 1;
	return 0;
}

static int run(struct vnet_ctx *ctx, __u32 local_id, enum vnet_hook hook,
	       const struct fetched *have, struct vnet_traced *traced)
{
	struct vnet_datapath *scratch = ctx->datapath;

	if (vnet_datapath_conns_create(scratch, local_id, ROOM))
		return -1;
	for (int i = 0; i < have->conns; i++)
		if (have->conn[i].has &&
		    vnet_table_put(&scratch->conns[local_id], &have->conn[i].key,
				   &have->conn[i].conn))
			return -1;
	if ((have->has_fragment && vnet_table_put(&scratch->fragments[local_id],
						  &have->fragment_key, &have->fragment)))
		return -1;
	scratch->ports[local_id] = traced->port;
	traced->asked = (struct vnet_trace){
		.iface = {.kind = VNET_IFACE_PORT, .local_id = local_id},
	};
	ctx->trace = &traced->asked;
	ctx->outs = 0;
	traced->result = vnet_datapath_process(ctx, hook);
	return 0;
}

int vnet_trace_frame(const struct vnet_datapath *live, __u32 local_id, enum vnet_hook hook,
		     const struct vnet_trace_source *source, struct vnet_ctx *ctx,
		     struct vnet_traced *traced)
{
	struct fetched have = {0};
	const struct fetched_conn *before;
	struct vnet_datapath scratch;
	struct vnet_conn *conn;
	int failed;

	memset(traced, 0, sizeof(*traced));
	failed = make_scratch(&scratch, live);
	if (!failed) {
		ctx->datapath = &scratch;
		traced->port = scratch.ports[local_id];
		parse(ctx, traced);
		do
			failed = run(ctx, local_id, hook, &have, traced);
		while (!failed && fetch(source, &traced->asked, &have));
	}
	if (!failed) {
		before = traced->asked.last.family ? find(&have, &traced->asked.last) : NULL;
		traced->had = before && before->has;
		if (traced->had)
			traced->before = before->conn;
		conn = traced->asked.last.family
			       ? vnet_table_get(&scratch.conns[local_id], &traced->asked.last)
			       : NULL;
		traced->has = conn != NULL;
		if (conn)
			traced->after = *conn;
	}
	free_scratch(&scratch, local_id);
	return failed ? -1 : 0;
}
