/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The datapath without a kernel: the same tables as the BPF maps, and the core run over them. The
 * kernel's driver keeps one too, as a mirror of the rules by which it judges imported records.
 */
#ifndef VNET_DATAPATH_H
#define VNET_DATAPATH_H

#include "capture_abi.h"
#include "conn.h"
#include "handler_abi.h"
#include "network_abi.h"
#include "record.h"
#include "ring.h"
#include "table.h"

/* The tables that user space reads and writes by number; `ports` is an array. */
#define VNET_TABLES(X)                                                                             \
	X(IFACES, ifaces, sizeof(__u32), sizeof(struct vnet_iface))                                \
	X(UPLINKS, uplinks, sizeof(__u32), sizeof(__u32))                                          \
	X(FDB, fdb, sizeof(struct vnet_mac_key), sizeof(__u32))                                    \
	X(MEMBERS, members, sizeof(struct vnet_member_key), sizeof(__u32))                         \
	X(ADDRESSES, addresses, sizeof(struct vnet_address_key), sizeof(__u32))                    \
	X(POLICIES, policies, sizeof(__u32), sizeof(struct vnet_policy))                           \
	X(RULES, rules, sizeof(struct vnet_rule_key), sizeof(struct vnet_rule))                    \
	X(META, meta, sizeof(__u32), sizeof(__u64))                                                \
	X(CAPTURES, captures, sizeof(__u32), sizeof(struct vnet_capture))                          \
	X(SEGMENTS, segments, sizeof(__u32), sizeof(struct vnet_segment))                          \
	X(VLANS, vlans, sizeof(struct vnet_vlan_key), sizeof(__u32))                               \
	X(BINDINGS, bindings, sizeof(struct vnet_binding_key), sizeof(struct vnet_binding))        \
	X(GROUPS, groups, sizeof(__u32), sizeof(struct vnet_group))                                \
	X(PEERS, peers, sizeof(struct vnet_peer_key), sizeof(__u32))                               \
	X(METERS, meters, sizeof(__u32), sizeof(struct vnet_meters))                               \
	X(PAIRS, pairs, sizeof(struct vnet_pair_key), sizeof(__u32))

enum vnet_table_id {
#define VNET_TABLE_ENUM(id, name, key, value) VNET_TABLE_##id,
	VNET_TABLES(VNET_TABLE_ENUM)
#undef VNET_TABLE_ENUM
	VNET_TABLE_COUNT,
};

/* What `meta` holds. */
enum vnet_meta { VNET_META_NEXT_POLICY = 0, VNET_META_LAST_GROUP = 1, VNET_META_COUNT = 8 };

#define VNET_MAX_IFACES 131072
#define VNET_MAX_ADDRESSES 262144
#define VNET_MAX_POLICIES 65536
#define VNET_MAX_RULES 1048576
#define VNET_MAX_PEERS 262144
#define VNET_MAX_PAIRS 131072

struct vnet_handlers;

/* Owns everything in it, but `ports` only when `owns_ports`: the kernel's driver maps that. */
struct vnet_datapath {
	__u32 max_ports;
	int owns_ports;
	struct vnet_port *ports; /* max_ports of them */
	struct vnet_settings settings;
	__u32 hints[VNET_HINTS];
	struct vnet_table table[VNET_TABLE_COUNT];
	struct vnet_table *conns; /* by local id; unused ones have no buckets */
	struct vnet_table *fragments;
	struct vnet_counters *counters;
	struct vnet_ring *ring; /* of captured frames; NULL while nobody captures */
	struct vnet_handlers *handlers; /* of the operator's tables; NULL: there are none */
	int owns_handlers;
	struct vnet_conn draft; /* what it was for the last one stays: see vnet_conn_draft() */
};

#define VNET_MAX_OUT 64
#define VNET_TRACE_RULES 4
#define VNET_TRACE_CONNS 8
#define VNET_TRACE_STEPS VNET_HANDLER_TABLES

