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
	int lock;   /* on the directory of pins, -1: none */
	struct vnet_kernel_ring *ring; /* of captured frames; NULL while nobody captures */
	struct vnet_kernel_tables *tables; /* of the operator; NULL until they are used */
	struct xdp_bpf *shortcut; /* NULL until a tap is given the short way */
	int packets; /* epoll over the ring to the controller, -1: nobody asked for it */
	char *upgraded_from; /* directory of the version before, NULL: there is none */
	__u64 upgrade_began; /* when its connections were copied */
	char directory[PATH_MAX];
};

/* A port's table of connections, in its place and pinned; the descriptor, or a negative errno. */
int vnet_kernel_create_table(struct vnet_kernel *kernel, __u32 local_id, __u32 quota);

/* From the version before, see kernel_upgrade.c: its maps, before any is loaded here; ... */
int vnet_upgrade_begin(struct vnet_kernel *kernel, const char *pin_dir);
/* ... and its connections, before any port is adopted. */
int vnet_upgrade_conns(struct vnet_kernel *kernel);
void vnet_upgrade_close(struct vnet_kernel *kernel);

/* What both objects name is the same map. */
int vnet_kernel_share_maps(struct vnet_kernel *kernel, struct bpf_object *object);

/*
 * VNET_PORT_SHORT: a tap whose frames come as its reader wrote them, for good. VNET_PORT_PEER: a veth
 * whose other end is in another namespace. 0: any other interface.
 */
__u32 vnet_link_kind(__u32 ifindex);

/* The longest path of a pin below `directory`. */
#define VNET_PIN_PATH (PATH_MAX + 64)

/* Locks `pin_dir` and makes `directory` in it; -ENOTSUP outside of a bpf file system. */
int vnet_pins_open(struct vnet_kernel *kernel, const char *pin_dir);
void vnet_pins_close(struct vnet_kernel *kernel);
int vnet_pins_programs(struct vnet_kernel *kernel);

/*
 * A port's connection table has a pin of its own, conns/ID: to open a map by the number that the
 * kernel gave it takes CAP_SYS_ADMIN, a pin takes none.
 */
int vnet_pins_add_conns(struct vnet_kernel *kernel, __u32 local_id, int fd);
int vnet_pins_get_conns(const struct vnet_kernel *kernel, __u32 local_id);
void vnet_pins_remove_conns(const struct vnet_kernel *kernel, __u32 local_id);

#endif
