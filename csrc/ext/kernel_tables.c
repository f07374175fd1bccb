/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's tables in the kernel. */
#include <errno.h>

#include "kernel_internal.h"

int vnet_kernel_tables_open(struct vnet_kernel *kernel, struct vnet_handlers **handlers)
{
	(void)kernel, (void)handlers;
	return -EOPNOTSUPP;
}

int vnet_kernel_tables_pinned(const struct vnet_kernel *kernel)
{
	(void)kernel;
	return 0;
}

int vnet_kernel_packet_fd(const struct vnet_kernel *kernel)
{
	(void)kernel;
	return -1;
}

size_t vnet_kernel_packet_read(struct vnet_kernel *kernel, void *to, size_t room)
{
	(void)kernel, (void)to, (void)room;
	return 0;
}
