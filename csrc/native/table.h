/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table with the manners of a BPF hash map: fixed sizes, a limit, stable values. */
#ifndef VNET_TABLE_H
#define VNET_TABLE_H

#include <linux/types.h>
#include <stddef.h>

struct vnet_node;

/* Owns its nodes; a value's address is good until its key is removed. */
struct vnet_table {
	__u32 key_size;
	__u32 value_size;
	__u32 max;
	__u32 count;
	__u32 buckets; /* a power of two */
	struct vnet_node **bucket;
};

int vnet_table_init(struct vnet_table *table, __u32 key_size, __u32 value_size, __u32 max);
void vnet_table_free(struct vnet_table *table);
void *vnet_table_get(const struct vnet_table *table, const void *key);
/* 0; -1 when the table is full or memory is short. */
int vnet_table_put(struct vnet_table *table, const void *key, const void *value);
/* 1 when the key was there. */
int vnet_table_remove(struct vnet_table *table, const void *key);
/* `visit` returns non-zero to have the entry removed. Returns how many were. */
__u32 vnet_table_visit(struct vnet_table *table, int (*visit)(const void *key, void *value, void *arg),
		       void *arg);

#endif
