/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of an earlier agent: where they are found, and how they are taken over. */
#ifndef VNET_KERNEL_TABLES_H
#define VNET_KERNEL_TABLES_H

#include "handlers.h"
#include "kernel_internal.h"

/* Puts the rules that are in force into `handlers`, which are empty; nothing if there are none. */
int vnet_tables_adopt(const struct vnet_kernel *kernel, struct vnet_handlers *handlers);
/* For the next agent, in the place of what is there. */
int vnet_tables_pin(const struct vnet_kernel *kernel, int lines, int handlers);

#endif
