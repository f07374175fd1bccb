/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps, pinned under PIN_DIR/v<ABI>. Names fit the kernel's 15 characters. max_entries that
 * follow the number of ports are set when the datapath is first created.
 */
#ifndef VNET_MAPS_H
#define VNET_MAPS_H

#include "capture_abi.h"
#include "stages.h"
#include "conn.h"
#include "network_abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_port);
} vnet_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_counters);
} vnet_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct vnet_iface);
} vnet_ifaces SEC(".maps");

/* See find.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VNET_HINTS);
	__type(key, __u32);
	__type(value, __u32);
} vnet_hints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, __u32);
} vnet_uplinks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, VNET_MAX_SEGMENTS);
	__type(key, __u32);
	__type(value, struct vnet_segment);
} vnet_segments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, VNET_MAX_SEGMENTS);
	__type(key, struct vnet_vlan_key);
	__type(value, __u32);
} vnet_vlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, VNET_MAX_BINDINGS);
	__type(key, struct vnet_binding_key);
	__type(value, struct vnet_binding);
} vnet_bindings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct vnet_mac_key);
	__type(value, __u32);
} vnet_fdb SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct vnet_member_key);
	__type(value, __u32);
} vnet_members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct vnet_address_key);
	__type(value, __u32);
} vnet_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct vnet_pair_key);
	__type(value, __u32);
} vnet_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct vnet_policy);
} vnet_policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct vnet_rule_key);
	__type(value, struct vnet_rule);
} vnet_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_meters);
} vnet_meters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} vnet_meta SEC(".maps");

/* No program reads it: names live as long as the ids in rules do. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, VNET_MAX_GROUP);
	__type(key, __u32);
	__type(value, struct vnet_group);
} vnet_groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct vnet_peer_key);
	__type(value, __u32);
} vnet_peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_settings);
} vnet_setup SEC(".maps");

/*
 * One table per port, and its max_entries is the port's quota: a flood fills its own. Not
 * preallocated: a thousand ports with the default quota would take 14 GB at once; so memory
 * follows use, and the quota bounds it all the same.
 */
struct vnet_conn_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	/* By size: Linux 6.1 takes no table made without types where the template has them. */
	__uint(key_size, sizeof(struct vnet_conn_key));
	__uint(value_size, sizeof(struct vnet_conn));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct vnet_conn_table);
} vnet_conns SEC(".maps");

/* Where a program makes a new connection: one runs at a time on a CPU, and its stack is short. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_conn);
} vnet_new_conns SEC(".maps");

struct vnet_fragment_table {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, VNET_FRAGMENTS);
	/* By size: clang leaves out the type of a struct that only an inner map names. */
	__uint(key_size, sizeof(struct vnet_fragment_key));
	__uint(value_size, sizeof(struct vnet_fragment));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct vnet_fragment_table);
} vnet_fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vnet_capture);
} vnet_captures SEC(".maps");

/* The programs of tables.bpf.c, by enum vnet_stage. Pinned: it would be emptied with its last user. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, VNET_STAGES);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} vnet_stages SEC(".maps");

/* In it while somebody captures: a ring of any size, and no memory otherwise. */
struct vnet_capture_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct vnet_capture_ring);
} vnet_rings SEC(".maps");

#endif
