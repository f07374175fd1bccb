/* SPDX-License-Identifier: Apache-2.0 */
/* Native: the datapath in this process, for tests, simulation and traces. */
#include "object.h"

static PyObject *native_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"max_ports", NULL};
	struct vnet_object *self;
	unsigned int max_ports = 1024;
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "|I:Native", names, &max_ports))
		return NULL;
	if (max_ports < 1 || max_ports > 65536)
		return PyErr_Format(PyExc_ValueError, "max_ports %u", max_ports);
	self = (struct vnet_object *)alloc(type, 0);
	if (!self)
		return NULL;
	vnet_object_init(self);
	/* Local id 0 is no port. */
	if (vnet_datapath_init(&self->datapath, max_ports + 1, NULL)) {
		Py_DECREF(self);
		return PyErr_NoMemory();
	}
	self->is_open = 1;
	return (PyObject *)self;
}

static void native_dealloc(struct vnet_object *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	vnet_datapath_free(&self->datapath);
	pthread_mutex_destroy(&self->mutex);
	release(self);
	Py_DECREF(type);
}

static PyObject *native_process(struct vnet_object *self, PyObject *args)
{
	struct vnet_result result = {0};
	unsigned long long now = 0;
	unsigned int hook, ifindex;
	struct vnet_ctx ctx = {0};
	Py_buffer frame;
	PyObject *outs;

	if (!PyArg_ParseTuple(args, "IIy*|K:process", &hook, &ifindex, &frame, &now))
		return NULL;
	if (hook > VNET_FROM_UPLINK || frame.len > 1 << 20 || vnet_object_lock(self)) {
		PyBuffer_Release(&frame);
		return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "hook %u", hook);
	}
	ctx.datapath = &self->datapath;
	ctx.data = frame.buf;
	ctx.length = frame.len;
	ctx.ifindex = ifindex;
	ctx.now = now ? now : vnet_object_now(self);
	result = vnet_datapath_process(&ctx, hook);
	vnet_object_unlock(self);
	PyBuffer_Release(&frame);
	if (result.action == VNET_REDIRECT && ctx.outs < VNET_MAX_OUT)
		ctx.out[ctx.outs++] = result.ifindex;
	outs = PyTuple_New(ctx.outs);
	for (__u32 i = 0; outs && i < ctx.outs; i++) {
		PyObject *out = PyLong_FromUnsignedLong(ctx.out[i]);

		if (!out || PyTuple_SetItem(outs, i, out)) {
			Py_DECREF(outs);
			return NULL;
		}
	}
	return outs ? Py_BuildValue("(IIN)", result.action, result.reason, outs) : NULL;
}

static PyObject *native_set_clock(struct vnet_object *self, PyObject *args)
{
	unsigned long long now;

	if (!PyArg_ParseTuple(args, "K:set_clock", &now))
		return NULL;
	if (vnet_object_lock(self))
		return NULL;
	self->clock = now;
	vnet_object_unlock(self);
	Py_RETURN_NONE;
}

static PyMethodDef native_methods[] = {
	{"process", (PyCFunction)(void (*)(void))native_process, METH_VARARGS, NULL},
	{"set_clock", (PyCFunction)(void (*)(void))native_set_clock, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot native_slots[] = {
	{Py_tp_new, native_new},
	{Py_tp_dealloc, native_dealloc},
	{Py_tp_methods, native_methods},
	{0, NULL},
};

PyType_Spec vnet_native_spec = {
	.name = "vnet_agent.datapath._flowcache.Native",
	.basicsize = sizeof(struct vnet_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = native_slots,
};
