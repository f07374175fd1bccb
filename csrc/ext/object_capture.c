/* SPDX-License-Identifier: Apache-2.0 */
/* Methods: the ring of captured frames. Which frames come is said in the table `captures`. */
#include "object.h"

#include <errno.h>
#include <stdlib.h>

#include "kernel.h"

#define MIN_RING 4096
#define MAX_RING (1U << 28)

static int open_native(struct vnet_datapath *datapath, unsigned int size)
{
	if (datapath->ring)
		return -EBUSY;
	datapath->ring = vnet_ring_make(size, sizeof(struct vnet_capture_record),
					offsetof(struct vnet_capture_record, captured));
	return datapath->ring ? datapath->ring->fd : -errno;
}

PyObject *vnet_object_capture_open(struct vnet_object *self, PyObject *args)
{
	unsigned int size;
	int fd;

	if (!PyArg_ParseTuple(args, "I:capture_open", &size))
		return NULL;
	if (size < MIN_RING || size > MAX_RING)
		return PyErr_Format(PyExc_ValueError, "a ring of %u bytes", size);
	if (vnet_object_lock(self))
		return NULL;
	fd = self->kernel ? vnet_kernel_capture_open(self->kernel, size)
			  : open_native(&self->datapath, size);
	vnet_object_unlock(self);
	return fd < 0 ? vnet_raise_errno("capture", fd) : PyLong_FromLong(fd);
}

static size_t read_ring(struct vnet_object *self, char *to)
{
	if (self->kernel)
		return vnet_kernel_capture_read(self->kernel, to, VNET_CAPTURE_ROOM);
	return vnet_ring_read(self->datapath.ring, to, VNET_CAPTURE_ROOM);
}

static int is_capturing(const struct vnet_object *self)
{
	return self->kernel ? vnet_kernel_is_capturing(self->kernel) : self->datapath.ring != NULL;
}

/* Whole records, b"" when there are none. */
PyObject *vnet_object_capture_read(struct vnet_object *self, PyObject *unused)
{
	PyObject *bytes = NULL;
	size_t length;
	char *to;

	(void)unused;
	to = PyMem_Malloc(VNET_CAPTURE_ROOM);
	if (!to)
		return PyErr_NoMemory();
	if (vnet_object_lock(self))
		goto out;
	if (!is_capturing(self)) {
		vnet_object_unlock(self);
		PyErr_SetString(PyExc_ValueError, "nothing is captured");
		goto out;
	}
	Py_BEGIN_ALLOW_THREADS;
	length = read_ring(self, to);
	Py_END_ALLOW_THREADS;
	vnet_object_unlock(self);
	bytes = PyBytes_FromStringAndSize(to, (Py_ssize_t)length);
out:
	PyMem_Free(to);
	return bytes;
}

/* The port's struct vnet_capture with its counters as they are now. */
PyObject *vnet_object_capture_get(struct vnet_object *self, PyObject *args)
{
	const struct vnet_capture *found;
	struct vnet_capture capture;
	unsigned int local_id;
	int error = 0;

	if (!PyArg_ParseTuple(args, "I:capture_get", &local_id) || vnet_object_lock(self))
		return NULL;
	if (self->kernel) {
		error = vnet_kernel_capture_get(self->kernel, local_id, &capture);
	} else {
		found = vnet_table_get(&self->datapath.table[VNET_TABLE_CAPTURES], &local_id);
		if (found)
			capture = *found;
		else
			error = -ENOENT;
	}
	vnet_object_unlock(self);
	if (error)
		return vnet_raise_errno("capture", error);
	return PyBytes_FromStringAndSize((const char *)&capture, sizeof(capture));
}

/* Nothing to close is no error. */
PyObject *vnet_object_capture_close(struct vnet_object *self, PyObject *unused)
{
	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	if (self->kernel) {
		vnet_kernel_capture_close(self->kernel);
	} else {
		vnet_ring_free(self->datapath.ring);
		self->datapath.ring = NULL;
	}
	vnet_object_unlock(self);
	Py_RETURN_NONE;
}
