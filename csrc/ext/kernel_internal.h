/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VNET_KERNEL_INTERNAL_H
#define VNET_KERNEL_INTERNAL_H

#include <limits.h>

#include "kernel.h"
#include "vnet.skel.h"

/* Owns the skeleton, the mapping and the descriptors. */
struct vnet_kernel {
	struct vnet_bpf *skeleton;
	__u32 max_ports; /* local ids are below it */
	struct vnet_port *ports;
	size_t ports_size;
	int *conns; /* connection table by local id, -1: none */
	char directory[PATH_MAX];
};

#endif
