/* SPDX-License-Identifier: Apache-2.0 */
/* Records from another host: each is judged here as the kernel would judge its first frame. */
#include "nat.h"

int vnet_import_judge(struct vnet_datapath *datapath, __u32 local_id,
		      const struct vnet_conn_record *record, __u64 now, struct vnet_conn_key *key,
		      struct vnet_conn *conn, struct vnet_import *import)
{
	struct vnet_port *port = &datapath->ports[local_id];
	struct vnet_ctx ctx = {.datapath = datapath, .now = now};
	const __u8 *own;

	vnet_record_decode(record, &datapath->settings, key, conn, now);
	if (conn->expires_ns <= now) {
		import->refused_expired++;
		return 0;
	}
	/* A translation admits nothing: its connection's own record is judged. */
	own = key->way == VNET_NAT_INGRESS ? vnet_nat_address(conn, 0) : key->local;
	if (!vnet_owns(&ctx, port, own)) {
		import->refused_address++;
		return 0;
	}
	if (key->way)
		return 1;
	if (vnet_conn_admit(&ctx, port->policy >> 32, key, conn, 0)) {
		import->refused_policy++;
		return 0;
	}
	return 1;
}

/*
 * On a port that waits for its VM the source knows best. Once the VM runs here, frames may have
 * gone ahead of a late record: then it replaces only what came from the source too and is no
 * further on.
 */
int vnet_import_merge(const struct vnet_port *port, const struct vnet_conn *have,
		      struct vnet_conn *conn, __u64 now)
{
	if (!have || have->expires_ns <= now || port->role != VNET_ACTIVE || !have->generation)
		return 1;
	if (!(have->flags & VNET_CONN_IMPORTED) ||
	    vnet_state_progress(have->state) > vnet_state_progress(conn->state))
		return 0;
	if (conn->state == VNET_STATE_NAT)
		return 1;
	for (int i = 0; i < 2; i++) {
		if (conn->packets[i] < have->packets[i])
			conn->packets[i] = have->packets[i];
		if (conn->bytes[i] < have->bytes[i])
			conn->bytes[i] = have->bytes[i];
	}
	if (conn->expires_ns < have->expires_ns && conn->state == have->state)
		conn->expires_ns = have->expires_ns;
	conn->flags |= have->flags & (VNET_CONN_REPLIED | VNET_CONN_ASSURED);
	conn->closing |= have->closing;
	/* What was learnt here is newer. */
	if ((have->window[0].flags | have->window[1].flags) & VNET_WINDOW_KNOWN)
		memcpy(conn->window, have->window, sizeof(conn->window));
	return 1;
}

static int is_expired(const void *key, void *value, void *arg)
{
	(void)key;
	return ((struct vnet_conn *)value)->expires_ns <= *(__u64 *)arg;
}

static int put_with_room(struct vnet_table *conns, const struct vnet_conn_key *key,
			 const struct vnet_conn *conn, __u64 now, int *swept)
{
	if (!vnet_table_put(conns, key, conn))
		return 0;
	if (*swept)
		return -1;
	*swept = 1;
	vnet_table_visit(conns, is_expired, &now);
	return vnet_table_put(conns, key, conn);
}

void vnet_datapath_import(struct vnet_datapath *datapath, __u32 local_id,
			  const struct vnet_conn_record *records, size_t count, __u64 now,
			  struct vnet_import *import)
{
	const struct vnet_port *port = &datapath->ports[local_id];
	struct vnet_table *conns = &datapath->conns[local_id];
	struct vnet_conn_key key;
	struct vnet_conn conn;
	int swept = 0;

	for (size_t i = 0; i < count; i++) {
		if (!vnet_import_judge(datapath, local_id, &records[i], now, &key, &conn, import))
			continue;
		if (!vnet_import_merge(port, vnet_table_get(conns, &key), &conn, now) ||
		    !put_with_room(conns, &key, &conn, now, &swept))
			import->moved++;
		else
			import->refused_quota++;
	}
}
