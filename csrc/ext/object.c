/* SPDX-License-Identifier: Apache-2.0 */
/* The methods that Native and Kernel share: tables, ports, connections. */
#include "object.h"

#include <errno.h>
#include <stdlib.h>
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

static PyObject *raise_kernel(const char *operation, int error)
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
		return raise_kernel("counters", error);
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

/* -- tables */

static const struct {
	const char *name;
	unsigned int key, value;
} shapes[VNET_TABLE_COUNT] = {
#define VNET_SHAPE(id, name, key, value) {#name, key, value},
	VNET_TABLES(VNET_SHAPE)
#undef VNET_SHAPE
};

static int check_entries(unsigned int table, Py_ssize_t keys, Py_ssize_t values)
{
	if (table < VNET_TABLE_COUNT && keys % shapes[table].key == 0 &&
	    (values < 0 ||
	     (values % shapes[table].value == 0 &&
	      keys / shapes[table].key == values / shapes[table].value)))
		return 0;
	PyErr_Format(PyExc_ValueError, "table %u: keys and values do not fit", table);
	return -1;
}

static PyObject *object_table_put(struct vnet_object *self, PyObject *args)
{
	unsigned int id;
	Py_buffer keys, values;
	__u32 count, done;
	int error = 0;

	if (!PyArg_ParseTuple(args, "Iy*y*:table_put", &id, &keys, &values))
		return NULL;
	if (check_entries(id, keys.len, values.len) || vnet_object_lock(self))
		goto fail;
	count = keys.len / shapes[id].key;
	if (self->kernel)
		error = vnet_kernel_table_put(self->kernel, id, keys.buf, values.buf, count);
	for (done = 0; !error && done < count; done++)
		if (vnet_table_put(&self->datapath.table[id],
				   (char *)keys.buf + (size_t)done * shapes[id].key,
				   (char *)values.buf + (size_t)done * shapes[id].value))
			error = -E2BIG;
	vnet_object_unlock(self);
	if (error) {
		raise_kernel(shapes[id].name, error);
		goto fail;
	}
	PyBuffer_Release(&keys);
	PyBuffer_Release(&values);
	Py_RETURN_NONE;
fail:
	PyBuffer_Release(&keys);
	PyBuffer_Release(&values);
	return NULL;
}

/* Keys that are not there are no error. */
static PyObject *object_table_remove(struct vnet_object *self, PyObject *args)
{
	unsigned int id;
	Py_buffer keys;
	__u32 count;

	if (!PyArg_ParseTuple(args, "Iy*:table_remove", &id, &keys))
		return NULL;
	if (check_entries(id, keys.len, -1) || vnet_object_lock(self)) {
		PyBuffer_Release(&keys);
		return NULL;
	}
	count = keys.len / shapes[id].key;
	if (self->kernel)
		vnet_kernel_table_remove(self->kernel, id, keys.buf, count);
	for (__u32 i = 0; i < count; i++)
		vnet_table_remove(&self->datapath.table[id],
				  (char *)keys.buf + (size_t)i * shapes[id].key);
	vnet_object_unlock(self);
	PyBuffer_Release(&keys);
	Py_RETURN_NONE;
}

static PyObject *object_table_get(struct vnet_object *self, PyObject *args)
{
	PyObject *result;
	unsigned int id;
	Py_buffer key;
	void *value;

	if (!PyArg_ParseTuple(args, "Iy*:table_get", &id, &key))
		return NULL;
	if (id >= VNET_TABLE_COUNT || key.len != shapes[id].key) {
		PyBuffer_Release(&key);
		return PyErr_Format(PyExc_ValueError, "table %u: the key does not fit", id);
	}
	if (vnet_object_lock(self)) {
		PyBuffer_Release(&key);
		return NULL;
	}
	value = vnet_table_get(&self->datapath.table[id], key.buf);
	result = value ? PyBytes_FromStringAndSize(value, shapes[id].value) : Py_NewRef(Py_None);
	vnet_object_unlock(self);
	PyBuffer_Release(&key);
	return result;
}

struct listing {
	PyObject *list;
	unsigned int table;
	int failed;
};

static int list_entry(const void *key, void *value, void *arg)
{
	struct listing *listing = arg;
	PyObject *pair;

	if (listing->failed)
		return 0;
	pair = Py_BuildValue("(y#y#)", key, (Py_ssize_t)shapes[listing->table].key, value,
			     (Py_ssize_t)shapes[listing->table].value);
	listing->failed = !pair || PyList_Append(listing->list, pair);
	Py_XDECREF(pair);
	return 0;
}

