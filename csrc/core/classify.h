/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a policy admits a new connection. The number of probes is the number of ways in which
 * the policy's rules mask fields (VNET_MAX_TUPLES at most): it depends on the rules alone, no
 * traffic can make it grow, and no number of members of a group.
 */
#ifndef VNET_CLASSIFY_H
#define VNET_CLASSIFY_H

#include "conn.h"
#include "env.h"

struct vnet_question {
	struct vnet_ctx *ctx;
	const struct vnet_policy *policy;
	const __u8 *remote;
	union {
		struct vnet_rule_key key; /* policy id; the rest is filled in per tuple */
		struct vnet_peer_key peer; /* see vnet_is_member() */
	};
	__u16 dport;              /* ICMP: type << 8 | code */
	__u8 direction;
	__u8 family;
	__u8 proto;
	__u8 allowed;
};

/*
 * Whether the remote end is a member of the group. The key takes the place of the rule's: on Linux
 * 6.1 all callers' stacks together have no room for both.
 */
VNET_INLINE int vnet_is_member(struct vnet_question *q, __u32 group)
{
	__u32 policy = q->key.policy;
	int found;

	q->peer.prefix = VNET_PEER_PREFIX;
	q->peer.group = group;
	__builtin_memcpy(q->peer.address, q->remote, 16);
	found = vnet_is_peer(q->ctx, &q->peer);
	q->key.policy = policy;
	return found;
}

static long vnet_classify_tuple(__u32 index, void *state)
{
	struct vnet_question *q = state;
	const struct vnet_tuple *tuple;
	const __u64 *remote, *mask;
	struct vnet_rule *rule;
	__u64 *masked;

	if (index >= VNET_MAX_TUPLES)
		return 1;
	tuple = &q->policy->tuple[index];
	if ((tuple->direction & ~VNET_TUPLE_GROUP) != q->direction)
		return 0;
	if (tuple->flags & VNET_TUPLE_FAMILY && tuple->family != q->family)
		return 0;
	if (tuple->direction & VNET_TUPLE_GROUP && !vnet_is_member(q, tuple->group))
		return 0;
	q->key.tuple = index;
	q->key.proto = tuple->flags & VNET_TUPLE_PROTO ? q->proto : 0;
	q->key.dport = q->dport & tuple->dport;
	remote = (const __u64 *)q->remote;
	mask = (const __u64 *)tuple->remote;
	masked = (__u64 *)q->key.remote;
	masked[0] = remote[0] & mask[0];
	masked[1] = remote[1] & mask[1];
	rule = vnet_rule(q->ctx, &q->key);
	if (!rule)
		return 0;
	q->allowed = 1;
	return 1;
}

/* `remote` is the peer's address; `dport` the VM's port on ingress, the peer's on egress. */
VNET_INLINE __u32 vnet_classify(struct vnet_ctx *ctx, __u32 policy_id, __u8 direction, __u8 family,
				__u8 proto, const __u8 *remote, __u16 dport)
{
	struct vnet_question q = {
		.ctx = ctx,
		.policy = vnet_policy(ctx, policy_id),
		.remote = remote,
		.dport = dport,
		.direction = direction,
		.family = family,
		.proto = proto,
	};

	if (!q.policy)
		return VNET_REASON_NO_POLICY;
	q.key.policy = policy_id;
	vnet_loop(q.policy->tuples, vnet_classify_tuple, &q);
	return q.allowed ? VNET_REASON_NONE : VNET_REASON_POLICY;
}

/*
 * Whether a policy admits a connection, judged by who began it: for new connections, for those
 * whose verdict is stale, and for those that come from another host. One function for all three,
 * in the kernel and outside of it. `conn` NULL: a new one that `direction` begins.
 */
VNET_INLINE __u32 vnet_conn_admit(struct vnet_ctx *ctx, __u32 policy_id,
				  const struct vnet_conn_key *key, const struct vnet_conn *conn,
				  __u8 direction)
{
	const struct vnet_policy *policy;
	__u32 reason;
	__u16 dport;

	if (conn)
		direction = vnet_conn_origin(conn);
	dport = direction == VNET_INGRESS ? key->local_port : key->remote_port;
	if (key->family == 4 && key->proto == 1)
		dport = 8 << 8; /* echo request: of ICMP nothing else makes a connection */
	else if (key->family == 6 && key->proto == 58)
		dport = 128 << 8;
	reason = vnet_classify(ctx, policy_id, direction, key->family, key->proto, key->remote,
			       dport);
	if (reason != VNET_REASON_POLICY || !conn || !(conn->flags & VNET_CONN_ASSURED))
		return reason;
	policy = vnet_policy(ctx, policy_id);
	return policy && policy->flags & VNET_POLICY_KEEP ? VNET_REASON_NONE : reason;
}

#endif
