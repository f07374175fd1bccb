/* SPDX-License-Identifier: Apache-2.0 */
/* Images that other processes left: whole, in the midst of a change, damaged. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "classifier_internal.h"
#include "rules.h"

enum { LINES = 1 << 13, SETS = 20, SET = 3, MOST = 400, STAY = 40, KILLS = 60, DAMAGES = 4000 };

static void *new_lines(void)
{
	void *lines = mmap(NULL, LINES * sizeof(union vnet_line), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(lines != MAP_FAILED);
	return lines;
}

static void free_lines(void *lines)
{
	CHECK(!munmap(lines, LINES * sizeof(union vnet_line)));
}

static void change(struct vnet_classifier *classifier, struct known *known,
		   struct choices *choices, __u32 age)
{
	__u32 slot = choose(choices, MOST);

	known += slot;
	if (known->entry) {
		CHECK(!vnet_classifier_delete(classifier, SET, known->entry));
		known->entry = 0;
		return;
	}
	choose_match(choices, &known->match);
	known->match.action = slot;
	known->age = age;
	CHECK(!vnet_classifier_insert(classifier, SET, &known->match, &known->entry));
}

static void compare(struct vnet_classifier *classifier, const struct known *known,
		    struct choices *choices)
{
	struct vnet_fields frame;

	for (int i = 0; i < 50; i++) {
		choose_frame(choices, &frame);
		CHECK(look_up(classifier, SET, &frame) == search(known, MOST, &frame));
	}
}

/* What a writer leaves that ends in the midst of an insertion: a rule has been counted, no more. */
static void end_insertion(struct vnet_classifier *classifier)
{
	struct vnet_set *set = vnet_set_of(classifier, SET);
	struct vnet_subtable *subtable;
	struct vnet_bucket *bucket;

	if (!set->used)
		return;
	subtable = vnet_subtable_of(classifier, set, 0);
	bucket = &vnet_at(classifier, (__u32)subtable->region)->bucket;
	if (!(bucket->marks >> 8 * (VNET_BUCKET_SLOTS - 1) & 0xff))
		bucket->slot[VNET_BUCKET_SLOTS - 1] = 1;
	if (vnet_bucket_overflow(bucket->marks) < 254)
		bucket->marks += 1ULL << 56;
	set->rules++;
	set->sequence--;
}

/* Writers follow each other; the names of rules hold for all of them. */
static void test_successors(void)
{
	struct choices choices = {.state = 31};
	struct known *known = calloc(MOST, sizeof(*known));
	struct vnet_classifier classifier;
	void *lines = new_lines();

	CHECK(known);
	CHECK(!vnet_classifier_init(&classifier, LINES, SETS, lines, NULL, NULL));
	CHECK(!vnet_classifier_replace(&classifier, SET, NULL, 0, RULES_MISS, NULL));
	CHECK(!vnet_classifier_replace(&classifier, SET + 1, NULL, 0, 5, NULL));
	for (__u32 round = 0; round < 3000; round++) {
		change(&classifier, known, &choices, round);
		if (round % 100)
			continue;
		end_insertion(&classifier);
		vnet_classifier_free(&classifier);
		CHECK(!vnet_classifier_adopt(&classifier, LINES, lines, NULL, NULL));
		CHECK_IMAGE(&classifier);
		compare(&classifier, known, &choices);
	}
	vnet_classifier_free(&classifier);
	free_lines(lines);
	free(known);
}

/* Each alone matches its own frame, above all that come and go. */
static void make_stay(struct vnet_match *stay)
{
	struct choices choices = {.state = 37};

	for (__u32 i = 0; i < STAY; i++) {
		choose_match(&choices, &stay[i]);
		stay[i].value.metadata = 1000 + i;
		stay[i].mask.metadata = ~0ULL;
		stay[i].value.source_port = stay[i].source_ports[0];
		stay[i].value.destination_port = stay[i].destination_ports[0];
		stay[i].priority = 100;
		stay[i].action = 1000 + i;
	}
}

static void find_stay(struct vnet_classifier *classifier, const struct vnet_match *stay)
{
	for (__u32 i = 0; i < STAY; i++)
		CHECK(look_up(classifier, SET, &stay[i].value) == stay[i].action);
}

