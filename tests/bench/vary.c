/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the program of an interface, or an empty one, over many frames (vary.bpf.c):
 *
 *   vary IFINDEX from|to empty|program RUNS COUNT sequence|random both|one FRAME
 *
 * `from` is the program for frames from the VM, clsact ingress of its tap; `to` the other one.
 * FRAME is in hexadecimal; its ports are changed, both or only the other side's, to one of COUNT
 * pairs. Prints the mean nanoseconds of a run and what the last one returned.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vary.skel.h"

/* Where the agent attaches its programs: csrc/ext/kernel.c. */
#define TC_HANDLE 0x766e6574
#define TC_PRIORITY 1
#define FRAME_MAX 1514
/* The kernel counts the runs in 32 bits; this many take seconds. */
#define RUNS_MAX 100000000UL

struct job {
	__u32 ifindex;
	__u32 runs;
	__u32 length;
	int incoming;
	unsigned char frame[FRAME_MAX];
};

static int fail(const char *what)
{
	fprintf(stderr, "vary: %s: %s\n", what, strerror(errno));
	return -1;
}

/* The descriptor of the program that is attached, or -1. */
static int find_program(const struct job *job)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)job->ifindex,
		    .attach_point = job->incoming ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = TC_HANDLE, .priority = TC_PRIORITY);
	int fd;

	if (bpf_tc_query(&hook, &options))
		return fail("no program on the interface");
	fd = bpf_prog_get_fd_by_id(options.prog_id);
	return fd < 0 ? fail("its program") : fd;
}

static int set_target(const struct vary_bpf *skeleton, const struct job *job, int is_empty)
{
	int program = is_empty ? bpf_program__fd(skeleton->progs.empty) : find_program(job);
	__u32 key = 0;
	int error;

	if (program < 0)
		return -1;
	error = bpf_map_update_elem(bpf_map__fd(skeleton->maps.target), &key, &program, BPF_ANY);
	if (!is_empty)
		close(program);
	return error ? fail("tail call") : 0;
}

static int run(const struct vary_bpf *skeleton, const struct job *job)
{
	struct __sk_buff context = {.ifindex = job->ifindex};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = job->frame, .data_size_in = job->length,
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = (int)job->runs);

	if (bpf_prog_test_run_opts(bpf_program__fd(skeleton->progs.vary), &options))
		return fail("test run");
	printf("%u %d\n", options.duration, (int)options.retval);
	return 0;
}

static int parse_frame(struct job *job, const char *text)
{
	size_t length = strlen(text) / 2;

	if (length < 38 || length > FRAME_MAX || strlen(text) % 2)
		return -1;
	for (size_t i = 0; i < length; i++)
		if (sscanf(text + 2 * i, "%2hhx", &job->frame[i]) != 1)
			return -1;
	job->length = length;
	return 0;
}

int main(int argc, char **argv)
{
	struct vary_bpf *skeleton;
	struct job job = {0};
	int status = 1;

	if (argc != 9 || parse_frame(&job, argv[8])) {
		fprintf(stderr, "usage: vary IFINDEX from|to empty|program RUNS COUNT "
				"sequence|random both|one FRAME\n");
		return 2;
	}
	job.ifindex = strtoul(argv[1], NULL, 10);
	job.incoming = strcmp(argv[2], "to") == 0;
	job.runs = strtoul(argv[4], NULL, 10);
	if (!job.runs || job.runs > RUNS_MAX) {
		fprintf(stderr, "vary: %s runs\n", argv[4]);
		return 2;
	}
	skeleton = vary_bpf__open();
	if (!skeleton)
		return fail("open"), 1;
	skeleton->rodata->count = strtoul(argv[5], NULL, 10);
	skeleton->rodata->random = strcmp(argv[6], "random") == 0;
	skeleton->rodata->incoming = job.incoming;
	skeleton->rodata->one_port = strcmp(argv[7], "one") == 0;
	skeleton->bss->next = 0;
	skeleton->data->state = (unsigned long)getpid();
	if (vary_bpf__load(skeleton))
		fail("load");
	else if (!set_target(skeleton, &job, strcmp(argv[3], "empty") == 0) &&
		 !run(skeleton, &job))
		status = 0;
	vary_bpf__destroy(skeleton);
	return status;
}