static PyObject *object_table_items(struct vnet_object *self, PyObject *args)
{
	struct listing listing = {0};

	if (!PyArg_ParseTuple(args, "I:table_items", &listing.table) ||
	    check_entries(listing.table, 0, -1))
		return NULL;
	listing.list = PyList_New(0);
	if (!listing.list)
		return NULL;
	if (vnet_object_lock(self)) {
		Py_DECREF(listing.list);
		return NULL;
	}
	vnet_table_visit(&self->datapath.table[listing.table], list_entry, &listing);
	vnet_object_unlock(self);
	if (!listing.failed)
		return listing.list;
	Py_DECREF(listing.list);
	return NULL;
}

/* -- connections */

static PyObject *object_conns_create(struct vnet_object *self, PyObject *args)
{
	unsigned int local_id, quota;
	int error;

	if (!PyArg_ParseTuple(args, "II:conns_create", &local_id, &quota))
		return NULL;
	if (local_id == 0 || local_id >= self->datapath.max_ports || quota == 0)
		return PyErr_Format(PyExc_ValueError, "local id %u, quota %u", local_id, quota);
	if (vnet_object_lock(self))
		return NULL;
	if (self->kernel)
		error = vnet_kernel_conns_create(self->kernel, local_id, quota);
	else
		error = vnet_datapath_conns_create(&self->datapath, local_id, quota) ? -ENOMEM : 0;
	vnet_object_unlock(self);
	if (error)
		return raise_kernel("connection table", error);
	Py_RETURN_NONE;
}

static PyObject *object_conns_delete(struct vnet_object *self, PyObject *args)
{
	unsigned int local_id;

	if (!PyArg_ParseTuple(args, "I:conns_delete", &local_id))
		return NULL;
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	if (self->kernel)
		vnet_kernel_conns_delete(self->kernel, local_id);
	else
		vnet_datapath_conns_delete(&self->datapath, local_id);
	vnet_object_unlock(self);
	Py_RETURN_NONE;
}

struct dump {
	struct vnet_conn_record *records;
	size_t count;
	__u64 since, now;
};

static int dump_entry(const void *key, void *value, void *arg)
{
	struct dump *dump = arg;
	const struct vnet_conn *conn = value;

	if (conn->expires_ns > dump->now && conn->changed_ns >= dump->since) {
		if (dump->records)
			vnet_record_encode(&dump->records[dump->count], key, conn, dump->now);
		dump->count++;
	}
	return 0;
}

static PyObject *export_native(struct vnet_object *self, struct dump *dump, struct vnet_table *conns)
{
	PyObject *bytes;

	vnet_table_visit(conns, dump_entry, dump);
	bytes = PyBytes_FromStringAndSize(NULL, dump->count * sizeof(*dump->records));
	if (bytes) {
		dump->records = (void *)PyBytes_AsString(bytes);
		dump->count = 0;
		vnet_table_visit(conns, dump_entry, dump);
	}
	vnet_object_unlock(self);
	return bytes ? Py_BuildValue("(NL)", bytes, -1LL) : NULL;
}

static PyObject *export_kernel(struct vnet_object *self, struct dump *dump, unsigned int local_id,
			       long long position)
{
	PyObject *result;
	int error, fd;

	/* A descriptor of its own: the port may be removed while this runs without the lock. */
	fd = vnet_kernel_conns_dup(self->kernel, local_id);
	vnet_object_unlock(self);
	if (fd < 0)
		return raise_kernel("export", fd);
	dump->records = PyMem_Malloc(VNET_KERNEL_BATCH * sizeof(*dump->records));
	if (!dump->records) {
		vnet_kernel_conns_release(fd);
		return PyErr_NoMemory();
	}
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_kernel_export(fd, dump->since, dump->now, &position, dump->records,
				   &dump->count);
	vnet_kernel_conns_release(fd);
	Py_END_ALLOW_THREADS;
	if (error)
		result = raise_kernel("export", error);
	else
		result = Py_BuildValue("(y#L)", (const char *)dump->records,
				       (Py_ssize_t)(dump->count * sizeof(*dump->records)),
				       position);
	PyMem_Free(dump->records);
	return result;
}

static PyObject *object_export(struct vnet_object *self, PyObject *args)
{
	unsigned long long since;
	unsigned int local_id;
	long long position;
	struct dump dump = {0};

	if (!PyArg_ParseTuple(args, "IKL:export", &local_id, &since, &position))
		return NULL;
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	dump.since = since;
	dump.now = vnet_object_now(self);
	if (self->kernel)
		return export_kernel(self, &dump, local_id, position);
	return export_native(self, &dump, &self->datapath.conns[local_id]);
}

