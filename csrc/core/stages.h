/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Programs that go on with a frame where another one ends: each has the whole of the short stack. */
#ifndef VNET_STAGES_H
#define VNET_STAGES_H

enum vnet_stage {
	VNET_STAGE_TABLES_FROM = 0, /* the operator's tables, for a frame from a VM */
	VNET_STAGE_TABLES_TO = 1,
	VNET_STAGE_NORMAL_FROM = 2, /* what comes behind them */
	VNET_STAGE_NORMAL_TO = 3,
	VNET_STAGE_NAT_FROM = 4, /* between the two */
	VNET_STAGE_NAT_TO = 5,
};

#define VNET_STAGES 8

#endif
