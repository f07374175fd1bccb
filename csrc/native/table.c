/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 16

/* Key and value follow; the value is 8-byte aligned. */
struct vnet_node {
	struct vnet_node *next;
	__u64 data[];
};

static __u32 value_offset(const struct vnet_table *table)
{
	return (table->key_size + 7) & ~7U;
}

static void *node_value(const struct vnet_table *table, struct vnet_node *node)
{
	return (char *)node->data + value_offset(table);
}

/* FNV-1a. Not keyed: this table serves tests and the agent's own rules, not the wire. */
static __u32 hash_key(const struct vnet_table *table, const void *key)
{
	const __u8 *bytes = key;
	__u64 hash = 0xcbf29ce484222325ULL;

	for (__u32 i = 0; i < table->key_size; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
	return (__u32)(hash ^ hash >> 32) & (table->buckets - 1);
}

static struct vnet_node **find(const struct vnet_table *table, const void *key)
{
	struct vnet_node **link;

	for (link = &table->bucket[hash_key(table, key)]; *link; link = &(*link)->next)
		if (memcmp((*link)->data, key, table->key_size) == 0)
			break;
	return link;
}

int vnet_table_init(struct vnet_table *table, __u32 key_size, __u32 value_size, __u32 max)
{
	*table = (struct vnet_table){
		.key_size = key_size,
		.value_size = value_size,
		.max = max,
		.buckets = FIRST_BUCKETS,
		.bucket = calloc(FIRST_BUCKETS, sizeof(struct vnet_node *)),
	};
	return table->bucket ? 0 : -1;
}

static int drop_all(const void *key, void *value, void *arg)
{
	(void)key, (void)value, (void)arg;
	return 1;
}

void vnet_table_free(struct vnet_table *table)
{
	if (table->bucket)
		vnet_table_visit(table, drop_all, NULL);
	free(table->bucket);
	memset(table, 0, sizeof(*table));
}

static void grow(struct vnet_table *table)
{
	struct vnet_node **old = table->bucket, *node, *next;
	__u32 buckets = table->buckets;
	struct vnet_node **bucket = calloc((size_t)buckets * 4, sizeof(*bucket));

	if (!bucket)
		return; /* slower, not wrong */
	table->bucket = bucket;
	table->buckets = buckets * 4;
	for (__u32 i = 0; i < buckets; i++)
		for (node = old[i]; node; node = next) {
			struct vnet_node **link = &bucket[hash_key(table, node->data)];

			next = node->next;
			node->next = *link;
			*link = node;
		}
	free(old);
}

void *vnet_table_get(const struct vnet_table *table, const void *key)
{
	struct vnet_node *node = *find(table, key);

	return node ? node_value(table, node) : NULL;
}

int vnet_table_put(struct vnet_table *table, const void *key, const void *value)
{
	struct vnet_node **link = find(table, key), *node = *link;

	if (!node) {
		if (table->count >= table->max)
			return -1;
		node = malloc(sizeof(*node) + value_offset(table) + table->value_size);
		if (!node)
			return -1;
		node->next = NULL;
		memcpy(node->data, key, table->key_size);
		*link = node;
		table->count++;
	}
	memcpy(node_value(table, node), value, table->value_size);
	if (table->count > table->buckets * 2)
		grow(table);
	return 0;
}

static void unlink_node(struct vnet_table *table, struct vnet_node **link)
{
	struct vnet_node *node = *link;

	*link = node->next;
	free(node);
	table->count--;
}

int vnet_table_remove(struct vnet_table *table, const void *key)
{
	struct vnet_node **link = find(table, key);

	if (!*link)
		return 0;
	unlink_node(table, link);
	return 1;
}

__u32 vnet_table_visit(struct vnet_table *table, int (*visit)(const void *key, void *value, void *arg),
		       void *arg)
{
	__u32 removed = 0;

	for (__u32 i = 0; i < table->buckets; i++)
		for (struct vnet_node **link = &table->bucket[i]; *link;) {
			if (visit((*link)->data, node_value(table, *link), arg)) {
				unlink_node(table, link);
				removed++;
			} else {
				link = &(*link)->next;
			}
		}
	return removed;
}
