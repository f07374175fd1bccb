/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The datapath in the kernel: load, adopt, attach, and bulk work on its maps. Knows no Python.
 * Functions return 0 or a negative errno unless they say otherwise.
 */
#ifndef VNET_KERNEL_H
#define VNET_KERNEL_H

#include "datapath.h"
#include "flows.h"

struct vnet_kernel;

/* Bytes of the BPF object that is built in. */
size_t vnet_kernel_object_size(void);

/* Records in one chunk of an export: 256 KiB. */
#define VNET_KERNEL_BATCH 2048

/*
 * Creates the datapath under `pin_dir`, or adopts the one that is pinned there: its maps stay, its
 * programs are pinned anew. Until it is closed, or the process ends, no other may open it. On
 * failure returns NULL, with errno and a text.
 */
struct vnet_kernel *vnet_kernel_open(const char *pin_dir, __u32 max_ports, char *error,
				     size_t error_size);
void vnet_kernel_close(struct vnet_kernel *kernel);
/*
 * Once every interface has this version's programs: brings what has changed in the version before
 * since the datapath was opened, and unpins that. 1 when there was one, 0 when not.
 */
int vnet_kernel_finish_upgrade(struct vnet_kernel *kernel);
/* Unpins everything; with the last reference it is gone. */
int vnet_kernel_unpin(struct vnet_kernel *kernel);
__u32 vnet_kernel_max_ports(const struct vnet_kernel *kernel);
struct vnet_port *vnet_kernel_ports(const struct vnet_kernel *kernel);
/* Fills the mirror from the pinned maps. */
int vnet_kernel_mirror(struct vnet_kernel *kernel, struct vnet_datapath *mirror);

int vnet_kernel_table_put(struct vnet_kernel *kernel, unsigned int table, const void *key,
			  const void *value);
void vnet_kernel_table_remove(struct vnet_kernel *kernel, unsigned int table, const void *keys,
			      __u32 count);
/* A datapath that has none yet gets the defaults: programs never see a life of 0. */
int vnet_kernel_settings_get(struct vnet_kernel *kernel, struct vnet_settings *settings);
int vnet_kernel_settings_put(struct vnet_kernel *kernel, const struct vnet_settings *settings);

int vnet_kernel_counters(struct vnet_kernel *kernel, __u32 local_id, struct vnet_counters *sum);

int vnet_kernel_has_conns(const struct vnet_kernel *kernel, __u32 local_id);
int vnet_kernel_conns_create(struct vnet_kernel *kernel, __u32 local_id, __u32 quota);
void vnet_kernel_conns_delete(struct vnet_kernel *kernel, __u32 local_id);
int vnet_kernel_conns_dup(const struct vnet_kernel *kernel, __u32 local_id);
void vnet_kernel_conns_release(int fd);

/* At most VNET_KERNEL_BATCH records; `position` 0 starts, -1 comes back at the end. */
int vnet_kernel_export(int fd, __u64 since, __u64 now, long long *position,
		       struct vnet_conn_record *records, size_t *count);
int vnet_kernel_count(int fd, __u64 now, size_t *count);
/* At most `room` entries that match, from `cursor` on, which moves on. */
int vnet_kernel_flows(int fd, const struct vnet_flow_match *match, __u32 generation, __u64 now,
		      struct vnet_flow_cursor *cursor, struct vnet_flow *flows, __u32 room,
		      __u32 *count);
/* One entry, read; -ENOENT when there is none. */
int vnet_kernel_conn_get(const struct vnet_kernel *kernel, __u32 local_id,
			 const struct vnet_conn_key *key, struct vnet_conn *conn);
int vnet_kernel_fragment_get(const struct vnet_kernel *kernel, __u32 local_id,
			     const struct vnet_fragment_key *key, struct vnet_fragment *fragment);
int vnet_kernel_import(struct vnet_kernel *kernel, struct vnet_datapath *mirror, __u32 local_id,
		       const struct vnet_conn_record *records, size_t count, __u64 now,
		       struct vnet_import *import);
/* How many were removed, or a negative errno; `left` is how many entries stay. */
long long vnet_kernel_expire(int fd, __u64 before, __u64 *left);

/*
 * Frames that are captured go to a ring of at least `size` bytes from now on; -EBUSY when there is
 * one already. Returns a descriptor, the ring's own, that is readable while there are records.
 */
int vnet_kernel_capture_open(struct vnet_kernel *kernel, __u32 size);
int vnet_kernel_is_capturing(const struct vnet_kernel *kernel);
/* As many whole records as fit into `room`, which is at least one: see VNET_CAPTURE_ROOM. */
size_t vnet_kernel_capture_read(struct vnet_kernel *kernel, void *to, size_t room);
int vnet_kernel_capture_get(struct vnet_kernel *kernel, __u32 local_id,
			    struct vnet_capture *capture);
/* Also takes a ring away that an agent left when it died. */
void vnet_kernel_capture_close(struct vnet_kernel *kernel);

/*
 * The operator's tables: loads their programs if they are not yet, with the rules that an earlier
 * agent left in force. The kernel owns `handlers`.
 */
int vnet_kernel_tables_open(struct vnet_kernel *kernel, struct vnet_handlers **handlers);
/* Whether an earlier agent left tables. */
int vnet_kernel_tables_pinned(const struct vnet_kernel *kernel);
void vnet_kernel_tables_close(struct vnet_kernel *kernel);
void vnet_kernel_tables_unpin(const struct vnet_kernel *kernel);
/* Readable while there are packet-ins; there before any table is. Goes with the kernel. */
int vnet_kernel_packet_fd(struct vnet_kernel *kernel);
/* As vnet_kernel_capture_read(). */
size_t vnet_kernel_packet_read(struct vnet_kernel *kernel, void *to, size_t room);
/* Lets the frame be one from the VM behind the interface, or to it. */
int vnet_kernel_send(struct vnet_kernel *kernel, __u32 ifindex, int from_vm, int past_tables,
		     const void *frame, __u32 length);

int vnet_kernel_attach(struct vnet_kernel *kernel, __u32 ifindex, int uplink);
int vnet_kernel_detach(struct vnet_kernel *kernel, __u32 ifindex, int uplink);
/*
 * The short way that an attached interface can have: VNET_PORT_SHORT, and it has the program of
 * csrc/core/shortcut.h now; VNET_PORT_PEER, see csrc/bpf/act.h; 0 when it can have none, or has
 * another's XDP program.
 */
int vnet_kernel_set_short(struct vnet_kernel *kernel, __u32 ifindex);
int vnet_kernel_has_short(const struct vnet_kernel *kernel, __u32 ifindex);
/* Another's XDP program stays. */
void vnet_kernel_leave_short(const struct vnet_kernel *kernel, __u32 ifindex);
void vnet_kernel_short_unpin(const struct vnet_kernel *kernel);
void vnet_kernel_short_close(struct vnet_kernel *kernel);
/* Runs the frame `repeat` times; `nanoseconds` is the mean of them. */
int vnet_kernel_test_run(struct vnet_kernel *kernel, enum vnet_hook hook, __u32 ifindex,
			 const void *frame, __u32 length, __u32 repeat, __u32 *action,
			 __u32 *nanoseconds);

#endif
