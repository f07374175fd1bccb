/* SPDX-License-Identifier: Apache-2.0 */
/* Methods: a port's connections, one by one never, in bulk always. */
#include "object.h"

#include <errno.h>

#include "kernel.h"

PyObject *vnet_object_conns_create(struct vnet_object *self, PyObject *args)
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
		return vnet_raise_errno("connection table", error);
	Py_RETURN_NONE;
}

PyObject *vnet_object_conns_delete(struct vnet_object *self, PyObject *args)
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
		return vnet_raise_errno("export", fd);
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
		result = vnet_raise_errno("export", error);
	else
		result = Py_BuildValue("(y#L)", (const char *)dump->records,
				       (Py_ssize_t)(dump->count * sizeof(*dump->records)),
				       position);
	PyMem_Free(dump->records);
	return result;
}

PyObject *vnet_object_export(struct vnet_object *self, PyObject *args)
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

PyObject *vnet_object_import_records(struct vnet_object *self, PyObject *args)
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
		return vnet_raise_errno("import", error);
	return Py_BuildValue("(KKKKK)", import.moved, import.refused_policy, import.refused_quota,
			     import.refused_expired, import.refused_address);
}

static int is_expired(const void *key, void *value, void *arg)
{
	(void)key;
	return ((struct vnet_conn *)value)->expires_ns <= *(__u64 *)arg;
}

/* How many connections the port holds that have not expired. */
PyObject *vnet_object_count(struct vnet_object *self, PyObject *args)
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
		return vnet_raise_errno("count", fd);
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_kernel_count(fd, dump.now, &dump.count);
	vnet_kernel_conns_release(fd);
	Py_END_ALLOW_THREADS;
	return error ? vnet_raise_errno("count", error) : PyLong_FromSize_t(dump.count);
}

/* Removes what has expired at `before`; ~0 is everything. How many, and how many entries stay. */
PyObject *vnet_object_expire(struct vnet_object *self, PyObject *args)
{
	unsigned long long before;
	unsigned int local_id;
	long long removed;
	__u64 limit, left = 0;

	if (!PyArg_ParseTuple(args, "IK:expire", &local_id, &before))
		return NULL;
	if (vnet_object_lock_port(self, local_id))
		return NULL;
	limit = before;
	if (self->kernel) {
		int fd = vnet_kernel_conns_dup(self->kernel, local_id);

		vnet_object_unlock(self);
		if (fd < 0)
			return vnet_raise_errno("expire", fd);
		Py_BEGIN_ALLOW_THREADS;
		removed = vnet_kernel_expire(fd, limit, &left);
		vnet_kernel_conns_release(fd);
		Py_END_ALLOW_THREADS;
	} else {
		removed = vnet_table_visit(&self->datapath.conns[local_id], is_expired, &limit);
		left = self->datapath.conns[local_id].count;
		vnet_object_unlock(self);
	}
	if (removed < 0)
		return vnet_raise_errno("expire", removed);
	return Py_BuildValue("(LK)", removed, left);
}
