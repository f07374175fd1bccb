/* SPDX-License-Identifier: Apache-2.0 */
/* Classifier: sets of rules in memory of its own, or in the lines of an array map. */
#include "object.h"

#include <errno.h>

#include "classifier_lookup.h"
#include "classifier_map.h"

/* `mutex` guards `classifier`, and is never waited for with the GIL held. */
struct classifier_object {
	PyObject_HEAD
	pthread_mutex_t mutex;
	int is_open;
	int is_mapped;
	struct vnet_classifier classifier;
};

static PyObject *raise_error(const char *what, int error)
{
	errno = -error;
	return PyErr_SetFromErrnoWithFilename(PyExc_OSError, what);
}

static PyObject *raise_no_set(unsigned int set)
{
	return PyErr_Format(PyExc_LookupError, "no set %u", set);
}

static int lock(struct classifier_object *self)
{
	Py_BEGIN_ALLOW_THREADS;
	pthread_mutex_lock(&self->mutex);
	Py_END_ALLOW_THREADS;
	if (self->is_open)
		return 0;
	pthread_mutex_unlock(&self->mutex);
	PyErr_SetString(PyExc_ValueError, "the classifier is closed");
	return -1;
}

static void unlock(struct classifier_object *self)
{
	pthread_mutex_unlock(&self->mutex);
}

static PyObject *classifier_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
	static char *names[] = {"lines", "sets", "fd", NULL};
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct classifier_object *self;
	unsigned int lines, sets;
	int fd = -1, error;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "II|i:Classifier", names, &lines, &sets,
					 &fd))
		return NULL;
	self = (struct classifier_object *)alloc(type, 0);
	if (!self)
		return NULL;
	pthread_mutex_init(&self->mutex, NULL);
	self->is_mapped = fd >= 0;
	error = self->is_mapped
			? vnet_classifier_map(&self->classifier, fd, lines, sets)
			: vnet_classifier_init(&self->classifier, lines, sets, NULL, NULL, NULL);
	self->is_open = !error;
	if (!error)
		return (PyObject *)self;
	Py_DECREF(self);
	if (error == -EINVAL)
		return PyErr_Format(PyExc_ValueError, "%u sets in %u lines", sets, lines);
	return raise_error("classifier", error);
}

static void let_go(struct classifier_object *self)
{
	if (self->is_open && self->is_mapped)
		vnet_classifier_unmap(&self->classifier);
	else if (self->is_open)
		vnet_classifier_free(&self->classifier);
	self->is_open = 0;
}

static void classifier_dealloc(struct classifier_object *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	let_go(self);
	pthread_mutex_destroy(&self->mutex);
	release(self);
	Py_DECREF(type);
}

static PyObject *classifier_close(struct classifier_object *self, PyObject *unused)
{
	(void)unused;
	if (lock(self))
		return NULL;
	let_go(self);
	unlock(self);
	Py_RETURN_NONE;
}

static PyObject *make_list(const __u32 *numbers, Py_ssize_t count)
{
	PyObject *list = PyList_New(count), *number;

	for (Py_ssize_t i = 0; list && i < count; i++) {
		number = PyLong_FromUnsignedLong(numbers[i]);
		if (!number || PyList_SetItem(list, i, number)) {
			Py_DECREF(list);
			return NULL;
		}
	}
	return list;
}

static PyObject *replace(struct classifier_object *self, unsigned int set,
			 const Py_buffer *matches, unsigned int miss)
{
	Py_ssize_t count = matches->len / (Py_ssize_t)sizeof(struct vnet_match);
	PyObject *result = NULL;
	__u32 *entries;
	int error;

	if (matches->len % (Py_ssize_t)sizeof(struct vnet_match) || count > VNET_MAX_LINES)
		return PyErr_Format(PyExc_ValueError, "%zd bytes of rules", matches->len);
	entries = PyMem_Calloc(count + 1, sizeof(*entries));
	if (!entries)
		return PyErr_NoMemory();
	if (lock(self))
		goto done;
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_classifier_replace(&self->classifier, set, matches->buf, count, miss, entries);
	Py_END_ALLOW_THREADS;
	unlock(self);
	if (!error)
		result = make_list(entries, count);
	else if (error == -EINVAL)
		PyErr_Format(PyExc_ValueError, "a rule contradicts itself, or there can be no set %u",
			     set);
	else
		raise_error("replace", error);
done:
	PyMem_Free(entries);
	return result;
}

static PyObject *classifier_replace(struct classifier_object *self, PyObject *args)
{
	unsigned int set, miss;
	PyObject *result;
	Py_buffer matches;

	if (!PyArg_ParseTuple(args, "Iy*I:replace", &set, &matches, &miss))
		return NULL;
	result = replace(self, set, &matches, miss);
	PyBuffer_Release(&matches);
	return result;
}

/* The set and the rule; -1 and an exception when the bytes are not as many as a rule has. */
static int parse_rule(PyObject *args, const char *format, unsigned int *set,
		      struct vnet_match *match)
{
	Py_buffer buffer;
	int fits;

	if (!PyArg_ParseTuple(args, format, set, &buffer))
		return -1;
	fits = buffer.len == sizeof(*match);
	if (fits)
		memcpy(match, buffer.buf, sizeof(*match));
	else
		PyErr_Format(PyExc_ValueError, "a rule of %zd bytes", buffer.len);
	PyBuffer_Release(&buffer);
	return fits ? 0 : -1;
}