/* A table that a frame came to; `entry` is its rule there, 0: a miss. */
struct vnet_trace_step {
	__u32 table;
	__u32 entry;
	__u32 action;
};

/* What a run asked its surroundings for; see trace.h. */
struct vnet_trace {
	struct vnet_iface iface; /* stands for the one that the frame is on */
	__u32 rules;             /* how many matched */
	__u32 rule[VNET_TRACE_RULES];
	__u32 conns, fragments; /* what it looked for: how many, and how often */
	struct vnet_conn_key conn[VNET_TRACE_CONNS];
	struct vnet_conn_key last; /* of them that is no translation; family 0: none */
	struct vnet_fragment_key fragment;
	__u32 steps; /* through the operator's tables */
	struct vnet_trace_step step[VNET_TRACE_STEPS];
	struct vnet_packet_rate rate[2]; /* stand for the live ones */
};

/* One frame on its way through the native datapath. */
struct vnet_ctx {
	struct vnet_datapath *datapath;
	const __u8 *data;
	__u32 length;
	__u32 ifindex;
	__u64 now;
	__u32 gso_size; /* of the payload of each frame that it is cut into; 0: it is whole */
	__u32 outs; /* copies that were sent */
	__u32 out[VNET_MAX_OUT];
	struct vnet_trace *trace; /* NULL unless somebody wants to know */
	__u8 *changed;            /* owned: the frame once it is not what it was; see edit.c */
	/* Sees each frame that leaves, and where (0: to the VM); may be NULL. */
	void (*leaves)(void *arg, __u32 ifindex, const __u8 *data, __u32 length);
	void *leaves_arg;
	__u32 new_mark;  /* of a connection that the frame begins; the operator's tables say it */
	int past_tables; /* it goes on as if it had come through the operator's tables */
	struct vnet_nat *nat; /* while it is between the two steps of a translation; see nat.h */
};

/* Whether the frame itself leaves, on the result's interface. */
static inline int vnet_is_sent(__u32 action)
{
	return action == VNET_REDIRECT || action == VNET_ANSWERED;
}

enum vnet_hook {
	VNET_FROM_PORT = 0,
	VNET_TO_PORT = 1,
	VNET_FROM_UPLINK = 2,
	VNET_SHORTCUT = 3, /* before VNET_FROM_PORT: PASS is the long way */
};

struct vnet_result {
	__u32 action;
	__u32 reason;
	__u32 ifindex;
};

/* What became of imported records. */
struct vnet_import {
	__u64 moved;
	__u64 refused_policy, refused_quota, refused_expired, refused_address;
};

int vnet_datapath_init(struct vnet_datapath *datapath, __u32 max_ports, struct vnet_port *ports);
void vnet_datapath_free(struct vnet_datapath *datapath);
struct vnet_result vnet_datapath_process(struct vnet_ctx *ctx, enum vnet_hook hook);

int vnet_datapath_conns_create(struct vnet_datapath *datapath, __u32 local_id, __u32 quota);
void vnet_datapath_conns_delete(struct vnet_datapath *datapath, __u32 local_id);

/*
 * Decodes a checked record and judges it by the port's policy and addresses. Returns 1 when it
 * may enter; otherwise counts why not.
 */
int vnet_import_judge(struct vnet_datapath *datapath, __u32 local_id,
		      const struct vnet_conn_record *record, __u64 now, struct vnet_conn_key *key,
		      struct vnet_conn *conn, struct vnet_import *import);
/* Whether an imported connection may replace the entry that is there; merges into `conn`. */
int vnet_import_merge(const struct vnet_port *port, const struct vnet_conn *have,
		      struct vnet_conn *conn, __u64 now);
void vnet_datapath_import(struct vnet_datapath *datapath, __u32 local_id,
			  const struct vnet_conn_record *records, size_t count, __u64 now,
			  struct vnet_import *import);

#endif
