/* SPDX-License-Identifier: Apache-2.0 */
/* A native datapath with one port, one uplink and a policy: what tests and fuzzers run against. */
#ifndef VNET_TEST_BENCH_H
#define VNET_TEST_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datapath.h"

#define BENCH_PORT 1
#define BENCH_TAP 5
#define BENCH_UPLINK 9
#define BENCH_VLAN 100 /* the network comes in so, too */
#define BENCH_QUOTA 64

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static const __u8 bench_vm[6] = {0x52, 0x54, 0, 0, 0, 1};
static const __u8 bench_peer[6] = {0x52, 0x54, 0, 0, 0, 2};
static const __u8 bench_vm4[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1};
static const __u8 bench_peer4[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2};
static const __u8 bench_peer6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 2};
static const __u8 bench_vm6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};

/* Everything out, and TCP and UDP to ports 64 to 127 in. */
static inline void bench_policy(struct vnet_datapath *datapath)
{
	struct vnet_policy policy = {
		.flags = VNET_POLICY_KEEP,
		.tuples = 2,
		.tuple = {{.direction = VNET_EGRESS},
			  {.direction = VNET_INGRESS, .dport = 0xffc0}},
	};
	struct vnet_rule_key out = {.policy = 1}, in = {.policy = 1, .tuple = 1, .dport = 64};
	struct vnet_rule rule = {0};
	__u32 id = 1;

	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_POLICIES], &id, &policy));
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_RULES], &out, &rule));
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_RULES], &in, &rule));
}

static inline void bench_address(struct vnet_datapath *datapath, const __u8 *address)
{
	struct vnet_address_key key = {.local_id = BENCH_PORT};
	__u32 order = 0;

	memcpy(key.address, address, 16);
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_ADDRESSES], &key, &order));
}

/* The peer is a neighbour that is known. */
static inline void bench_bind(struct vnet_datapath *datapath, const __u8 *address)
{
	struct vnet_binding binding = {.mac = vnet_mac(bench_peer)};
	struct vnet_binding_key key = {0};

	memcpy(key.address, address, 16);
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_BINDINGS], &key, &binding));
}

static inline void bench_init(struct vnet_datapath *datapath)
{
	struct vnet_iface tap = {.kind = VNET_IFACE_PORT, .local_id = BENCH_PORT};
	struct vnet_iface uplink = {.kind = VNET_IFACE_UPLINK};
	__u32 tap_index = BENCH_TAP, uplink_index = BENCH_UPLINK, network = 0, id = BENCH_PORT;
	struct vnet_vlan_key vlan = {.ifindex = BENCH_UPLINK, .vlan = BENCH_VLAN};
	struct vnet_member_key member = {0};
	struct vnet_mac_key mac = {.mac = vnet_mac(bench_vm)};

	CHECK(!vnet_datapath_init(datapath, 4, NULL));
	CHECK(!vnet_datapath_conns_create(datapath, BENCH_PORT, BENCH_QUOTA));
	datapath->ports[BENCH_PORT] = (struct vnet_port){
		.policy = 1ULL << 32 | 1,
		.mac = vnet_mac(bench_vm),
		.role = VNET_ACTIVE,
		.flags = VNET_PORT_ADDRESSES | VNET_PORT_ANSWERED,
		.ifindex = BENCH_TAP,
		.local_id = BENCH_PORT,
		.quota = BENCH_QUOTA,
	};
	bench_address(datapath, bench_vm4);
	bench_address(datapath, bench_vm6);
	bench_bind(datapath, bench_peer4);
	bench_bind(datapath, bench_peer6);
	bench_policy(datapath);
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_IFACES], &tap_index, &tap));
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_IFACES], &uplink_index, &uplink));
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_UPLINKS], &network, &uplink_index));
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_VLANS], &vlan, &network));
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_MEMBERS], &member, &id));
	CHECK(!vnet_table_put(&datapath->table[VNET_TABLE_FDB], &mac, &id));
}

struct bench_count {
	const struct vnet_settings *settings;
	__u64 now;
	__u32 entries;
};

/* An entry that no code should have made ends the run. */
static inline int bench_walk_entry(const void *key, void *value, void *arg)
{
	const struct vnet_conn_key *conn_key = key;
	const struct vnet_conn *conn = value;
	struct bench_count *count = arg;

	CHECK(conn_key->family == 4 || conn_key->family == 6);
	CHECK(!(conn->flags & ~VNET_CONN_FLAGS_ALL) && conn->changed_ns <= count->now);
	count->entries++;
	if (conn_key->way) {
		CHECK(conn_key->way <= VNET_RECORD_WAYS && conn->state == VNET_STATE_NAT);
		CHECK(conn->expires_ns <=
		      count->now + vnet_state_life(count->settings, VNET_STATE_ESTABLISHED));
		return 0;
	}
	CHECK(conn->state > VNET_STATE_NONE && conn->state < VNET_STATE_NAT);
	CHECK((conn->state < VNET_STATE_UNREPLIED) == (conn_key->proto == 6));
	CHECK(!(conn->closing & ~VNET_CLOSING_ALL));
	CHECK(conn->expires_ns <= count->now + vnet_state_life(count->settings, conn->state));
	CHECK(conn->window[0].scale <= VNET_SCALE_MAX && conn->window[1].scale <= VNET_SCALE_MAX);
	return 0;
}

/* The consistency walker: called after whatever changes connections. */
static inline void bench_walk(struct vnet_datapath *datapath, __u64 now)
{
	struct vnet_table *conns = &datapath->conns[BENCH_PORT];
	struct bench_count count = {.settings = &datapath->settings, .now = now};

	vnet_table_visit(conns, bench_walk_entry, &count);
	CHECK(count.entries == conns->count && count.entries <= BENCH_QUOTA);
}

#endif
