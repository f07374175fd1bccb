/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the classifier on one set of rules and one trace (classbench.py writes the file):
 *
 *   classifier FILE ROUNDS
 *
 * Prints "NAME VALUE..." lines; a line of times has a value for each round. Every answer of the
 * trace is compared with the rule that a search through all of them finds, for a part of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "classifier.h"
#include "classifier_count.h"
#include "classifier_lookup.h"

#define CHECKED 200 /* frames of the trace */
#define MISS 0xffffffffU

static void die(const char *what)
{
	fprintf(stderr, "classifier: %s\n", what);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

struct work {
	__u32 rules;
	__u32 frames;
	struct vnet_match *match;
	struct vnet_fields *frame;
	__u32 *entry;
	struct vnet_classifier classifier;
};

static void read_work(struct work *work, const char *path)
{
	FILE *file = fopen(path, "rb");
	__u32 counts[2];

	if (!file || fread(counts, sizeof(counts), 1, file) != 1)
		die("the file cannot be read");
	work->rules = counts[0];
	work->frames = counts[1];
	work->match = calloc(work->rules, sizeof(*work->match));
	work->frame = calloc(work->frames, sizeof(*work->frame));
	work->entry = calloc(work->rules, sizeof(*work->entry));
	if (!work->match || !work->frame || !work->entry ||
	    fread(work->match, sizeof(*work->match), work->rules, file) != work->rules ||
	    fread(work->frame, sizeof(*work->frame), work->frames, file) != work->frames)
		die("the file is cut short");
	fclose(file);
}

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

static __u32 look_up(struct work *work, const struct vnet_fields *frame)
{
	struct vnet_hit hit;

	return vnet_classifier_lookup(&work->classifier.image, 0, frame, &hit) ? MISS : hit.action;
}

static void check(struct work *work)
{
	for (__u32 i = 0; i < CHECKED && i < work->frames; i++)
		if (look_up(work, &work->frame[i]) != search(work, &work->frame[i]))
			die("a wrong answer");
}

static void print_counts(struct work *work)
{
	struct count count;

	count_visits(&work->classifier.image, work->frame, work->frames, &count);
	printf("visited-mean %f\nvisited-worst %u\nlines-mean %f\n",
	       (double)count.subtables / work->frames, count.most_subtables,
	       (double)count.lines / work->frames);
}

static void measure_lookups(struct work *work, int rounds)
{
	__u32 sum = 0;
	double began;

	printf("lookups");
	for (int round = 0; round < rounds; round++) {
		began = now();
		for (__u32 i = 0; i < work->frames; i++)
			sum += look_up(work, &work->frame[i]);
		printf(" %f", work->frames / (now() - began));
	}
	printf("\nsum %u\n", sum);
}

/* A random rule goes, and comes back: two updates. */
static void measure_updates(struct work *work, int rounds)
{
	const __u32 updates = 200000;
	__u32 random = 1;
	double began;

	printf("updates");
	for (int round = 0; round < rounds; round++) {
		began = now();
		for (__u32 i = 0; i < updates / 2; i++) {
			__u32 rule = (random = random * 1664525 + 1013904223) % work->rules;

			if (vnet_classifier_delete(&work->classifier, 0, work->entry[rule]) ||
			    vnet_classifier_insert(&work->classifier, 0, &work->match[rule],
						   &work->entry[rule]))
				die("an update failed");
		}
		printf(" %f", updates / (now() - began));
	}
	printf("\n");
}

static void measure_load(struct work *work, int rounds)
{
	double began;

	printf("load");
	for (int round = 0; round < rounds; round++) {
		began = now();
		if (vnet_classifier_replace(&work->classifier, 0, work->match, work->rules, MISS,
					    work->entry))
			die("the rules were refused");
		printf(" %f", now() - began);
	}
	printf("\n");
}

static void print_measure(struct work *work)
{
	struct vnet_measure measure;

	if (vnet_classifier_measure(&work->classifier, 0, &measure))
		die("no measure");
	printf("bytes-per-rule %f\nsubtables %u\nlongest-group %u\nlongest-chain %u\n"
	       "worst-rules %u\nworst-buckets %u\nfilter-bytes %u\n",
	       (double)measure.bytes / work->rules, measure.subtables, measure.longest_group,
	       measure.longest_chain, measure.worst_rules, measure.worst_buckets,
	       measure.filter_bytes);
}

int main(int argc, char **argv)
{
	struct work work = {0};
	const char *wrong;
	int rounds;

	if (argc != 3 || (rounds = atoi(argv[2])) < 1)
		die("usage: classifier FILE ROUNDS");
	read_work(&work, argv[1]);
	if (vnet_classifier_init(&work.classifier, 16384 + 8 * work.rules, 16, NULL, NULL, NULL))
		die("no memory");
	measure_load(&work, rounds < 3 ? rounds : 3);
	check(&work);
	print_measure(&work);
	print_counts(&work);
	measure_lookups(&work, rounds);
	measure_updates(&work, rounds);
	wrong = vnet_classifier_check(&work.classifier);
	if (wrong)
		die(wrong);
	check(&work);
	print_measure(&work);
	print_counts(&work);
	measure_lookups(&work, 1);
	return 0;
}
