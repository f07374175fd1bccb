/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of a connection table as they are, to be looked at page by page. */
#ifndef VNET_FLOWS_H
#define VNET_FLOWS_H

#include "datapath.h"

struct vnet_flow {
	struct vnet_conn_key key;
	struct vnet_conn conn;
};
_Static_assert(sizeof(struct vnet_flow) ==
		       sizeof(struct vnet_conn_key) + sizeof(struct vnet_conn),
	       "vnet_flow");

enum vnet_flow_verdict { VNET_FLOW_ANY = 0, VNET_FLOW_FRESH = 1, VNET_FLOW_STALE = 2 };

/* What to list; 0 is anything. `remote` has no bits outside of `mask`. */
struct vnet_flow_match {
	__u8 remote[16];
	__u8 mask[16];
	__u8 proto;
	__u8 state;
	__u8 verdict;
	__u8 family; /* 4 or 6 */
};
_Static_assert(sizeof(struct vnet_flow_match) == 36, "vnet_flow_match");

/*
 * A place in a listing: `skip` entries behind `position`. A position is a bucket of the table:
 * what comes and goes elsewhere moves nothing. -1 is the end.
 */
struct vnet_flow_cursor {
	long long position;
	__u32 skip;
};

static inline int vnet_flow_matches(const struct vnet_flow_match *match,
				    const struct vnet_conn_key *key, const struct vnet_conn *conn,
				    __u32 generation, __u64 now)
{
	/* A translation is no verdict, and says of none that it is old. */
	int stale = !key->way && conn->generation != generation;

	if (conn->expires_ns <= now || (match->proto && match->proto != key->proto) ||
	    (match->state && match->state != conn->state) ||
	    (match->family && match->family != key->family) ||
	    (match->verdict && match->verdict != (stale ? VNET_FLOW_STALE : VNET_FLOW_FRESH)))
		return 0;
	for (int i = 0; i < 16; i++)
		if ((key->remote[i] & match->mask[i]) != match->remote[i])
			return 0;
	return 1;
}

#endif
