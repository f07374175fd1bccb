/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The short way: an XDP program before the others of a tap, loaded when the first one gets it. A
 * link holds it there, pinned as short/IFINDEX, so that it outlives the agent and the next one
 * replaces it in one step.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel_internal.h"
#include "xdp.skel.h"

static int load(struct vnet_kernel *kernel)
{
	struct xdp_bpf *skeleton;
	int error;

	if (kernel->shortcut)
		return 0;
	skeleton = xdp_bpf__open();
	if (!skeleton)
		return -errno;
	error = vnet_kernel_share_maps(kernel, skeleton->obj);
	if (!error)
		error = xdp_bpf__load(skeleton);
	if (error) {
		xdp_bpf__destroy(skeleton);
		return error;
	}
	kernel->shortcut = skeleton;
	return 0;
}

static void pin_path(const struct vnet_kernel *kernel, const char *name, char path[VNET_PIN_PATH])
{
	snprintf(path, VNET_PIN_PATH, "%s/short%s", kernel->directory, name);
}

static void link_path(const struct vnet_kernel *kernel, __u32 ifindex, char path[VNET_PIN_PATH])
{
	char name[16];

	snprintf(name, sizeof(name), "/%u", ifindex);
	pin_path(kernel, name, path);
}

/* The interface's link, -1 when it has none; what is left of another's that had its number goes. */
static int get_link(const struct vnet_kernel *kernel, __u32 ifindex)
{
	struct bpf_link_info info = {0};
	char path[VNET_PIN_PATH];
	__u32 size = sizeof(info);
	int fd;

	link_path(kernel, ifindex, path);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return -1;
	if (!bpf_obj_get_info_by_fd(fd, &info, &size) && info.xdp.ifindex == ifindex)
		return fd;
	close(fd);
	unlink(path);
	return -1;
}

static int add_link(const struct vnet_kernel *kernel, __u32 ifindex, int program)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_DRV_MODE);
	char path[VNET_PIN_PATH];
	int link, error = 0;

	pin_path(kernel, "", path);
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	link = bpf_link_create(program, (int)ifindex, BPF_XDP, &options);
	if (link < 0)
		return -errno;
	link_path(kernel, ifindex, path);
	if (bpf_obj_pin(link, path))
		error = -errno;
	close(link);
	return error;
}

int vnet_kernel_set_short(struct vnet_kernel *kernel, __u32 ifindex)
{
	__u32 kind = vnet_link_kind(ifindex);
	int error, link, program;

	if (kind != VNET_PORT_SHORT)
		return (int)kind;
	error = load(kernel);
	if (error)
		return error;
	program = bpf_program__fd(kernel->shortcut->progs.vnet_xdp_from_port);
	link = get_link(kernel, ifindex);
	if (link < 0) {
		error = add_link(kernel, ifindex, program);
		/* Another's program is there. */
		return error == -EBUSY || error == -EEXIST ? 0 : error ? error : (int)kind;
	}
	error = bpf_link_update(link, program, NULL) ? -errno : 0;
	close(link);
	return error ? error : (int)kind;
}

int vnet_kernel_has_short(const struct vnet_kernel *kernel, __u32 ifindex)
{
	int link = get_link(kernel, ifindex);

	if (link < 0)
		return 0;
	close(link);
	return 1;
}

void vnet_kernel_leave_short(const struct vnet_kernel *kernel, __u32 ifindex)
{
	int link = get_link(kernel, ifindex);
	char path[VNET_PIN_PATH];

	if (link < 0)
		return;
	/* At once: with the last reference it would be some time later. */
	bpf_link_detach(link);
	close(link);
	link_path(kernel, ifindex, path);
	unlink(path);
}

void vnet_kernel_short_unpin(const struct vnet_kernel *kernel)
{
	char path[VNET_PIN_PATH];
	struct dirent *entry;
	DIR *directory;

	pin_path(kernel, "", path);
	directory = opendir(path);
	if (!directory)
		return;
	while ((entry = readdir(directory))) {
		__u32 ifindex = (__u32)strtoul(entry->d_name, NULL, 10);

		if (ifindex)
			vnet_kernel_leave_short(kernel, ifindex);
	}
	closedir(directory);
	rmdir(path);
}

void vnet_kernel_short_close(struct vnet_kernel *kernel)
{
	xdp_bpf__destroy(kernel->shortcut);
	kernel->shortcut = NULL;
}
