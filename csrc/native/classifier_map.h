/* SPDX-License-Identifier: Apache-2.0 */
/* The classifier's image in the kernel: an array map of lines that programs read. */
#ifndef VNET_CLASSIFIER_MAP_H
#define VNET_CLASSIFIER_MAP_H

#include "classifier.h"

/* Returns when no program is at work that was when it was called; see vnet_classifier_init(). */
void vnet_wait_for_programs(void *arg);
/* Not where CPUs are kept free of ticks (nohz_full). */
int vnet_can_wait_for_programs(void);

/*
 * Maps the lines of `fd`, an array map made with BPF_F_MMAPABLE. What an earlier process left is
 * taken over; in a map with nothing in it yet an image begins. The map outlives the classifier. 0,
 * or -errno as the kernel says, besides what vnet_classifier_init() returns; -EEXIST: there is an
 * image, for another number of sets; -EUCLEAN: one of another version, or damaged.
 */
int vnet_classifier_map(struct vnet_classifier *classifier, int fd, __u32 lines, __u32 sets);
void vnet_classifier_unmap(struct vnet_classifier *classifier);

#endif
