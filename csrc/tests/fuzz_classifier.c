/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: bytes as operations on one set, each look-up compared with a search. */
#include "rules.h"

enum { MOST = 64 };

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size);

static void replace(struct vnet_classifier *classifier, struct known *known,
		    struct choices *choices, __u32 age)
{
	__u32 count = choose(choices, MOST), entries[MOST];
	struct vnet_match matches[MOST];

	for (__u32 i = 0; i < count; i++) {
		choose_match(choices, &matches[i]);
		matches[i].action = i;
	}
	if (vnet_classifier_replace(classifier, 0, matches, count, RULES_MISS, entries))
		return;
	for (__u32 i = 0; i < MOST; i++)
		known[i] = i < count ? (struct known){matches[i], entries[i], age + i}
				     : (struct known){.entry = 0};
}

static void change(struct vnet_classifier *classifier, struct known *known,
		   struct choices *choices, __u32 age)
{
	__u32 slot = choose(choices, MOST);

	known += slot;
	if (known->entry) {
		CHECK(!vnet_classifier_delete(classifier, 0, known->entry));
		known->entry = 0;
		return;
	}
	choose_match(choices, &known->match);
	known->match.action = slot;
	known->age = age;
	if (vnet_classifier_insert(classifier, 0, &known->match, &known->entry))
		known->entry = 0;
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size)
{
	struct choices choices = {.data = data, .size = size};
	struct known known[MOST] = {0};
	struct vnet_classifier classifier;
	struct vnet_fields frame;

	if (!size)
		return 0;
	CHECK(!vnet_classifier_init(&classifier, 64 << choose(&choices, 4), 1, NULL, NULL, NULL));
	if (vnet_classifier_replace(&classifier, 0, NULL, 0, RULES_MISS, NULL))
		abort();
	for (__u32 age = 0; choices.size; age += MOST) {
		switch (choose(&choices, 16)) {
		case 0:
			replace(&classifier, known, &choices, age);
			break;
		case 1:
			vnet_classifier_rebuild(&classifier, 0);
			break;
		default:
			change(&classifier, known, &choices, age);
		}
		for (int i = 0; i < 3; i++) {
			choose_frame(&choices, &frame);
			CHECK(look_up(&classifier, 0, &frame) == search(known, MOST, &frame));
		}
	}
	CHECK_IMAGE(&classifier);
	vnet_classifier_free(&classifier);
	return 0;
}
