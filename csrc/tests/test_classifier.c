/* SPDX-License-Identifier: Apache-2.0 */
/* The classifier against a search through all rules, under ASan and UBSan. */
#include "rules.h"

enum { MOST = 600, ROUNDS = 2000, FRAMES = 5 };

static void compare(struct vnet_classifier *classifier, const struct known *known, __u32 count,
		    struct choices *choices, __u32 frames)
{
	struct vnet_fields frame;

	for (__u32 i = 0; i < frames; i++) {
		choose_frame(choices, &frame);
		CHECK(look_up(classifier, 1, &frame) == search(known, count, &frame));
	}
}

/* Inserts or deletes the rule of a slot. */
static void change(struct vnet_classifier *classifier, struct known *known, __u32 slot,
		   struct choices *choices, __u32 age)
{
	struct vnet_match read;

	known += slot;
	if (known->entry) {
		CHECK(!vnet_classifier_read(classifier, 1, known->entry, &read));
		CHECK(read.action == slot && read.priority == known->match.priority);
		CHECK(!memcmp(&read.mask, &known->match.mask, sizeof(read.mask)));
		CHECK(!vnet_classifier_delete(classifier, 1, known->entry));
		CHECK(vnet_classifier_delete(classifier, 1, known->entry) == -EINVAL);
		known->entry = 0;
		return;
	}
	choose_match(choices, &known->match);
	known->match.action = slot;
	known->age = age;
	CHECK(!vnet_classifier_insert(classifier, 1, &known->match, &known->entry));
}

static void test_changes(__u64 seed)
{
	struct choices choices = {.state = seed};
	struct known *known = calloc(MOST, sizeof(*known));
	struct vnet_classifier classifier;

	CHECK(known && !vnet_classifier_init(&classifier, 1 << 13, 20, NULL, NULL, NULL));
	CHECK(!vnet_classifier_replace(&classifier, 1, NULL, 0, RULES_MISS, NULL));
	for (__u32 round = 0; round < ROUNDS; round++) {
		change(&classifier, known, choose(&choices, MOST), &choices, round);
		compare(&classifier, known, MOST, &choices, FRAMES);
		if (round % 50 == 0)
			CHECK_IMAGE(&classifier);
		if (round % 500 == 499) {
			CHECK(!vnet_classifier_rebuild(&classifier, 1));
			CHECK_IMAGE(&classifier);
			compare(&classifier, known, MOST, &choices, 20 * FRAMES);
		}
	}
	CHECK(!vnet_classifier_remove(&classifier, 1));
	CHECK_IMAGE(&classifier);
	vnet_classifier_free(&classifier);
	free(known);
}

static void test_replace(void)
{
	struct choices choices = {.state = 7};
	struct known *known = calloc(MOST, sizeof(*known));
	struct vnet_match *matches = calloc(MOST, sizeof(*matches));
	__u32 entries[MOST];
	struct vnet_classifier classifier;

	CHECK(known && matches && !vnet_classifier_init(&classifier, 8192, 2, NULL, NULL, NULL));
	for (__u32 count = 0; count <= MOST; count += count < 20 ? 1 : 145) {
		for (__u32 i = 0; i < count; i++) {
			choose_match(&choices, &matches[i]);
			matches[i].action = i;
		}
		CHECK(!vnet_classifier_replace(&classifier, 1, matches, count, RULES_MISS,
					       entries));
		for (__u32 i = 0; i < count; i++)
			known[i] = (struct known){matches[i], entries[i], i};
		CHECK_IMAGE(&classifier);
		compare(&classifier, known, count, &choices, 50 * FRAMES);
	}
	vnet_classifier_free(&classifier);
	free(known);
	free(matches);
}

/* Twice as many kinds of masks as subtables: the last one takes what is left. */
static void test_more_masks_than_subtables(int at_once)
{
	struct known known[2 * VNET_MAX_SUBTABLES];
	struct vnet_match matches[2 * VNET_MAX_SUBTABLES] = {0};
	__u32 count = 2 * VNET_MAX_SUBTABLES, entries[2 * VNET_MAX_SUBTABLES];
	struct choices choices = {.state = 3};
	struct vnet_classifier classifier;
	struct vnet_measure measure;

	CHECK(!vnet_classifier_init(&classifier, 8192, 2, NULL, NULL, NULL));
	for (__u32 i = 0; i < count; i++) {
		matches[i].mask.word[VNET_WORD_METADATA] = 1ULL << i % 64;
		matches[i].mask.network = i;
		matches[i].source_ports[1] = matches[i].destination_ports[1] = 65535;
		matches[i].priority = i;
		matches[i].action = i;
	}
	CHECK(!vnet_classifier_replace(&classifier, 1, matches, at_once ? count : 0, RULES_MISS,
				       entries));
	for (__u32 i = 0; i < count; i++) {
		if (!at_once)
			CHECK(!vnet_classifier_insert(&classifier, 1, &matches[i], &entries[i]));
		known[i] = (struct known){matches[i], entries[i], i};
	}
	CHECK_IMAGE(&classifier);
	CHECK(!vnet_classifier_measure(&classifier, 1, &measure));
	CHECK(measure.rules == count && measure.subtables <= VNET_MAX_SUBTABLES);
	compare(&classifier, known, count, &choices, 50 * FRAMES);
	vnet_classifier_free(&classifier);
}

