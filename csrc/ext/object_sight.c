/* SPDX-License-Identifier: Apache-2.0 */
/* Methods that look and change nothing: pages of a connection table, and a frame on the side. */
#include "object.h"

#include <errno.h>
#include <stdlib.h>

#include "flows.h"
#include "kernel.h"
#include "trace.h"

#define MAX_FRAME (1U << 18)

struct page {
	const struct vnet_flow_match *match;
	struct vnet_flow *flows;
	struct vnet_flow_cursor *cursor;
	__u64 now;
	long long seen;
	__u32 generation, room, count;
};

/* Natively a position is the number of an entry. */
static int list_entry(const void *key, void *value, void *arg)
{
	struct page *page = arg;

	if (page->seen++ < page->cursor->position || page->count == page->room)
		return 0;
	page->cursor->position = page->seen;
	if (vnet_flow_matches(page->match, key, value, page->generation, page->now)) {
		memcpy(&page->flows[page->count].key, key, sizeof(struct vnet_conn_key));
		memcpy(&page->flows[page->count++].conn, value, sizeof(struct vnet_conn));
	}
	return 0;
}

static int list_flows(struct vnet_object *self, unsigned int local_id, struct page *page)
{
	int error, fd;

	page->now = vnet_object_now(self);
	page->generation = (__u32)self->datapath.ports[local_id].policy;
	if (!self->kernel) {
		vnet_table_visit(&self->datapath.conns[local_id], list_entry, page);
		if (page->cursor->position >= page->seen)
			page->cursor->position = -1;
		vnet_object_unlock(self);
		return 0;
	}
	fd = vnet_kernel_conns_dup(self->kernel, local_id);
	vnet_object_unlock(self);
	if (fd < 0)
		return fd;
	Py_BEGIN_ALLOW_THREADS;
	error = vnet_kernel_flows(fd, page->match, page->generation, page->now, page->cursor,
				  page->flows, page->room, &page->count);
	vnet_kernel_conns_release(fd);
	Py_END_ALLOW_THREADS;
	return error;
}

PyObject *vnet_object_flows(struct vnet_object *self, PyObject *args)
{
	struct vnet_flow_cursor cursor = {0};
	struct page page = {.cursor = &cursor};
	PyObject *result = NULL;
	unsigned int local_id;
	Py_buffer match;
	int error;

	if (!PyArg_ParseTuple(args, "ILIIy*:flows", &local_id, &cursor.position, &cursor.skip,
			      &page.room, &match))
		return NULL;
	if (match.len != sizeof(*page.match) || page.room == 0 || page.room > VNET_KERNEL_BATCH ||
	    cursor.position < 0 || cursor.position > UINT32_MAX) {
		PyErr_SetString(PyExc_ValueError, "no such page");
		goto out;
	}
	page.match = match.buf;
	page.flows = PyMem_Malloc(page.room * sizeof(*page.flows));
	if (!page.flows) {
		PyErr_NoMemory();
		goto out;
	}
	if (vnet_object_lock_port(self, local_id))
		goto out;
	error = list_flows(self, local_id, &page);
	if (error)
		vnet_raise_errno("flows", error);
	else
		result = Py_BuildValue("(y#LIIK)", (const char *)page.flows,
				       (Py_ssize_t)(page.count * sizeof(*page.flows)),
				       cursor.position, cursor.skip, page.generation,
				       (unsigned long long)page.now);
out:
	PyMem_Free(page.flows);
	PyBuffer_Release(&match);
	return result;
}

/* -- trace */

struct live {
	struct vnet_object *self;
	unsigned int local_id;
};

static int live_entry(const struct vnet_table *table, const void *key, void *value)
{
	const void *found = table->bucket ? vnet_table_get(table, key) : NULL;

	if (found)
		memcpy(value, found, table->value_size);
	return found ? 0 : -1;
}

static int live_conn(void *arg, const struct vnet_conn_key *key, struct vnet_conn *conn)
{
	struct live *live = arg;

	if (live->self->kernel)
		return vnet_kernel_conn_get(live->self->kernel, live->local_id, key, conn);
	return live_entry(&live->self->datapath.conns[live->local_id], key, conn);
}

