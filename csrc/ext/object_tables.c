/* SPDX-License-Identifier: Apache-2.0 */
/* Methods: the tables that user space fills, by number, in bytes of their layouts. */
#include "object.h"

#include <errno.h>

#include "kernel.h"

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

/* One entry, in the kernel and in the mirror or in neither. */
static int put_entry(struct vnet_object *self, unsigned int id, const void *key, const void *value)
{
	int error = self->kernel ? vnet_kernel_table_put(self->kernel, id, key, value) : 0;

	if (error || !vnet_table_put(&self->datapath.table[id], key, value))
		return error;
	if (self->kernel)
		vnet_kernel_table_remove(self->kernel, id, key, 1);
	return -E2BIG;
}

/* E2BIG's own text speaks of arguments. */
static void raise_put(const char *name, int error)
{
	PyObject *value;

	if (error != -E2BIG) {
		vnet_raise_errno(name, error);
		return;
	}
	value = Py_BuildValue("(iss)", E2BIG, "the table is full", name);
	if (value)
		PyErr_SetObject(PyExc_OSError, value);
	Py_XDECREF(value);
}

/* What was put before an error stays: whoever takes it back finds it listed. */
PyObject *vnet_object_table_put(struct vnet_object *self, PyObject *args)
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
	for (done = 0; !error && done < count; done++)
		error = put_entry(self, id, (char *)keys.buf + (size_t)done * shapes[id].key,
				  (char *)values.buf + (size_t)done * shapes[id].value);
	vnet_object_unlock(self);
	if (error) {
		raise_put(shapes[id].name, error);
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
PyObject *vnet_object_table_remove(struct vnet_object *self, PyObject *args)
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

PyObject *vnet_object_table_get(struct vnet_object *self, PyObject *args)
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

PyObject *vnet_object_table_items(struct vnet_object *self, PyObject *args)
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
