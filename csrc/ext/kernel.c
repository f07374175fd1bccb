/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel.h"

#include <errno.h>
#include <stdio.h>

struct vnet_kernel *vnet_kernel_open(const char *pin_dir, __u32 max_ports, char *error, size_t size)
{
	(void)pin_dir, (void)max_ports;
	snprintf(error, size, "the kernel's part is not built");
	return NULL;
}
void vnet_kernel_close(struct vnet_kernel *kernel) { (void)kernel; }
int vnet_kernel_unpin(struct vnet_kernel *k) { (void)k; return -ENOSYS; }
__u32 vnet_kernel_max_ports(const struct vnet_kernel *k) { (void)k; return 0; }
struct vnet_port *vnet_kernel_ports(const struct vnet_kernel *k) { (void)k; return NULL; }
int vnet_kernel_mirror(struct vnet_kernel *k, struct vnet_datapath *m) { (void)k, (void)m; return -1; }
int vnet_kernel_table_put(struct vnet_kernel *k, unsigned int t, const void *a, const void *b, __u32 c) { (void)k, (void)t, (void)a, (void)b, (void)c; return -1; }
void vnet_kernel_table_remove(struct vnet_kernel *k, unsigned int t, const void *a, __u32 c) { (void)k, (void)t, (void)a, (void)c; }
int vnet_kernel_counters(struct vnet_kernel *k, __u32 l, struct vnet_counters *s) { (void)k, (void)l, (void)s; return -1; }
int vnet_kernel_has_conns(const struct vnet_kernel *k, __u32 l) { (void)k, (void)l; return 0; }
int vnet_kernel_conns_create(struct vnet_kernel *k, __u32 l, __u32 q) { (void)k, (void)l, (void)q; return -1; }
void vnet_kernel_conns_delete(struct vnet_kernel *k, __u32 l) { (void)k, (void)l; }
int vnet_kernel_conns_dup(const struct vnet_kernel *k, __u32 l) { (void)k, (void)l; return -1; }
void vnet_kernel_conns_release(int fd) { (void)fd; }
int vnet_kernel_export(int fd, __u64 s, __u64 n, long long *p, struct vnet_conn_record *r, size_t *c) { (void)fd, (void)s, (void)n, (void)p, (void)r, (void)c; return -1; }
int vnet_kernel_import(struct vnet_kernel *k, struct vnet_datapath *m, __u32 l, const struct vnet_conn_record *r, size_t c, __u64 n, struct vnet_import *i) { (void)k, (void)m, (void)l, (void)r, (void)c, (void)n, (void)i; return -1; }
long long vnet_kernel_expire(int fd, __u64 b) { (void)fd, (void)b; return -1; }
int vnet_kernel_attach(struct vnet_kernel *k, __u32 i, int u) { (void)k, (void)i, (void)u; return -1; }
int vnet_kernel_detach(struct vnet_kernel *k, __u32 i, int u) { (void)k, (void)i, (void)u; return -1; }
int vnet_kernel_test_run(struct vnet_kernel *k, enum vnet_hook h, __u32 i, const void *f, __u32 l, __u32 *a) { (void)k, (void)h, (void)i, (void)f, (void)l, (void)a; return -1; }