static int live_fragment(void *arg, const struct vnet_fragment_key *key,
			 struct vnet_fragment *fragment)
{
	struct live *live = arg;

	if (live->self->kernel)
		return vnet_kernel_fragment_get(live->self->kernel, live->local_id, key, fragment);
	return live_entry(&live->self->datapath.fragments[live->local_id], key, fragment);
}

static PyObject *numbers(const __u32 *values, __u32 count)
{
	PyObject *tuple = PyTuple_New(count);

	for (__u32 i = 0; tuple && i < count; i++) {
		PyObject *number = PyLong_FromUnsignedLong(values[i]);

		if (!number || PyTuple_SetItem(tuple, i, number)) {
			Py_DECREF(tuple);
			return NULL;
		}
	}
	return tuple;
}

/* An absent struct is None. */
static PyObject *bytes_if(int there, const void *data, size_t size)
{
	return there ? PyBytes_FromStringAndSize(data, (Py_ssize_t)size) : Py_NewRef(Py_None);
}

/* (table, rule or 0, action) of each of the operator's tables. */
static PyObject *list_steps(const struct vnet_trace *asked)
{
	PyObject *list = PyList_New(0), *step;

	for (__u32 i = 0; list && i < asked->steps; i++) {
		step = Py_BuildValue("(III)", asked->step[i].table, asked->step[i].entry,
				     asked->step[i].action);
		if (!step || PyList_Append(list, step)) {
			Py_XDECREF(step);
			Py_DECREF(list);
			return NULL;
		}
		Py_DECREF(step);
	}
	return list;
}

static PyObject *describe(struct vnet_ctx *ctx, const struct vnet_traced *traced)
{
	const struct vnet_trace *asked = &traced->asked;

	if (vnet_is_sent(traced->result.action) && ctx->outs < VNET_MAX_OUT)
		ctx->out[ctx->outs++] = traced->result.ifindex;
	return Py_BuildValue(
		"{sIsIsNsIsNsNsNsNsNsNsNsK}", "action", traced->result.action, "reason",
		traced->result.reason, "out", numbers(ctx->out, ctx->outs), "parsed",
		traced->parsed, "packet", bytes_if(1, &traced->packet, sizeof(traced->packet)),
		"port", bytes_if(1, &traced->port, sizeof(traced->port)), "rules",
		numbers(asked->rule, asked->rules), "key",
		bytes_if(asked->last.family, &asked->last, sizeof(asked->last)), "before",
		bytes_if(traced->had, &traced->before, sizeof(traced->before)), "after",
		bytes_if(traced->has, &traced->after, sizeof(traced->after)), "steps",
		list_steps(asked), "now",
		(unsigned long long)ctx->now);
}

PyObject *vnet_object_trace(struct vnet_object *self, PyObject *args)
{
	struct live live = {.self = self};
	struct vnet_trace_source source = {&live, live_conn, live_fragment};
	struct vnet_traced traced;
	struct vnet_ctx ctx = {0};
	unsigned int hook;
	Py_buffer frame;
	int failed;

	if (!PyArg_ParseTuple(args, "IIy*:trace", &hook, &live.local_id, &frame))
		return NULL;
	if ((hook != VNET_FROM_PORT && hook != VNET_TO_PORT) || frame.len > MAX_FRAME) {
		PyErr_Format(PyExc_ValueError, "hook %u, %zd bytes; at most %u", hook, frame.len,
			     MAX_FRAME);
		goto fail;
	}
	if (vnet_object_lock_port(self, live.local_id))
		goto fail;
	ctx.data = frame.buf;
	ctx.length = frame.len;
	ctx.now = vnet_object_now(self);
	failed = vnet_trace_frame(&self->datapath, live.local_id, hook, &source, &ctx, &traced);
	vnet_object_unlock(self);
	PyBuffer_Release(&frame);
	return failed ? PyErr_NoMemory() : describe(&ctx, &traced);
fail:
	PyBuffer_Release(&frame);
	return NULL;
}
