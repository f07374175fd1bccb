/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the classifier on one set of rules and one trace (classbench.py writes the file):
 *
 *   classifier FILE ROUNDS
 *
 * Prints "NAME VALUE..." lines; a line of times has a value for each round. Every answer of the
 * trace is compared with the rule that a search through all of them finds, for a part of it.
 */
#include <time.h>

#include "classifier_count.h"
#include "classifier_lookup.h"
#include "classifier_work.h"

#define CHECKED 200 /* frames of the trace */
#define MISS 0xffffffffU

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

struct bench {
	struct work work;
	struct vnet_classifier classifier;
};

static int matches(const struct vnet_match *match, const struct vnet_fields *frame)
{
	for (int i = 0; i < VNET_WORDS; i++)
		if ((frame->word[i] ^ match->value.word[i]) & match->mask.word[i])
			return 0;
	return frame->source_port >= match->source_ports[0] &&
	       frame->source_port <= match->source_ports[1] &&
	       frame->destination_port >= match->destination_ports[0] &&
	       frame->destination_port <= match->destination_ports[1];
}

static __u32 search(const struct work *work, const struct vnet_fields *frame)
{
	const struct vnet_match *best = NULL;

	for (__u32 i = 0; i < work->rules; i++)
		if ((!best || work->match[i].priority > best->priority) &&
		    matches(&work->match[i], frame))
			best = &work->match[i];
	return best ? best->action : MISS;
}

static __u32 look_up(struct bench *bench, const struct vnet_fields *frame)
{
	struct vnet_hit hit;

	return vnet_classifier_lookup(&bench->classifier.image, 0, frame, &hit) ? MISS : hit.action;
}

static void check(struct bench *bench)
{
	for (__u32 i = 0; i < CHECKED && i < bench->work.frames; i++)
		if (look_up(bench, &bench->work.frame[i]) !=
		    search(&bench->work, &bench->work.frame[i]))
			die("a wrong answer");
}

static void print_counts(struct bench *bench)
{
	struct count count;

	count_visits(&bench->classifier.image, bench->work.frame, bench->work.frames, &count);
	printf("visited-mean %f\nvisited-worst %u\nlines-mean %f\n",
	       (double)count.subtables / bench->work.frames, count.most_subtables,
	       (double)count.lines / bench->work.frames);
}

static void measure_lookups(struct bench *bench, int rounds)
{
	__u32 sum = 0;
	double began;

	printf("lookups");
	for (int round = 0; round < rounds; round++) {
		began = now();
		for (__u32 i = 0; i < bench->work.frames; i++)
			sum += look_up(bench, &bench->work.frame[i]);
		printf(" %f", bench->work.frames / (now() - began));
	}
	printf("\nsum %u\n", sum);
}

/* A random rule goes, and comes back: two updates. */
static void measure_updates(struct bench *bench, int rounds)
{
	const __u32 updates = 200000;
	struct work *work = &bench->work;
	__u32 random = 1;
	double began;

	printf("updates");
	for (int round = 0; round < rounds; round++) {
		began = now();
		for (__u32 i = 0; i < updates / 2; i++) {
			__u32 rule = (random = random * 1664525 + 1013904223) % work->rules;

			if (vnet_classifier_delete(&bench->classifier, 0, work->entry[rule]) ||
			    vnet_classifier_insert(&bench->classifier, 0, &work->match[rule],
						   &work->entry[rule]))
				die("an update failed");
		}
		printf(" %f", updates / (now() - began));
	}
	printf("\n");
}

static void measure_load(struct bench *bench, int rounds)
{
	struct work *work = &bench->work;
	double began;

	printf("load");
	for (int round = 0; round < rounds; round++) {
		began = now();
		if (vnet_classifier_replace(&bench->classifier, 0, work->match, work->rules, MISS,
					    work->entry))
			die("the rules were refused");
		printf(" %f", now() - began);
	}
	printf("\n");
}

static void print_measure(struct bench *bench)
{
	struct vnet_measure measure;

	if (vnet_classifier_measure(&bench->classifier, 0, &measure))
		die("no measure");
	printf("bytes-per-rule %f\nsubtables %u\nlongest-group %u\nlongest-chain %u\n"
	       "worst-rules %u\nworst-buckets %u\nfilter-bytes %u\n",
	       (double)measure.bytes / bench->work.rules, measure.subtables, measure.longest_group,
	       measure.longest_chain, measure.worst_rules, measure.worst_buckets,
	       measure.filter_bytes);
}

int main(int argc, char **argv)
{
	struct bench bench = {0};
	const char *wrong;
	int rounds;

	if (argc != 3 || (rounds = atoi(argv[2])) < 1)
		die("usage: classifier FILE ROUNDS");
	read_work(&bench.work, argv[1]);
	if (vnet_classifier_init(&bench.classifier, work_lines(&bench.work), 16, NULL, NULL, NULL))
		die("no memory");
	measure_load(&bench, rounds < 3 ? rounds : 3);
	check(&bench);
	print_measure(&bench);
	print_counts(&bench);
	measure_lookups(&bench, rounds);
	measure_updates(&bench, rounds);
	wrong = vnet_classifier_check(&bench.classifier);
	if (wrong)
		die(wrong);
	check(&bench);
	print_measure(&bench);
	print_counts(&bench);
	measure_lookups(&bench, 1);
	return 0;
}