/* In a process of its own, until it is killed. `begun` is set at the first change. */
static void change_always(void *lines, const struct vnet_match *stay, __u32 seed, int *begun)
{
	struct choices choices = {.state = seed};
	static struct known known[MOST];
	struct vnet_classifier classifier;

	CHECK(!vnet_classifier_adopt(&classifier, LINES, lines, NULL, NULL));
	for (__u32 round = 0;; round++) {
		if (round % 1000 == 0) {
			CHECK(!vnet_classifier_replace(&classifier, SET, stay, STAY, RULES_MISS,
						       NULL));
			memset(known, 0, sizeof(known));
		}
		__atomic_store_n(begun, 1, __ATOMIC_RELEASE);
		change(&classifier, known, &choices, round);
		if (round % 300 == 299)
			CHECK(!vnet_classifier_rebuild(&classifier, SET));
	}
}

static void kill_writer(void *lines, const struct vnet_match *stay, __u32 seed, int *begun)
{
	int status;
	pid_t child;

	*begun = 0;
	child = fork();
	CHECK(child >= 0);
	if (!child)
		change_always(lines, stay, seed, begun);
	while (!__atomic_load_n(begun, __ATOMIC_ACQUIRE))
		usleep(100);
	usleep(997 * (seed % 11));
	CHECK(!kill(child, SIGKILL) && waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_killed_writers(void)
{
	struct vnet_match stay[STAY];
	struct vnet_classifier classifier;
	void *lines = new_lines(), *begun = new_lines();

	make_stay(stay);
	CHECK(!vnet_classifier_init(&classifier, LINES, SETS, lines, NULL, NULL));
	CHECK(!vnet_classifier_replace(&classifier, SET, stay, STAY, RULES_MISS, NULL));
	for (__u32 i = 0; i < KILLS; i++) {
		vnet_classifier_free(&classifier);
		kill_writer(lines, stay, i, begun);
		CHECK(!vnet_classifier_adopt(&classifier, LINES, lines, NULL, NULL));
		CHECK_IMAGE(&classifier);
		find_stay(&classifier, stay);
	}
	vnet_classifier_free(&classifier);
	free_lines(lines);
	free_lines(begun);
}

/* Whatever a word says, nothing outside of the image is touched; mostly it is noticed. */
static void test_damage(void)
{
	struct choices choices = {.state = 41};
	static struct known known[MOST];
	struct vnet_classifier classifier;
	union vnet_line *lines = new_lines(), *copy = new_lines();
	__u32 refused = 0, line;

	CHECK(!vnet_classifier_init(&classifier, LINES, SETS, lines, NULL, NULL));
	CHECK(!vnet_classifier_replace(&classifier, SET, NULL, 0, RULES_MISS, NULL));
	for (__u32 round = 0; round < 1000; round++)
		change(&classifier, known, &choices, round);
	vnet_classifier_free(&classifier);
	for (__u32 i = 0; i < DAMAGES; i++) {
		memcpy(copy, lines, LINES * sizeof(*lines));
		line = choose(&choices, 3) ? choose(&choices, LINES) : choose(&choices, 8);
		copy[line].word[choose(&choices, 8)] ^= 1ULL << choose(&choices, 64);
		if (vnet_classifier_adopt(&classifier, LINES, copy, NULL, NULL)) {
			refused++;
			continue;
		}
		vnet_classifier_free(&classifier);
	}
	CHECK(refused > 0);
	free_lines(lines);
	free_lines(copy);
}

static void test_no_image(void)
{
	struct vnet_classifier classifier;
	union vnet_line *lines = new_lines();

	CHECK(vnet_classifier_adopt(&classifier, LINES, lines, NULL, NULL) == -EINVAL);
	CHECK(!vnet_classifier_init(&classifier, LINES, SETS, lines, NULL, NULL));
	vnet_classifier_free(&classifier);
	CHECK(vnet_classifier_adopt(&classifier, 3, lines, NULL, NULL) == -EINVAL);
	CHECK(!vnet_classifier_adopt(&classifier, LINES, lines, NULL, NULL));
	vnet_classifier_free(&classifier);
	lines->head.version++;
	CHECK(vnet_classifier_adopt(&classifier, LINES, lines, NULL, NULL) == -EINVAL);
	free_lines(lines);
}

int main(void)
{
	test_successors();
	test_killed_writers();
	test_damage();
	test_no_image();
	puts("classifier adopted: ok");
	return 0;
}
