/* SPDX-License-Identifier: Apache-2.0 */
/* What Native and Kernel share: the lock, the clock, ports. */
#include "object.h"

#include <errno.h>
#include <time.h>

#include "kernel.h"

/* Recursive: what the garbage collector calls under the lock may want it too. */
void vnet_object_init(struct vnet_object *self)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&self->mutex, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

int vnet_object_lock(struct vnet_object *self)
{
	Py_BEGIN_ALLOW_THREADS;
	pthread_mutex_lock(&self->mutex);
	Py_END_ALLOW_THREADS;
	if (self->is_open)
		return 0;
	pthread_mutex_unlock(&self->mutex);
	PyErr_SetString(PyExc_ValueError, "the datapath is closed");
	return -1;
}

void vnet_object_unlock(struct vnet_object *self)
{
	pthread_mutex_unlock(&self->mutex);
}

/* Also checks that the port has a connection table. */
int vnet_object_lock_port(struct vnet_object *self, unsigned int local_id)
{
	if (vnet_object_lock(self))
		return -1;
	if (local_id > 0 && local_id < self->datapath.max_ports &&
	    (self->kernel ? vnet_kernel_has_conns(self->kernel, local_id)
			  : self->datapath.conns[local_id].bucket != NULL))
		return 0;
	vnet_object_unlock(self);
	PyErr_Format(PyExc_LookupError, "no port has the local id %u", local_id);
	return -1;
}

/* The clock of connections; the kernel's programs read the same one. */
__u64 vnet_object_now(const struct vnet_object *self)
{
	struct timespec now;

	if (self->clock)
		return self->clock;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (__u64)now.tv_sec * 1000000000ULL + (__u64)now.tv_nsec;
}

PyObject *vnet_raise_errno(const char *operation, int error)
{
	errno = error < 0 ? -error : error;
	return PyErr_SetFromErrnoWithFilename(PyExc_OSError, operation);
}

/* -- ports */

static PyObject *object_ports(struct vnet_object *self, PyObject *unused)
{
	PyObject *list, *bytes;
	int failed = 0;

	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	list = PyList_New(0);
	for (__u32 id = 1; list && !failed && id < self->datapath.max_ports; id++) {
		if (!self->datapath.ports[id].local_id)
			continue;
		bytes = PyBytes_FromStringAndSize((const char *)&self->datapath.ports[id],
						  sizeof(struct vnet_port));
		failed = !bytes || PyList_Append(list, bytes);
		Py_XDECREF(bytes);
	}
	vnet_object_unlock(self);
	if (!failed)
		return list;
	Py_XDECREF(list);
	return NULL;
}

static PyObject *object_port_get(struct vnet_object *self, PyObject *args)
{
	unsigned int local_id;
	PyObject *bytes;

	if (!PyArg_ParseTuple(args, "I:port_get", &local_id))
		return NULL;
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	bytes = PyBytes_FromStringAndSize((const char *)&self->datapath.ports[local_id],
					  sizeof(struct vnet_port));
	vnet_object_unlock(self);
	return bytes;
}

/* The slot is filled before its local id makes it a port. */
static PyObject *object_port_put(struct vnet_object *self, PyObject *args)
{
	struct vnet_port port, *slot;
	unsigned int local_id;
	Py_buffer bytes;

	if (!PyArg_ParseTuple(args, "Iy*:port_put", &local_id, &bytes))
		return NULL;
	if (bytes.len != sizeof(port)) {
		PyBuffer_Release(&bytes);
		return PyErr_Format(PyExc_ValueError, "a port has %zu bytes", sizeof(port));
	}
	memcpy(&port, bytes.buf, sizeof(port));
	PyBuffer_Release(&bytes);
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	slot = &self->datapath.ports[local_id];
	port.local_id = 0;
	*slot = port;
	__atomic_store_n(&slot->local_id, local_id, __ATOMIC_RELEASE);
	vnet_object_unlock(self);
	Py_RETURN_NONE;
}

static PyObject *object_port_clear(struct vnet_object *self, PyObject *args)
{
	unsigned int local_id;

	if (!PyArg_ParseTuple(args, "I:port_clear", &local_id))
		return NULL;
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	__atomic_store_n(&self->datapath.ports[local_id].local_id, 0, __ATOMIC_RELEASE);
	memset(&self->datapath.ports[local_id], 0, sizeof(struct vnet_port));
	vnet_object_unlock(self);
	Py_RETURN_NONE;
}

/* One word of a port changes with one store: programs may be reading it. */
static PyObject *object_port_store(struct vnet_object *self, PyObject *args)
{
	unsigned int local_id, offset, size;
	unsigned long long value;
	char *word;

	if (!PyArg_ParseTuple(args, "IIIK:port_store", &local_id, &offset, &size, &value))
		return NULL;
	if ((size != 4 && size != 8) || offset % size || offset + size > sizeof(struct vnet_port))
		return PyErr_Format(PyExc_ValueError, "no word of %u bytes at %u", size, offset);
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	word = (char *)&self->datapath.ports[local_id] + offset;
	if (size == 4)
		__atomic_store_n((__u32 *)word, (__u32)value, __ATOMIC_SEQ_CST);
	else
		__atomic_store_n((__u64 *)word, value, __ATOMIC_SEQ_CST);
	vnet_object_unlock(self);
	Py_RETURN_NONE;
}