static int check_records(const Py_buffer *bytes)
{
	const struct vnet_conn_record *records = bytes->buf;
	const char *wrong;

	if (bytes->len % sizeof(*records)) {
		PyErr_Format(PyExc_ValueError, "%zd bytes are no whole number of records of %zu",
			     bytes->len, sizeof(*records));
		return -1;
	}
	for (size_t i = 0; i < bytes->len / sizeof(*records); i++) {
		wrong = vnet_record_check(&records[i]);
		if (wrong) {
			PyErr_Format(PyExc_ValueError, "record %zu: %s", i, wrong);
			return -1;
		}
	}
	return 0;
}

static PyObject *object_import_records(struct vnet_object *self, PyObject *args)
{
	struct vnet_import import = {0};
	unsigned int local_id;
	Py_buffer bytes;
	size_t count;
	int error = 0;
	__u64 now;

	if (!PyArg_ParseTuple(args, "Iy*:import_records", &local_id, &bytes))
		return NULL;
	if (check_records(&bytes) || vnet_object_lock_port(self, local_id)) {
		PyBuffer_Release(&bytes);
		return NULL;
	}
	now = vnet_object_now(self);
	count = bytes.len / sizeof(struct vnet_conn_record);
	Py_BEGIN_ALLOW_THREADS;
	if (self->kernel)
		error = vnet_kernel_import(self->kernel, &self->datapath, local_id, bytes.buf,
					   count, now, &import);
	else
		vnet_datapath_import(&self->datapath, local_id, bytes.buf, count, now, &import);
	Py_END_ALLOW_THREADS;
	vnet_object_unlock(self);
	PyBuffer_Release(&bytes);
	if (error)
		return raise_kernel("import", error);
	return Py_BuildValue("(KKKKK)", import.moved, import.refused_policy, import.refused_quota,
			     import.refused_expired, import.refused_address);
}

static int is_expired(const void *key, void *value, void *arg)
{
	(void)key;
	return ((struct vnet_conn *)value)->expires_ns <= *(__u64 *)arg;
}

/* How many connections the port holds that have not expired. */
static PyObject *object_count(struct vnet_object *self, PyObject *args)
{
	struct dump dump = {0};
	unsigned int local_id;
	int error = 0, fd;

	if (!PyArg_ParseTuple(args, "I:count", &local_id))
		return NULL;
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	dump.now = vnet_object_now(self);
	if (!self->kernel) {
		vnet_table_visit(&self->datapath.conns[local_id], dump_entry, &dump);
		vnet_object_unlock(self);
		return PyLong_FromSize_t(dump.count);
	}
	fd = vnet_kernel_conns_dup(self->kernel, local_id);
	vnet_object_unlock(self);
	if (fd < 0)
		return raise_kernel("count", fd);
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_kernel_count(fd, dump.now, &dump.count);
	vnet_kernel_conns_release(fd);
	Py_END_ALLOW_THREADS;
	return error ? raise_kernel("count", error) : PyLong_FromSize_t(dump.count);
}

/* Removes what has expired at `before`; ~0 is everything. */
static PyObject *object_expire(struct vnet_object *self, PyObject *args)
{
	unsigned long long before;
	unsigned int local_id;
	long long removed;
	__u64 limit;

	if (!PyArg_ParseTuple(args, "IK:expire", &local_id, &before))
		return NULL;
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	limit = before;
	if (self->kernel) {
		int fd = vnet_kernel_conns_dup(self->kernel, local_id);

		vnet_object_unlock(self);
		if (fd < 0)
			return raise_kernel("expire", fd);
		Py_BEGIN_ALLOW_THREADS;
		removed = vnet_kernel_expire(fd, limit);
		vnet_kernel_conns_release(fd);
		Py_END_ALLOW_THREADS;
	} else {
		removed = vnet_table_visit(&self->datapath.conns[local_id], is_expired, &limit);
		vnet_object_unlock(self);
	}
	if (removed < 0)
		return raise_kernel("expire", removed);
	return PyLong_FromLongLong(removed);
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
	METHOD("table_put", object_table_put, METH_VARARGS),
	METHOD("table_get", object_table_get, METH_VARARGS),
	METHOD("table_remove", object_table_remove, METH_VARARGS),
	METHOD("table_items", object_table_items, METH_VARARGS),
	METHOD("conns_create", object_conns_create, METH_VARARGS),
	METHOD("conns_delete", object_conns_delete, METH_VARARGS),
	METHOD("export", object_export, METH_VARARGS),
	METHOD("import_records", object_import_records, METH_VARARGS),
	METHOD("count", object_count, METH_VARARGS),
	METHOD("expire", object_expire, METH_VARARGS),
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
