/* SPDX-License-Identifier: Apache-2.0 */
/* Methods: the operator's tables of handlers. */
#include "object.h"

#include <errno.h>

#include "handlers.h"
#include "kernel.h"

static int make(struct vnet_object *self)
{
	if (self->kernel)
		return vnet_kernel_tables_open(self->kernel, &self->datapath.handlers);
	self->datapath.handlers = vnet_handlers_make(self->datapath.max_ports);
	self->datapath.owns_handlers = 1;
	return self->datapath.handlers ? 0 : -errno;
}

/* What else asks for tables wants them to be there; twice is no error. */
PyObject *vnet_object_handlers_open(struct vnet_object *self, PyObject *args)
{
	unsigned long long interval, burst;
	struct vnet_packet_rate *rate;
	int error = 0;

	if (!PyArg_ParseTuple(args, "KK:handlers_open", &interval, &burst) || vnet_object_lock(self))
		return NULL;
	if (!self->datapath.handlers) {
		Py_BEGIN_ALLOW_THREADS;
		error = make(self);
		Py_END_ALLOW_THREADS;
	}
	if (!error) {
		rate = self->datapath.handlers->memory.rate;
		__atomic_store_n(&rate->interval_ns, interval, __ATOMIC_RELAXED);
		__atomic_store_n(&rate->burst_ns, burst, __ATOMIC_RELAXED);
	}
	vnet_object_unlock(self);
	if (error)
		return vnet_raise_errno("tables", error);
	Py_RETURN_NONE;
}

int vnet_object_lock_tables(struct vnet_object *self)
{
	if (vnet_object_lock(self))
		return -1;
	if (self->datapath.handlers)
		return 0;
	vnet_object_unlock(self);
	PyErr_SetString(PyExc_ValueError, "there are no tables of handlers");
	return -1;
}

static PyObject *raise(unsigned int table, int error)
{
	if (error == -EINVAL)
		return PyErr_Format(PyExc_ValueError,
				    "table %u: there is no such table or rule, or a rule "
				    "contradicts itself", table);
	if (error == -E2BIG)
		return PyErr_Format(PyExc_ValueError, "there is room for %u rules",
				    VNET_HANDLER_RULES);
	return vnet_raise_errno("tables", error);
}

static int read_rule(struct vnet_handler_rule *rule, unsigned int table, Py_ssize_t number,
		     const char *match, const char *actions, __u32 cookie)
{
	__u32 op;

	memcpy(&rule->match, match, sizeof(rule->match));
	memcpy(&rule->actions, actions, sizeof(rule->actions));
	rule->cookie = cookie;
	if (vnet_actions_check(&rule->actions, table, &op))
		return 0;
	PyErr_Format(PyExc_ValueError, "rule %zd of table %u: action %u is none that the datapath has",
		     number, table, op);
	return -1;
}

struct given {
	Py_buffer matches, actions, cookies;
	Py_ssize_t count;
	struct vnet_handler_rule *rules;
	__u32 *entries;
};

static void release(struct given *given)
{
	PyBuffer_Release(&given->matches);
	PyBuffer_Release(&given->actions);
	PyBuffer_Release(&given->cookies);
	PyMem_Free(given->rules);
	PyMem_Free(given->entries);
}

/* Rules from three arrays; -1 with an exception. */
static int read_rules(struct given *given, unsigned int table)
{
	__u32 cookie;

	given->count = given->matches.len / (Py_ssize_t)sizeof(struct vnet_match);
	if (given->count > VNET_HANDLER_RULES) {
		raise(table, -E2BIG);
		return -1;
	}
	if (given->matches.len != given->count * (Py_ssize_t)sizeof(struct vnet_match) ||
	    given->actions.len != given->count * (Py_ssize_t)sizeof(struct vnet_actions) ||
	    given->cookies.len != given->count * (Py_ssize_t)sizeof(cookie)) {
		PyErr_SetString(PyExc_ValueError, "these bytes are no rules");
		return -1;
	}
	given->rules = PyMem_Calloc(given->count + 1, sizeof(*given->rules));
	given->entries = PyMem_Calloc(given->count + 1, sizeof(*given->entries));
	if (!given->rules || !given->entries) {
		PyErr_NoMemory();
		return -1;
	}
	for (Py_ssize_t i = 0; i < given->count; i++) {
		memcpy(&cookie, (char *)given->cookies.buf + i * sizeof(cookie), sizeof(cookie));
		if (read_rule(&given->rules[i], table, i,
			      (char *)given->matches.buf + i * sizeof(struct vnet_match),
			      (char *)given->actions.buf + i * sizeof(struct vnet_actions), cookie))
			return -1;
	}
	return 0;
}

static PyObject *list_entries(const struct given *given)
{
	PyObject *list = PyList_New(given->count);

	for (Py_ssize_t i = 0; list && i < given->count; i++) {
		PyObject *number = PyLong_FromUnsignedLong(given->entries[i]);

		if (!number || PyList_SetItem(list, i, number)) {
			Py_DECREF(list);
			return NULL;
		}
	}
	return list;
}