static PyObject *object_counters(struct vnet_object *self, PyObject *args)
{
	struct vnet_counters counters;
	PyObject *drops, *result;
	unsigned int local_id;
	int error = 0;

	if (!PyArg_ParseTuple(args, "I:counters", &local_id))
		return NULL;
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	if (self->kernel)
		error = vnet_kernel_counters(self->kernel, local_id, &counters);
	else
		counters = self->datapath.counters[local_id];
	vnet_object_unlock(self);
	if (error)
		return vnet_raise_errno("counters", error);
	drops = PyTuple_New(VNET_REASON_COUNT);
	if (!drops)
		return NULL;
	for (int i = 0; i < VNET_REASON_COUNT; i++) {
		PyObject *drop = PyLong_FromUnsignedLongLong(counters.drops[i]);

		if (!drop || PyTuple_SetItem(drops, i, drop)) {
			Py_DECREF(drops);
			return NULL;
		}
	}
	result = Py_BuildValue("(KKKKO)", counters.rx_frames, counters.rx_bytes, counters.tx_frames,
			       counters.tx_bytes, drops);
	Py_DECREF(drops);
	return result;
}

static PyObject *object_settings_get(struct vnet_object *self, PyObject *unused)
{
	PyObject *bytes;

	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	bytes = PyBytes_FromStringAndSize((const char *)&self->datapath.settings,
					  sizeof(struct vnet_settings));
	vnet_object_unlock(self);
	return bytes;
}

static PyObject *object_settings_put(struct vnet_object *self, PyObject *args)
{
	struct vnet_settings settings;
	Py_buffer bytes;
	int error = 0;

	if (!PyArg_ParseTuple(args, "y*:settings_put", &bytes))
		return NULL;
	if (bytes.len != sizeof(settings)) {
		PyBuffer_Release(&bytes);
		return PyErr_Format(PyExc_ValueError, "settings have %zu bytes", sizeof(settings));
	}
	memcpy(&settings, bytes.buf, sizeof(settings));
	PyBuffer_Release(&bytes);
	/* The last one is a translation, which lasts as its connection. */
	for (int state = VNET_STATE_NONE + 1; state < VNET_STATE_NAT; state++)
		if (!settings.life_ns[state])
			return PyErr_Format(PyExc_ValueError, "state %d lasts 0 ns", state);
	if (vnet_object_lock(self))
		return NULL;
	if (self->kernel)
		error = vnet_kernel_settings_put(self->kernel, &settings);
	if (!error)
		self->datapath.settings = settings;
	vnet_object_unlock(self);
	if (error)
		return vnet_raise_errno("settings", error);
	Py_RETURN_NONE;
}

static PyObject *object_now(struct vnet_object *self, PyObject *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(vnet_object_now(self));
}

#define METHOD(name, function, flags) {name, (PyCFunction)(void (*)(void))function, flags, NULL}

static PyMethodDef shared_methods[] = {
	METHOD("ports", object_ports, METH_NOARGS),
	METHOD("port_get", object_port_get, METH_VARARGS),
	METHOD("port_put", object_port_put, METH_VARARGS),
	METHOD("port_clear", object_port_clear, METH_VARARGS),
	METHOD("port_store", object_port_store, METH_VARARGS),
	METHOD("counters", object_counters, METH_VARARGS),
	METHOD("table_put", vnet_object_table_put, METH_VARARGS),
	METHOD("table_get", vnet_object_table_get, METH_VARARGS),
	METHOD("table_remove", vnet_object_table_remove, METH_VARARGS),
	METHOD("table_items", vnet_object_table_items, METH_VARARGS),
	METHOD("conns_create", vnet_object_conns_create, METH_VARARGS),
	METHOD("conns_delete", vnet_object_conns_delete, METH_VARARGS),
	METHOD("export", vnet_object_export, METH_VARARGS),
	METHOD("import_records", vnet_object_import_records, METH_VARARGS),
	METHOD("count", vnet_object_count, METH_VARARGS),
	METHOD("expire", vnet_object_expire, METH_VARARGS),
	METHOD("flows", vnet_object_flows, METH_VARARGS),
	METHOD("trace", vnet_object_trace, METH_VARARGS),
	METHOD("capture_open", vnet_object_capture_open, METH_VARARGS),
	METHOD("capture_read", vnet_object_capture_read, METH_NOARGS),
	METHOD("capture_get", vnet_object_capture_get, METH_VARARGS),
	METHOD("capture_close", vnet_object_capture_close, METH_NOARGS),
	METHOD("handlers_open", vnet_object_handlers_open, METH_VARARGS),
	METHOD("handlers_replace", vnet_object_handlers_replace, METH_VARARGS),
	METHOD("handlers_insert", vnet_object_handlers_insert, METH_VARARGS),
	METHOD("handlers_delete", vnet_object_handlers_delete, METH_VARARGS),
	METHOD("handlers_items", vnet_object_handlers_items, METH_VARARGS),
	METHOD("handlers_used", vnet_object_handlers_used, METH_NOARGS),
	METHOD("handlers_translate", vnet_object_handlers_translate, METH_NOARGS),
	METHOD("handlers_left", vnet_object_handlers_left, METH_NOARGS),
	METHOD("packet_fd", vnet_object_packet_fd, METH_NOARGS),
	METHOD("packet_read", vnet_object_packet_read, METH_NOARGS),
	METHOD("settings_get", object_settings_get, METH_NOARGS),
	METHOD("settings_put", object_settings_put, METH_VARARGS),
	METHOD("now", object_now, METH_NOARGS),
	{NULL, NULL, 0, NULL},
};

static PyObject *object_max_ports(struct vnet_object *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLong(self->datapath.max_ports - 1);
}

static PyGetSetDef shared_properties[] = {
	{"max_ports", (getter)(void (*)(void))object_max_ports, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot shared_slots[] = {
	{Py_tp_methods, shared_methods},
	{Py_tp_getset, shared_properties},
	{0, NULL},
};

PyType_Spec vnet_datapath_spec = {
	.name = "vnet_agent.datapath._flowcache.Datapath",
	.basicsize = sizeof(struct vnet_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = shared_slots,
};
