/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the datapath lives between two agents: PIN_DIR/v<ABI> holds the maps, progs/ in it the
 * programs, conns/ the connection tables of the ports and short/ the links of kernel_xdp.c. PIN_DIR
 * is locked while an agent runs it, whatever its version: two would replace each other's programs
 * on the same interfaces.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernel_internal.h"

#define BPFFS_MAGIC 0xcafe4a11
#define LOCK_TRIES 10

static int is_bpffs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (unsigned int)fs.f_type == BPFFS_MAGIC;
}

/*
 * The lock is the kernel's: it ends with the process, however that ends. A directory that a
 * `destroy` removed while this waited is none; then all begins again.
 */
static int lock_directory(struct vnet_kernel *kernel, const char *pin_dir)
{
	struct stat opened, named;

	for (int i = 0; i < LOCK_TRIES; i++) {
		if (mkdir(pin_dir, 0700) && errno != EEXIST)
			return -errno;
		kernel->lock = open(pin_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (kernel->lock < 0 && errno != ENOENT)
			return -errno;
		if (kernel->lock < 0)
			continue;
		if (flock(kernel->lock, LOCK_EX | LOCK_NB) || fstat(kernel->lock, &opened))
			return -errno;
		if (stat(pin_dir, &named) == 0 && named.st_ino == opened.st_ino)
			return 0;
		close(kernel->lock);
		kernel->lock = -1;
	}
	return -EWOULDBLOCK;
}

int vnet_pins_open(struct vnet_kernel *kernel, const char *pin_dir)
{
	char parent[PATH_MAX];
	char *slash;
	int error;

	if (snprintf(parent, sizeof(parent), "%s", pin_dir) >= (int)sizeof(parent) ||
	    snprintf(kernel->directory, sizeof(kernel->directory), "%s/v%d", pin_dir,
		     VNET_ABI_VERSION) >= (int)sizeof(kernel->directory))
		return -ENAMETOOLONG;
	slash = strrchr(parent, '/');
	if (slash)
		slash[slash == parent] = '\0';
	if (!is_bpffs(pin_dir) && !is_bpffs(parent))
		return -ENOTSUP;
	error = lock_directory(kernel, pin_dir);
	if (error)
		return error;
	if (mkdir(kernel->directory, 0700) && errno != EEXIST)
		return -errno;
	return 0;
}

void vnet_pins_close(struct vnet_kernel *kernel)
{
	if (kernel->lock >= 0)
		close(kernel->lock);
	kernel->lock = -1;
}

static void program_path(const struct vnet_kernel *kernel, const char *name, const char *suffix,
			 char path[VNET_PIN_PATH])
{
	snprintf(path, VNET_PIN_PATH, "%s/progs/%s%s", kernel->directory, name, suffix);
}

/* Each takes the place of its predecessor in one step: whoever looks finds one of the two. */
int vnet_pins_programs(struct vnet_kernel *kernel)
{
	char path[VNET_PIN_PATH], part[VNET_PIN_PATH];
	struct bpf_program *program;
	int error;

	snprintf(path, sizeof(path), "%s/progs", kernel->directory);
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	bpf_object__for_each_program(program, kernel->skeleton->obj)
	{
		program_path(kernel, bpf_program__name(program), "", path);
		program_path(kernel, bpf_program__name(program), "_new", part);
		unlink(part); /* of one that died here */
		error = bpf_program__pin(program, part);
		if (error)
			return error;
		if (rename(part, path))
			return -errno;
	}
	return 0;
}

static void conns_path(const struct vnet_kernel *kernel, __u32 local_id, char path[VNET_PIN_PATH])
{
	snprintf(path, VNET_PIN_PATH, "%s/conns/%u", kernel->directory, local_id);
}

int vnet_pins_add_conns(struct vnet_kernel *kernel, __u32 local_id, int fd)
{
	char path[VNET_PIN_PATH];

	snprintf(path, sizeof(path), "%s/conns", kernel->directory);
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	conns_path(kernel, local_id, path);
	unlink(path); /* of a port whose maker died */
	return bpf_obj_pin(fd, path) ? -errno : 0;
}

int vnet_pins_get_conns(const struct vnet_kernel *kernel, __u32 local_id)
{
	char path[VNET_PIN_PATH];
	int fd;

	conns_path(kernel, local_id, path);
	fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

void vnet_pins_remove_conns(const struct vnet_kernel *kernel, __u32 local_id)
{
	char path[VNET_PIN_PATH];

	conns_path(kernel, local_id, path);
	unlink(path);
}

static void unpin_conns(const struct vnet_kernel *kernel)
{
	char path[VNET_PIN_PATH];

	for (__u32 i = 1; i < kernel->max_ports; i++)
		vnet_pins_remove_conns(kernel, i);
	snprintf(path, sizeof(path), "%s/conns", kernel->directory);
	rmdir(path);
}

static int unpin(const char *path)
{
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

static int unpin_programs(struct vnet_kernel *kernel)
{
	char path[VNET_PIN_PATH];
	struct bpf_program *program;
	int error = 0;

	bpf_object__for_each_program(program, kernel->skeleton->obj)
	{
		program_path(kernel, bpf_program__name(program), "_new", path);
		unlink(path);
		program_path(kernel, bpf_program__name(program), "", path);
		error = error ? error : unpin(path);
	}
	snprintf(path, sizeof(path), "%s/progs", kernel->directory);
	rmdir(path);
	return error;
}

/* All that is there goes, whatever of it is missing; the first error is told. */
int vnet_kernel_unpin(struct vnet_kernel *kernel)
{
	int error = unpin_programs(kernel);
	struct bpf_map *map;
	char *slash;

	unpin_conns(kernel);
	vnet_kernel_short_unpin(kernel);
	vnet_kernel_tables_unpin(kernel);
	bpf_object__for_each_map(map, kernel->skeleton->obj)
	{
		const char *path = bpf_map__pin_path(map);
		int failed = path ? unpin(path) : 0;

		error = error ? error : failed;
	}
	if (error)
		return error;
	rmdir(kernel->directory);
	slash = strrchr(kernel->directory, '/');
	if (slash) {
		*slash = '\0';
		rmdir(kernel->directory); /* other versions may live there, or it is a mount */
		*slash = '/';
	}
	return 0;
}
