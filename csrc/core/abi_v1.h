/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What version 1 of the maps has otherwise than this one; abi.h includes it. Frozen: an agent that
 * finds that version carries it over (csrc/ext/kernel_upgrade.c). With VNET_AS_V1 all is compiled as
 * that version, for the tests to have one to come from.
 */
struct vnet_conn_v1 {
	__u64 expires_ns;
	__u64 packets[2];
	__u64 bytes[2];
	__u32 generation;
	__u8 state;
	__u8 flags;
	__u8 closing;
	__u8 reserved;
	__u64 created_ns;
	__u64 changed_ns;
	__u32 mark;
	__u32 zero;
	struct vnet_window window[2];
};
_Static_assert(sizeof(struct vnet_conn_v1) == 104, "vnet_conn_v1");

#ifdef VNET_AS_V1
#define VNET_ABI_VERSION 1
#define vnet_conn vnet_conn_v1
#endif
