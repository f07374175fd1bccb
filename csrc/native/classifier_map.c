/* SPDX-License-Identifier: Apache-2.0 */
#include "classifier_map.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Programs run inside of RCU's read side, and this command waits for all of those
 * (kernel/sched/membarrier.c: synchronize_rcu). It is asked for beforehand: lines that a program
 * may still read must not be used again.
 */
void vnet_wait_for_programs(void *arg)
{
	(void)arg;
	if (!syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		return;
	perror("membarrier");
	abort();
}

int vnet_can_wait_for_programs(void)
{
	return syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) & MEMBARRIER_CMD_GLOBAL;
}

static int begin(struct vnet_classifier *classifier, union vnet_line *memory, __u32 lines,
		 __u32 sets)
{
	int error;

	if (!memory->head.version)
		return vnet_classifier_init(classifier, lines, sets, memory, vnet_wait_for_programs,
					    NULL);
	if (memory->head.sets != sets)
		return -EEXIST;
	error = vnet_classifier_adopt(classifier, lines, memory, vnet_wait_for_programs, NULL);
	return error == -EINVAL ? -EUCLEAN : error;
}

int vnet_classifier_map(struct vnet_classifier *classifier, int fd, __u32 lines, __u32 sets)
{
	size_t size = lines * sizeof(union vnet_line);
	void *memory;
	int error;

	if (!vnet_can_wait_for_programs())
		return -EOPNOTSUPP;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	error = begin(classifier, memory, lines, sets);
	if (error)
		munmap(memory, size);
	return error;
}

void vnet_classifier_unmap(struct vnet_classifier *classifier)
{
	union vnet_line *line = classifier->image.line;
	size_t size = classifier->image.lines * sizeof(*line);

	vnet_classifier_free(classifier);
	munmap(line, size);
}
