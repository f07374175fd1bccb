/* SPDX-License-Identifier: Apache-2.0 */
/* What the types of the extension share. */
#ifndef VNET_OBJECT_H
#define VNET_OBJECT_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <pthread.h>

#include "datapath.h"

struct vnet_kernel;

/*
 * A datapath as Python holds it. `mutex` guards everything below it and is never waited for with
 * the GIL held. With `kernel`, the pinned maps are the truth, and `datapath` mirrors the rules.
 */
struct vnet_object {
	PyObject_HEAD
	pthread_mutex_t mutex;
	int is_open;
	__u64 clock; /* 0: the real one */
	struct vnet_datapath datapath;
	struct vnet_kernel *kernel;
};

/* The base type, and the two that can be made. */
extern PyType_Spec vnet_datapath_spec, vnet_native_spec, vnet_kernel_spec;
extern PyType_Spec vnet_classifier_spec; /* classifier_object.c */

void vnet_object_init(struct vnet_object *self);
/* All: 0 and locked, or -1 with an exception set. */
int vnet_object_lock(struct vnet_object *self);
int vnet_object_lock_port(struct vnet_object *self, unsigned int local_id);
/* Also checks that there are tables of handlers. */
int vnet_object_lock_tables(struct vnet_object *self);
void vnet_object_unlock(struct vnet_object *self);
/* Sets OSError; the sign of `error` does not matter. Returns NULL. */
PyObject *vnet_raise_errno(const char *operation, int error);
__u64 vnet_object_now(const struct vnet_object *self);

/* Methods, by the file they are in: object_tables.c, object_conns.c, object_sight.c,
 * object_capture.c, object_handlers.c, object_packets.c. */
PyObject *vnet_object_conns_create(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_conns_delete(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_export(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_import_records(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_count(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_expire(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_table_put(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_table_remove(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_table_get(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_table_items(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_capture_open(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_capture_read(struct vnet_object *self, PyObject *unused);
PyObject *vnet_object_capture_get(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_capture_close(struct vnet_object *self, PyObject *unused);
PyObject *vnet_object_handlers_open(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_handlers_replace(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_handlers_insert(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_handlers_delete(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_handlers_items(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_handlers_used(struct vnet_object *self, PyObject *unused);
PyObject *vnet_object_handlers_translate(struct vnet_object *self, PyObject *unused);
PyObject *vnet_object_handlers_left(struct vnet_object *self, PyObject *unused);
PyObject *vnet_object_packet_fd(struct vnet_object *self, PyObject *unused);
PyObject *vnet_object_packet_read(struct vnet_object *self, PyObject *unused);
PyObject *vnet_object_flows(struct vnet_object *self, PyObject *args);
PyObject *vnet_object_trace(struct vnet_object *self, PyObject *args);

#endif