static PyObject *classifier_insert(struct classifier_object *self, PyObject *args)
{
	struct vnet_match match;
	unsigned int set;
	__u32 entry = 0;
	int error;

	if (parse_rule(args, "Iy*:insert", &set, &match) || lock(self))
		return NULL;
	error = vnet_classifier_insert(&self->classifier, set, &match, &entry);
	unlock(self);
	if (!error)
		return PyLong_FromUnsignedLong(entry);
	if (error == -EINVAL)
		return PyErr_Format(PyExc_ValueError,
				    "the rule contradicts itself, or there is no set %u", set);
	return raise_error("insert", error);
}

static PyObject *classifier_delete(struct classifier_object *self, PyObject *args)
{
	unsigned int set, entry;
	int error;

	if (!PyArg_ParseTuple(args, "II:delete", &set, &entry) || lock(self))
		return NULL;
	error = vnet_classifier_delete(&self->classifier, set, entry);
	unlock(self);
	if (!error)
		Py_RETURN_NONE;
	return PyErr_Format(PyExc_LookupError, "no rule %u in set %u", entry, set);
}

static PyObject *classifier_read(struct classifier_object *self, PyObject *args)
{
	unsigned int set, entry;
	struct vnet_match match;
	int error;

	if (!PyArg_ParseTuple(args, "II:read", &set, &entry) || lock(self))
		return NULL;
	error = vnet_classifier_read(&self->classifier, set, entry, &match);
	unlock(self);
	if (!error)
		return PyBytes_FromStringAndSize((const char *)&match, sizeof(match));
	return PyErr_Format(PyExc_LookupError, "no rule %u in set %u", entry, set);
}

static PyObject *classifier_lookup(struct classifier_object *self, PyObject *args)
{
	struct vnet_fields fields;
	struct vnet_hit hit = {0};
	unsigned int set;
	Py_buffer buffer;
	int error;

	if (!PyArg_ParseTuple(args, "Iy*:lookup", &set, &buffer))
		return NULL;
	if (buffer.len != sizeof(fields)) {
		PyErr_Format(PyExc_ValueError, "fields of %zd bytes", buffer.len);
		PyBuffer_Release(&buffer);
		return NULL;
	}
	memcpy(&fields, buffer.buf, sizeof(fields));
	PyBuffer_Release(&buffer);
	if (lock(self))
		return NULL;
	error = vnet_classifier_lookup(&self->classifier.image, set, &fields, &hit);
	unlock(self);
	if (error)
		return raise_no_set(set);
	return Py_BuildValue("(II)", hit.action, hit.entry);
}

/* remove and rebuild. */
static PyObject *change_set(struct classifier_object *self, PyObject *args, const char *what,
			    int (*change)(struct vnet_classifier *classifier, __u32 set))
{
	unsigned int set;
	int error;

	if (!PyArg_ParseTuple(args, "I", &set) || lock(self))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = change(&self->classifier, set);
	Py_END_ALLOW_THREADS;
	unlock(self);
	if (!error)
		Py_RETURN_NONE;
	return error == -EINVAL ? raise_no_set(set) : raise_error(what, error);
}

static PyObject *classifier_remove(struct classifier_object *self, PyObject *args)
{
	return change_set(self, args, "remove", vnet_classifier_remove);
}

static PyObject *classifier_rebuild(struct classifier_object *self, PyObject *args)
{
	return change_set(self, args, "rebuild", vnet_classifier_rebuild);
}

static PyObject *classifier_measure(struct classifier_object *self, PyObject *args)
{
	struct vnet_measure measure;
	unsigned int set;
	int error;

	if (!PyArg_ParseTuple(args, "I:measure", &set) || lock(self))
		return NULL;
	error = vnet_classifier_measure(&self->classifier, set, &measure);
	unlock(self);
	if (error)
		return raise_no_set(set);
	return Py_BuildValue("{sIsIsIsIsIsIsIsIsK}", "rules", measure.rules, "subtables",
			     measure.subtables, "buckets", measure.buckets, "longest_chain",
			     measure.longest_chain, "longest_group", measure.longest_group,
			     "worst_rules", measure.worst_rules, "worst_buckets",
			     measure.worst_buckets, "filter_bytes", measure.filter_bytes, "bytes",
			     (unsigned long long)measure.bytes);
}

static PyObject *classifier_check(struct classifier_object *self, PyObject *unused)
{
	const char *wrong;

	(void)unused;
	if (lock(self))
		return NULL;
	wrong = vnet_classifier_check(&self->classifier);
	unlock(self);
	return Py_BuildValue("z", wrong);
}

#define METHOD(name, flags) {#name, (PyCFunction)(void (*)(void))classifier_##name, flags, NULL}

static PyMethodDef classifier_methods[] = {
	METHOD(close, METH_NOARGS),
	METHOD(replace, METH_VARARGS),
	METHOD(remove, METH_VARARGS),
	METHOD(rebuild, METH_VARARGS),
	METHOD(insert, METH_VARARGS),
	METHOD(delete, METH_VARARGS),
	METHOD(read, METH_VARARGS),
	METHOD(lookup, METH_VARARGS),
	METHOD(measure, METH_VARARGS),
	METHOD(check, METH_NOARGS),
	{NULL, NULL, 0, NULL},
};

static PyType_Slot classifier_slots[] = {
	{Py_tp_new, classifier_new},
	{Py_tp_dealloc, classifier_dealloc},
	{Py_tp_methods, classifier_methods},
	{0, NULL},
};

PyType_Spec vnet_classifier_spec = {
	.name = "vnet_agent.datapath._flowcache.Classifier",
	.basicsize = sizeof(struct classifier_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = classifier_slots,
};
