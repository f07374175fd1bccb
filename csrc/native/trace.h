/* SPDX-License-Identifier: Apache-2.0 */
/* One frame run on the side: what the datapath would do, with nothing of it changed. */
#ifndef VNET_TRACE_H
#define VNET_TRACE_H

#include "parse.h"

/*
 * Where the live entries are: 0 and the entry, or -1. Only what the run asks for is fetched, so
 * that a port with a million connections costs no more than one with none.
 */
struct vnet_trace_source {
	void *arg;
	int (*conn)(void *arg, const struct vnet_conn_key *key, struct vnet_conn *conn);
	int (*fragment)(void *arg, const struct vnet_fragment_key *key,
			struct vnet_fragment *fragment);
};

struct vnet_traced {
	struct vnet_result result;
	struct vnet_trace asked;
	struct vnet_packet packet;
	struct vnet_port port; /* as it was before */
	__u32 parsed;          /* reason */
	__u32 had, has;        /* whether there is a connection before, and after */
	struct vnet_conn before, after;
};

/*
 * Runs the frame of `ctx` (data, length, now) at the port over the live tables, which must not
 * change meanwhile. Returns 0, or -1 when memory is short. `ctx->out` has the copies.
 */
int vnet_trace_frame(const struct vnet_datapath *live, __u32 local_id, enum vnet_hook hook,
		     const struct vnet_trace_source *source, struct vnet_ctx *ctx,
		     struct vnet_traced *traced);

#endif