/* An image that is full refuses, and is as before. */
static void test_full(void)
{
	struct choices choices = {.state = 5};
	struct known *known = calloc(MOST, sizeof(*known));
	struct vnet_match match, *matches = calloc(MOST, sizeof(*matches));
	struct vnet_classifier classifier;
	__u32 count = 0, refused = 0;
	int error;

	CHECK(known && matches && !vnet_classifier_init(&classifier, 512, 2, NULL, NULL, NULL));
	CHECK(!vnet_classifier_replace(&classifier, 1, NULL, 0, RULES_MISS, NULL));
	while (refused < 50) {
		choose_match(&choices, &match);
		match.action = count;
		error = vnet_classifier_insert(&classifier, 1, &match, &known[count].entry);
		CHECK(!error || error == -ENOMEM);
		refused += error != 0;
		if (!error) {
			known[count].match = match;
			known[count].age = count;
			count++;
		} else {
			known[count].entry = 0;
		}
		CHECK_IMAGE(&classifier);
		compare(&classifier, known, count, &choices, FRAMES);
	}
	CHECK(count > 100);
	CHECK(vnet_classifier_replace(&classifier, 1, matches, MOST, 0, NULL) == -ENOMEM);
	CHECK_IMAGE(&classifier);
	for (__u32 i = 0; i < count; i += 7) {
		error = vnet_classifier_rebuild(&classifier, 1);
		CHECK(!error || error == -ENOMEM);
		CHECK_IMAGE(&classifier);
		compare(&classifier, known, count, &choices, FRAMES);
		CHECK(!vnet_classifier_delete(&classifier, 1, known[i].entry));
		known[i].entry = 0;
	}
	vnet_classifier_free(&classifier);
	free(known);
	free(matches);
}

static void test_bad_input(void)
{
	struct vnet_match match = {.source_ports = {0, 65535}, .destination_ports = {0, 65535}};
	struct vnet_classifier classifier;
	struct vnet_fields frame = {0};
	struct vnet_hit hit;
	__u32 entry;

	CHECK(vnet_classifier_init(&classifier, VNET_MAX_LINES + 1, 1, NULL, NULL, NULL) == -EINVAL);
	CHECK(vnet_classifier_init(&classifier, 64, 0, NULL, NULL, NULL) == -EINVAL);
	CHECK(!vnet_classifier_init(&classifier, 64, 20, NULL, NULL, NULL));
	CHECK(vnet_classifier_insert(&classifier, 3, &match, &entry) == -EINVAL);
	CHECK(vnet_classifier_lookup(&classifier.image, 3, &frame, &hit) == -1);
	CHECK(vnet_classifier_lookup(&classifier.image, 20, &frame, &hit) == -1);
	CHECK(vnet_classifier_replace(&classifier, 20, NULL, 0, 0, NULL) == -EINVAL);
	CHECK(!vnet_classifier_replace(&classifier, 3, NULL, 0, 77, NULL));
	CHECK(!vnet_classifier_lookup(&classifier.image, 3, &frame, &hit));
	CHECK(hit.action == 77 && !hit.order);
	match.source_ports[0] = 2;
	match.source_ports[1] = 1;
	CHECK(vnet_classifier_insert(&classifier, 3, &match, &entry) == -EINVAL);
	match.source_ports[1] = 2;
	match.mask.source_port = 1;
	CHECK(vnet_classifier_insert(&classifier, 3, &match, &entry) == -EINVAL);
	match.mask.source_port = 0;
	CHECK(!vnet_classifier_insert(&classifier, 3, &match, &entry));
	for (__u32 line = 0; line < 70; line++)
		if (line != entry)
			CHECK(vnet_classifier_delete(&classifier, 3, line) == -EINVAL);
	CHECK(vnet_classifier_delete(&classifier, 2, entry) == -EINVAL);
	CHECK_IMAGE(&classifier);
	vnet_classifier_free(&classifier);
}

int main(void)
{
	for (__u64 seed = 1; seed <= 3; seed++)
		test_changes(seed);
	test_replace();
	test_more_masks_than_subtables(0);
	test_more_masks_than_subtables(1);
	test_full();
	test_bad_input();
	puts("classifier: ok");
	return 0;
}
