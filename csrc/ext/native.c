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

/* The frame of one call; `args` are those of `format`. 0 and locked, or -1 with an exception. */
static int begin(struct vnet_object *self, PyObject *args, const char *format,
		 struct vnet_ctx *ctx, unsigned int *hook, Py_buffer *frame)
{
	unsigned long long now = 0;
	unsigned int ifindex;
	int past_tables = 0;

	if (!PyArg_ParseTuple(args, format, hook, &ifindex, frame, &now, &past_tables))
		return -1;
	if (*hook > VNET_SHORTCUT || frame->len > 1 << 20 || vnet_object_lock(self)) {
		PyBuffer_Release(frame);
		if (!PyErr_Occurred())
			PyErr_Format(PyExc_ValueError, "hook %u", *hook);
		return -1;
	}
	*ctx = (struct vnet_ctx){
		.datapath = &self->datapath,
		.data = frame->buf,
		.length = frame->len,
		.ifindex = ifindex,
		.now = now ? now : vnet_object_now(self),
		.past_tables = past_tables,
	};
	return 0;
}

static PyObject *native_process(struct vnet_object *self, PyObject *args)
{
	struct vnet_result result;
	struct vnet_ctx ctx;
	unsigned int hook;
	Py_buffer frame;
	PyObject *outs;

	if (begin(self, args, "IIy*|Kp:process", &ctx, &hook, &frame))
		return NULL;
	result = vnet_datapath_process(&ctx, hook);
	vnet_object_unlock(self);
	PyBuffer_Release(&frame);
	if (vnet_is_sent(result.action) && ctx.outs < VNET_MAX_OUT)
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

struct frames {
	PyObject *list;
	int failed;
};

static void collect(void *arg, __u32 ifindex, const __u8 *data, __u32 length)
{
	struct frames *frames = arg;
	PyObject *pair = Py_BuildValue("(Iy#)", ifindex, (const char *)data, (Py_ssize_t)length);

	frames->failed |= !pair || PyList_Append(frames->list, pair);
	Py_XDECREF(pair);
}

/* As `process`, with each frame that leaves as it is then. */
static PyObject *native_run(struct vnet_object *self, PyObject *args)
{
	struct frames frames = {0};
	struct vnet_result result = {0};
	struct vnet_ctx ctx;
	unsigned int hook;
	Py_buffer frame;

	if (begin(self, args, "IIy*|Kp:run", &ctx, &hook, &frame))
		return NULL;
	frames.list = PyList_New(0);
	if (frames.list) {
		ctx.leaves = collect;
		ctx.leaves_arg = &frames;
		result = vnet_datapath_process(&ctx, hook);
	}
	vnet_object_unlock(self);
	PyBuffer_Release(&frame);
	if (frames.list && !frames.failed)
		return Py_BuildValue("(IIN)", result.action, result.reason, frames.list);
	Py_XDECREF(frames.list);
	return NULL;
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
	{"run", (PyCFunction)(void (*)(void))native_run, METH_VARARGS, NULL},
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
