/* SPDX-License-Identifier: Apache-2.0 */
/* Methods: the ring of frames that the operator's tables give to the controller. */
#include "object.h"

#include "handlers.h"
#include "kernel.h"

/* The descriptor of the ring; it goes with the datapath. */
PyObject *vnet_object_packet_fd(struct vnet_object *self, PyObject *unused)
{
	int fd;

	(void)unused;
	if (self->kernel ? vnet_object_lock(self) : vnet_object_lock_tables(self))
		return NULL;
	fd = self->kernel ? vnet_kernel_packet_fd(self->kernel)
			  : self->datapath.handlers->ring->fd;
	vnet_object_unlock(self);
	return PyLong_FromLong(fd);
}

/* Whole records, b"" when there are none. */
PyObject *vnet_object_packet_read(struct vnet_object *self, PyObject *unused)
{
	PyObject *bytes = NULL;
	size_t length;
	char *to;

	(void)unused;
	to = PyMem_Malloc(VNET_CAPTURE_ROOM);
	if (!to)
		return PyErr_NoMemory();
	if (!(self->kernel ? vnet_object_lock(self) : vnet_object_lock_tables(self))) {
		length = self->kernel
				 ? vnet_kernel_packet_read(self->kernel, to, VNET_CAPTURE_ROOM)
				 : vnet_ring_read(self->datapath.handlers->ring, to,
						  VNET_CAPTURE_ROOM);
		vnet_object_unlock(self);
		bytes = PyBytes_FromStringAndSize(to, (Py_ssize_t)length);
	}
	PyMem_Free(to);
	return bytes;
}
