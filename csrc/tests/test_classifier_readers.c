/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers beside a writer: rules that stay are found at every moment, while others come and go,
 * subtables are added and filters and sets are made anew. The writer waits for readers before it
 * uses lines again, as user space waits for the kernel's programs.
 */
#include <pthread.h>

#include "rules.h"

enum { STAY = 64, COME = 400, CHANGES = 30000, READERS = 2 };

struct world {
	struct vnet_classifier classifier;
	struct vnet_match stay[STAY];
	/* By reader: even while it is outside of a look-up. */
	__u64 turn[READERS];
	int ended;
};

static struct world world;

/* Every reader that was inside has come out. */
static void wait_for_readers(void *arg)
{
	__u64 turn;

	(void)arg;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (int i = 0; i < READERS; i++) {
		turn = __atomic_load_n(&world.turn[i], __ATOMIC_ACQUIRE);
		while (turn & 1 && __atomic_load_n(&world.turn[i], __ATOMIC_ACQUIRE) == turn)
			sched_yield();
	}
}

static void *read_rules(void *arg)
{
	__u64 *turn = arg;
	struct vnet_hit hit;

	for (__u32 i = 0; !__atomic_load_n(&world.ended, __ATOMIC_ACQUIRE); i++) {
		const struct vnet_match *match = &world.stay[i % STAY];

		__atomic_add_fetch(turn, 1, __ATOMIC_SEQ_CST);
		CHECK(!vnet_classifier_lookup(&world.classifier.image, 0, &match->value, &hit));
		CHECK(hit.action == match->action);
		__atomic_add_fetch(turn, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* Each of them alone matches its own frame above all that come and go. */
static void make_stay(struct choices *choices)
{
	for (__u32 i = 0; i < STAY; i++) {
		struct vnet_match *match = &world.stay[i];

		choose_match(choices, match);
		match->value.metadata = 1000 + i;
		match->mask.metadata = ~0ULL;
		match->value.source_port = match->source_ports[0];
		match->value.destination_port = match->destination_ports[0];
		match->priority = 100;
		match->action = 1000 + i;
	}
}

static void change_rules(struct choices *choices)
{
	struct vnet_classifier *classifier = &world.classifier;
	struct vnet_match match;
	__u32 entry[COME] = {0}, slot;

	for (__u32 i = 0; i < CHANGES; i++) {
		slot = choose(choices, COME);
		if (entry[slot]) {
			CHECK(!vnet_classifier_delete(classifier, 0, entry[slot]));
			entry[slot] = 0;
		} else {
			choose_match(choices, &match);
			CHECK(!vnet_classifier_insert(classifier, 0, &match, &entry[slot]));
		}
		if (i % 3000 == 1500)
			CHECK(!vnet_classifier_rebuild(classifier, 0));
		if (i % 3000 == 0) {
			CHECK(!vnet_classifier_replace(classifier, 0, world.stay, STAY, RULES_MISS,
						       NULL));
			memset(entry, 0, sizeof(entry));
		}
	}
}

int main(void)
{
	struct choices choices = {.state = 11};
	pthread_t reader[READERS];

	CHECK(!vnet_classifier_init(&world.classifier, 8192, 1, NULL, wait_for_readers, NULL));
	make_stay(&choices);
	CHECK(!vnet_classifier_replace(&world.classifier, 0, world.stay, STAY, RULES_MISS, NULL));
	for (int i = 0; i < READERS; i++)
		CHECK(!pthread_create(&reader[i], NULL, read_rules, &world.turn[i]));
	change_rules(&choices);
	__atomic_store_n(&world.ended, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < READERS; i++)
		pthread_join(reader[i], NULL);
	CHECK_IMAGE(&world.classifier);
	vnet_blocks_reclaim(&world.classifier.blocks);
	CHECK_IMAGE(&world.classifier);
	vnet_classifier_free(&world.classifier);
	puts("classifier with readers: ok");
	return 0;
}