/* (table, miss, matches, actions, cookies) -> the rules' ids. */
PyObject *vnet_object_handlers_replace(struct vnet_object *self, PyObject *args)
{
	struct given given = {0};
	unsigned int table, miss;
	PyObject *result = NULL;
	int error;

	if (!PyArg_ParseTuple(args, "IIy*y*y*:handlers_replace", &table, &miss, &given.matches,
			      &given.actions, &given.cookies))
		return NULL;
	if (read_rules(&given, table) || vnet_object_lock_tables(self))
		goto out;
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_handlers_replace(self->datapath.handlers, table, given.rules, given.count,
				      miss, given.entries);
	Py_END_ALLOW_THREADS;
	vnet_object_unlock(self);
	result = error ? raise(table, error) : list_entries(&given);
out:
	release(&given);
	return result;
}

PyObject *vnet_object_handlers_insert(struct vnet_object *self, PyObject *args)
{
	struct vnet_handler_rule rule;
	Py_buffer match, actions;
	unsigned int table, cookie;
	int error = -EINVAL;
	__u32 entry = 0;

	if (!PyArg_ParseTuple(args, "Iy*y*I:handlers_insert", &table, &match, &actions, &cookie))
		return NULL;
	if (match.len == sizeof(rule.match) && actions.len == sizeof(rule.actions))
		error = read_rule(&rule, table, 0, match.buf, actions.buf, cookie);
	else
		PyErr_SetString(PyExc_ValueError, "these bytes are no rule");
	PyBuffer_Release(&match);
	PyBuffer_Release(&actions);
	if (error || vnet_object_lock_tables(self))
		return NULL;
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_handlers_insert(self->datapath.handlers, table, &rule, &entry);
	Py_END_ALLOW_THREADS;
	vnet_object_unlock(self);
	return error ? raise(table, error) : PyLong_FromUnsignedLong(entry);
}

PyObject *vnet_object_handlers_delete(struct vnet_object *self, PyObject *args)
{
	unsigned int table, entry;
	int error;

	if (!PyArg_ParseTuple(args, "II:handlers_delete", &table, &entry) || vnet_object_lock_tables(self))
		return NULL;
	error = vnet_handlers_delete(self->datapath.handlers, table, entry);
	vnet_object_unlock(self);
	if (error)
		return raise(table, error);
	Py_RETURN_NONE;
}

struct listing {
	PyObject *list;
	int failed;
};

static void list_rule(void *arg, __u32 entry, const struct vnet_handler_rule *rule)
{
	struct listing *listing = arg;
	struct vnet_match match = rule->match;
	PyObject *item;

	match.action = 0; /* an index that says nothing to others */
	item = Py_BuildValue("(Iy#y#I)", entry, (const char *)&match, (Py_ssize_t)sizeof(match),
			     (const char *)&rule->actions, (Py_ssize_t)sizeof(rule->actions),
			     rule->cookie);
	listing->failed |= !item || PyList_Append(listing->list, item);
	Py_XDECREF(item);
}

/* (miss, [(id, match, actions, cookie), ...]) of a table, None when it has nothing. */
PyObject *vnet_object_handlers_items(struct vnet_object *self, PyObject *args)
{
	struct listing listing = {0};
	unsigned int table;
	int miss;

	if (!PyArg_ParseTuple(args, "I:handlers_items", &table) || vnet_object_lock(self))
		return NULL;
	miss = self->datapath.handlers ? vnet_handlers_miss(self->datapath.handlers, table) : -1;
	if (miss < 0) {
		vnet_object_unlock(self);
		Py_RETURN_NONE;
	}
	listing.list = PyList_New(0);
	if (listing.list)
		vnet_handlers_visit(self->datapath.handlers, table, list_rule, &listing);
	vnet_object_unlock(self);
	if (listing.list && !listing.failed)
		return Py_BuildValue("(iN)", miss, listing.list);
	Py_XDECREF(listing.list);
	return NULL;
}

/* Whether somebody before has left tables. */
PyObject *vnet_object_handlers_left(struct vnet_object *self, PyObject *unused)
{
	int left;

	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	left = self->datapath.handlers != NULL ||
	       (self->kernel && vnet_kernel_tables_pinned(self->kernel));
	vnet_object_unlock(self);
	return PyBool_FromLong(left);
}

PyObject *vnet_object_handlers_used(struct vnet_object *self, PyObject *unused)
{
	int used;

	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	used = self->datapath.handlers && vnet_handlers_used(self->datapath.handlers);
	vnet_object_unlock(self);
	return PyBool_FromLong(used);
}

PyObject *vnet_object_handlers_translate(struct vnet_object *self, PyObject *unused)
{
	int translate;

	(void)unused;
	if (vnet_object_lock(self))
		return NULL;
	translate = self->datapath.handlers && self->datapath.handlers->translating;
	vnet_object_unlock(self);
	return PyBool_FromLong(translate);
}
