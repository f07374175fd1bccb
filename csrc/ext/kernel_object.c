/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel: the datapath in the kernel, behind pinned maps and programs. */
#include "object.h"

#include <errno.h>

#include "kernel.h"

static PyObject *kernel_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"pin_dir", "max_ports", NULL};
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct vnet_object *self;
	unsigned int max_ports;
	char error[4096] = "";
	const char *pin_dir;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "sI:Kernel", names, &pin_dir, &max_ports))
		return NULL;
	if (max_ports < 1 || max_ports > 65536)
		return PyErr_Format(PyExc_ValueError, "max_ports %u", max_ports);
	self = (struct vnet_object *)alloc(type, 0);
	if (!self)
		return NULL;
	vnet_object_init(self);
	self->kernel = vnet_kernel_open(pin_dir, max_ports + 1, error, sizeof(error));
	if (!self->kernel) {
		PyErr_SetString(PyExc_OSError, error);
		goto fail;
	}
	if (vnet_datapath_init(&self->datapath, vnet_kernel_max_ports(self->kernel),
			       vnet_kernel_ports(self->kernel)) ||
	    vnet_kernel_mirror(self->kernel, &self->datapath)) {
		PyErr_SetString(PyExc_OSError, "the pinned maps could not be read");
		goto fail;
	}
	self->is_open = 1;
	return (PyObject *)self;
fail:
	Py_DECREF(self);
	return NULL;
}

static void let_go(struct vnet_object *self)
{
	self->is_open = 0;
	vnet_datapath_free(&self->datapath);
	if (self->kernel)
		vnet_kernel_close(self->kernel);
	self->kernel = NULL;
}

static void kernel_dealloc(struct vnet_object *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	let_go(self);
	pthread_mutex_destroy(&self->mutex);
	release(self);
	Py_DECREF(type);
}

static PyObject *done(struct vnet_object *self, const char *operation, int error)
{
	vnet_object_unlock(self);
	if (!error)
		Py_RETURN_NONE;
	errno = -error;
	return PyErr_SetFromErrnoWithFilename(PyExc_OSError, operation);
}

static PyObject *kernel_close(struct vnet_object *self, PyObject *unused)
{
	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	let_go(self);
	return done(self, "close", 0);
}

static PyObject *kernel_unpin(struct vnet_object *self, PyObject *unused)
{
	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	return done(self, "unpin", vnet_kernel_unpin(self->kernel));
}

static PyObject *kernel_finish_upgrade(struct vnet_object *self, PyObject *unused)
{
	int finished;

	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	finished = vnet_kernel_finish_upgrade(self->kernel);
	Py_END_ALLOW_THREADS;
	if (finished < 0)
		return done(self, "finish upgrade", finished);
	vnet_object_unlock(self);
	return PyBool_FromLong(finished);
}

static PyObject *kernel_attach(struct vnet_object *self, PyObject *args)
{
	unsigned int ifindex;
	int uplink, error;

	if (!PyArg_ParseTuple(args, "Ip:attach", &ifindex, &uplink) || vnet_object_lock(self))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_kernel_attach(self->kernel, ifindex, uplink);
	Py_END_ALLOW_THREADS;
	return done(self, "attach", error);
}

static PyObject *kernel_detach(struct vnet_object *self, PyObject *args)
{
	unsigned int ifindex;
	int uplink, error;

	if (!PyArg_ParseTuple(args, "Ip:detach", &ifindex, &uplink) || vnet_object_lock(self))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_kernel_detach(self->kernel, ifindex, uplink);
	Py_END_ALLOW_THREADS;
	return done(self, "detach", error);
}

static PyObject *kernel_set_short(struct vnet_object *self, PyObject *args)
{
	unsigned int ifindex;
	int flag;

	if (!PyArg_ParseTuple(args, "I:set_short", &ifindex) || vnet_object_lock(self))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	flag = vnet_kernel_set_short(self->kernel, ifindex);
	Py_END_ALLOW_THREADS;
	if (flag < 0)
		return done(self, "set short", flag);
	vnet_object_unlock(self);
	return PyLong_FromLong(flag);
}

static PyObject *kernel_has_short(struct vnet_object *self, PyObject *args)
{
	unsigned int ifindex;
	int known;

	if (!PyArg_ParseTuple(args, "I:has_short", &ifindex) || vnet_object_lock(self))
		return NULL;
	known = vnet_kernel_has_short(self->kernel, ifindex);
	vnet_object_unlock(self);
	return PyBool_FromLong(known);
}

static PyObject *kernel_leave_short(struct vnet_object *self, PyObject *args)
{
	unsigned int ifindex;

	if (!PyArg_ParseTuple(args, "I:leave_short", &ifindex) || vnet_object_lock(self))
		return NULL;
	vnet_kernel_leave_short(self->kernel, ifindex);
	return done(self, "leave short", 0);
}

static PyObject *kernel_send(struct vnet_object *self, PyObject *args)
{
	int from_vm, through_tables, error;
	unsigned int ifindex;
	Py_buffer frame;

	if (!PyArg_ParseTuple(args, "Ippy*:send", &ifindex, &from_vm, &through_tables, &frame))
		return NULL;
	if (vnet_object_lock(self)) {
		PyBuffer_Release(&frame);
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_kernel_send(self->kernel, ifindex, from_vm, !through_tables, frame.buf,
				 frame.len);
	Py_END_ALLOW_THREADS;
	PyBuffer_Release(&frame);
	return done(self, "send", error);
}

static PyObject *kernel_test_run(struct vnet_object *self, PyObject *args)
{
	unsigned int hook, ifindex, repeat = 1;
	__u32 action = 0, nanoseconds = 0;
	Py_buffer frame;
	int error;

	if (!PyArg_ParseTuple(args, "IIy*|I:test_run", &hook, &ifindex, &frame, &repeat))
		return NULL;
	if (hook > VNET_FROM_UPLINK || vnet_object_lock(self)) {
		PyBuffer_Release(&frame);
		return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "hook %u", hook);
	}
	error = vnet_kernel_test_run(self->kernel, hook, ifindex, frame.buf, frame.len, repeat,
				     &action, &nanoseconds);
	PyBuffer_Release(&frame);
	if (error)
		return done(self, "test run", error);
	vnet_object_unlock(self);
	return Py_BuildValue("(iI)", (int)action, nanoseconds);
}

#define METHOD(name, function, flags) {name, (PyCFunction)(void (*)(void))function, flags, NULL}

static PyMethodDef kernel_methods[] = {
	METHOD("close", kernel_close, METH_NOARGS),
	METHOD("unpin", kernel_unpin, METH_NOARGS),
	METHOD("finish_upgrade", kernel_finish_upgrade, METH_NOARGS),
	METHOD("attach", kernel_attach, METH_VARARGS),
	METHOD("detach", kernel_detach, METH_VARARGS),
	METHOD("set_short", kernel_set_short, METH_VARARGS),
	METHOD("has_short", kernel_has_short, METH_VARARGS),
	METHOD("leave_short", kernel_leave_short, METH_VARARGS),
	METHOD("send", kernel_send, METH_VARARGS),
	METHOD("test_run", kernel_test_run, METH_VARARGS),
	{NULL, NULL, 0, NULL},
};

static PyType_Slot kernel_slots[] = {
	{Py_tp_new, kernel_new},
	{Py_tp_dealloc, kernel_dealloc},
	{Py_tp_methods, kernel_methods},
	{0, NULL},
};

PyType_Spec vnet_kernel_spec = {
	.name = "vnet_agent.datapath._flowcache.Kernel",
	.basicsize = sizeof(struct vnet_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = kernel_slots,
};
