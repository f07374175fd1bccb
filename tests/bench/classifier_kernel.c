/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nanoseconds of a look-up in the kernel, on one set of rules and one trace (classbench.py writes
 * the file):
 *
 *   classifier_kernel FILE ROUNDS
 *
 * Prints "kernel-ns VALUE..." with a value for each round: a run over the trace, less one that
 * looks nothing up. The sum of the actions is compared with that of look-ups here.
 */
#include <bpf/bpf.h>
#include <string.h>
#include <sys/mman.h>

#include "classifier.skel.h"
#include "classifier_lookup.h"
#include "classifier_map.h"
#include "classifier_work.h"

struct kernel {
	struct classifier_bpf *skeleton;
	struct vnet_classifier classifier;
	struct work work;
};

static void load(struct kernel *kernel)
{
	__u32 lines = work_lines(&kernel->work), frames = kernel->work.frames;
	struct classifier_bpf *skeleton = kernel->skeleton = classifier_bpf__open();
	size_t size = frames * sizeof(struct vnet_fields);
	void *trace;

	if (!skeleton)
		die("the object cannot be opened");
	skeleton->rodata->trace_length = frames;
	if (bpf_map__set_max_entries(skeleton->maps.vnet_lines, lines) ||
	    bpf_map__set_max_entries(skeleton->maps.trace, frames) ||
	    classifier_bpf__load(skeleton) ||
	    vnet_classifier_map(&kernel->classifier, bpf_map__fd(skeleton->maps.vnet_lines), lines,
				16))
		die("the object cannot be loaded");
	/* An element of an array map begins at a multiple of eight: the structs lie as they are. */
	trace = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
		     bpf_map__fd(skeleton->maps.trace), 0);
	if (trace == MAP_FAILED)
		die("the trace cannot be mapped");
	memcpy(trace, kernel->work.frame, size);
	munmap(trace, size);
	if (vnet_classifier_replace(&kernel->classifier, 0, kernel->work.match, kernel->work.rules,
				    ~0U, kernel->work.entry))
		die("the rules were refused");
}

/* Mean nanoseconds of one pass over the trace. */
static double run(struct kernel *kernel, struct bpf_program *program)
{
	__u8 frame[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = kernel->work.frames);

	if (bpf_prog_test_run_opts(bpf_program__fd(program), &options) || options.retval)
		die("the program failed");
	return options.duration;
}

static void compare(struct kernel *kernel)
{
	struct vnet_hit hit = {0};
	__u64 sum = 0;

	kernel->skeleton->bss->sum = 0;
	run(kernel, kernel->skeleton->progs.replay);
	for (__u32 i = 0; i < kernel->work.frames; i++) {
		vnet_classifier_lookup(&kernel->classifier.image, 0, &kernel->work.frame[i], &hit);
		sum += hit.action;
	}
	if (sum != kernel->skeleton->bss->sum)
		die("the kernel has other answers");
}

int main(int argc, char **argv)
{
	struct kernel kernel = {0};
	double with, without;
	int rounds;

	if (argc != 3 || (rounds = atoi(argv[2])) < 1)
		die("usage: classifier_kernel FILE ROUNDS");
	read_work(&kernel.work, argv[1]);
	load(&kernel);
	compare(&kernel);
	printf("kernel-ns");
	for (int round = 0; round < rounds; round++) {
		without = run(&kernel, kernel.skeleton->progs.replay_nothing);
		with = run(&kernel, kernel.skeleton->progs.replay);
		printf(" %f", with - without);
	}
	printf("\n");
	vnet_classifier_unmap(&kernel.classifier);
	classifier_bpf__destroy(kernel.skeleton);
	return 0;
}
