/* SPDX-License-Identifier: Apache-2.0 */
/* What nat.h asks of its surroundings, natively; csrc/bpf/nat_env.h in the kernel. */
#ifndef VNET_NAT_ENV_H
#define VNET_NAT_ENV_H

static inline struct vnet_nat *vnet_nat(struct vnet_ctx *ctx)
{
	return ctx->nat;
}

/* As vnet_conn_find(), for a name that is not the frame's. */
static inline const struct vnet_conn *vnet_conn_seek(struct vnet_ctx *ctx, __u32 local_id,
						     const struct vnet_conn_key *key)
{
	struct vnet_conn_key last = {0};
	const struct vnet_conn *conn;

	if (ctx->trace)
		last = ctx->trace->last;
	conn = vnet_conn_find(ctx, local_id, key);
	if (ctx->trace)
		ctx->trace->last = last;
	return conn;
}

/* 0: it is there now; 1: another one that lives is; -1: there is no room. */
static inline int vnet_conn_claim(struct vnet_ctx *ctx, __u32 local_id,
				  const struct vnet_conn_key *key, const struct vnet_conn *conn)
{
	struct vnet_table *conns = vnet_conns(ctx, local_id);
	const struct vnet_conn *have = conns ? vnet_table_get(conns, key) : NULL;

	if (have && have->expires_ns > ctx->now)
		return 1;
	return vnet_conn_add(ctx, local_id, key, conn);
}

#endif
