/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a test asks the look-up in the kernel, and what that answers in its place. */
#ifndef VNET_CLASSIFIER_KERNEL_H
#define VNET_CLASSIFIER_KERNEL_H

#include "classifier_lookup.h"

struct classifier_question {
	struct vnet_fields fields;
	__u32 set;
	__u32 reserved;
};

struct classifier_answer {
	struct vnet_hit hit;
	__s32 error;
	__u32 reserved;
};

#endif
