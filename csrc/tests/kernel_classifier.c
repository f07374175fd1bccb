/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The look-up in the kernel against a search through all rules, and beside a writer. Needs root;
 * tests/functional/test_classifier_kernel.py runs it.
 */
#include <bpf/bpf.h>
#include <pthread.h>

#include "classifier.skel.h"
#include "classifier_kernel.h"
#include "classifier_map.h"
#include "rules.h"

enum { LINES = 1 << 13, SETS = 20, SET = 17, MOST = 600, ROUNDS = 1500, STAY = 32 };

struct world {
	struct classifier_bpf *skeleton;
	struct vnet_classifier classifier;
	struct vnet_match stay[STAY];
	int ended;
};

static struct world world;

static __u32 ask(const struct vnet_fields *frame)
{
	struct classifier_question question = {.fields = *frame, .set = SET};
	struct classifier_answer answer;
	__u8 back[sizeof(question)];
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = &question,
		    .data_size_in = sizeof(question), .data_out = back,
		    .data_size_out = sizeof(back));

	CHECK(!bpf_prog_test_run_opts(bpf_program__fd(world.skeleton->progs.answer), &options));
	CHECK(!options.retval);
	memcpy(&answer, back, sizeof(answer));
	CHECK(!answer.error && !answer.hit.order == (answer.hit.action == RULES_MISS));
	return answer.hit.action;
}

static void open_world(void)
{
	world.skeleton = classifier_bpf__open();
	CHECK(world.skeleton);
	CHECK(!bpf_map__set_max_entries(world.skeleton->maps.vnet_lines, LINES));
	CHECK(!classifier_bpf__load(world.skeleton));
	CHECK(!vnet_classifier_map(&world.classifier,
				   bpf_map__fd(world.skeleton->maps.vnet_lines), LINES, SETS));
}

static void change(struct known *known, __u32 slot, struct choices *choices, __u32 age)
{
	known += slot;
	if (known->entry) {
		CHECK(!vnet_classifier_delete(&world.classifier, SET, known->entry));
		known->entry = 0;
		return;
	}
	choose_match(choices, &known->match);
	known->match.action = slot;
	known->age = age;
	CHECK(!vnet_classifier_insert(&world.classifier, SET, &known->match, &known->entry));
}

static void test_answers(void)
{
	struct choices choices = {.state = 23};
	struct known *known = calloc(MOST, sizeof(*known));
	struct vnet_fields frame;

	CHECK(known);
	CHECK(!vnet_classifier_replace(&world.classifier, SET, NULL, 0, RULES_MISS, NULL));
	for (__u32 round = 0; round < ROUNDS; round++) {
		change(known, choose(&choices, MOST), &choices, round);
		if (round % 500 == 499)
			CHECK(!vnet_classifier_rebuild(&world.classifier, SET));
		for (int i = 0; i < 4; i++) {
			choose_frame(&choices, &frame);
			CHECK(ask(&frame) == search(known, MOST, &frame));
		}
	}
	CHECK_IMAGE(&world.classifier);
	free(known);
}

/* Each alone matches its own frame, above all that come and go. */
static void make_stay(struct choices *choices)
{
	for (__u32 i = 0; i < STAY; i++) {
		choose_match(choices, &world.stay[i]);
		world.stay[i].value.metadata = 1000 + i;
		world.stay[i].mask.metadata = ~0ULL;
		world.stay[i].value.source_port = world.stay[i].source_ports[0];
		world.stay[i].value.destination_port = world.stay[i].destination_ports[0];
		world.stay[i].priority = 100;
		world.stay[i].action = 1000 + i;
	}
}

static void *ask_always(void *arg)
{
	for (__u32 i = 0; !__atomic_load_n(&world.ended, __ATOMIC_ACQUIRE); i++)
		CHECK(ask(&world.stay[i % STAY].value) == world.stay[i % STAY].action);
	return arg;
}

static void test_changes_meanwhile(void)
{
	struct choices choices = {.state = 29};
	struct known *known = calloc(MOST, sizeof(*known));
	pthread_t reader;

	CHECK(known);
	make_stay(&choices);
	CHECK(!vnet_classifier_replace(&world.classifier, SET, world.stay, STAY, RULES_MISS, NULL));
	CHECK(!pthread_create(&reader, NULL, ask_always, NULL));
	for (__u32 round = 0; round < 20 * ROUNDS; round++) {
		change(known, choose(&choices, MOST), &choices, round);
		if (round % 3000 == 1500)
			CHECK(!vnet_classifier_rebuild(&world.classifier, SET));
		if (round % 6000 == 0) {
			CHECK(!vnet_classifier_replace(&world.classifier, SET, world.stay, STAY,
						       RULES_MISS, NULL));
			memset(known, 0, MOST * sizeof(*known));
		}
	}
	__atomic_store_n(&world.ended, 1, __ATOMIC_RELEASE);
	pthread_join(reader, NULL);
	CHECK_IMAGE(&world.classifier);
	free(known);
}

/* The next writer finds what the last one left. */
static void test_successor(void)
{
	__u32 lines = world.classifier.image.lines;
	int fd = bpf_map__fd(world.skeleton->maps.vnet_lines);
	struct vnet_measure before, after;

	CHECK(!vnet_classifier_measure(&world.classifier, SET, &before));
	vnet_classifier_unmap(&world.classifier);
	CHECK(vnet_classifier_map(&world.classifier, fd, lines, SETS + 1) == -EEXIST);
	CHECK(!vnet_classifier_map(&world.classifier, fd, lines, SETS));
	CHECK_IMAGE(&world.classifier);
	CHECK(!vnet_classifier_measure(&world.classifier, SET, &after));
	CHECK(!memcmp(&before, &after, sizeof(before)));
}

int main(void)
{
	open_world();
	test_answers();
	test_successor();
	test_changes_meanwhile();
	vnet_classifier_unmap(&world.classifier);
	classifier_bpf__destroy(world.skeleton);
	puts("classifier in the kernel: ok");
	return 0;
}
