/* SPDX-License-Identifier: Apache-2.0 */
/* The module: its types, its names, and the layout of the structs that Python packs. */
#include "object.h"

#include "classifier.h"
#include "handler_abi.h"
#include "kernel.h"
#include "flows.h"
#include "parse.h"

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>


static const char *const reason_names[] = {
#define VNET_TEXT(name, text) text,
	VNET_REASONS(VNET_TEXT)
#undef VNET_TEXT
};

static const char *const state_names[] = {
#define VNET_TEXT(name, text, seconds, progress) text,
	VNET_STATES(VNET_TEXT)
#undef VNET_TEXT
};

/* Seconds that a state lasts without a frame. */
static const __u32 state_lives[] = {
#define VNET_LIFE(name, text, seconds, progress) seconds,
	VNET_STATES(VNET_LIFE)
#undef VNET_LIFE
};

static const struct {
	const char *type, *field;
	unsigned int offset, size;
} layout[] = {
#define FIELD(type, field) {#type, #field, offsetof(struct vnet_##type, field), sizeof(((struct vnet_##type *)0)->field)}
#define SIZE(type) {#type, "", 0, sizeof(struct vnet_##type)}
	SIZE(port), FIELD(port, policy), FIELD(port, mac), FIELD(port, owner), FIELD(port, role),
	FIELD(port, flags), FIELD(port, ifindex), FIELD(port, network), FIELD(port, local_id),
	FIELD(port, quota), FIELD(port, port), FIELD(port, instance), FIELD(port, hold_until_ns),
	FIELD(port, held), FIELD(port, sent_on), FIELD(port, hold_ifindex), FIELD(port, seen_outside),
	SIZE(iface), FIELD(iface, kind), FIELD(iface, local_id), FIELD(iface, network),
	FIELD(iface, flags),
	SIZE(segment), FIELD(segment, ifindex), FIELD(segment, vlan),
	SIZE(vlan_key), FIELD(vlan_key, ifindex), FIELD(vlan_key, vlan),
	SIZE(binding_key), FIELD(binding_key, network), FIELD(binding_key, address),
	SIZE(binding), FIELD(binding, mac), FIELD(binding, local_id), FIELD(binding, flags),
	SIZE(mac_key), FIELD(mac_key, mac), FIELD(mac_key, network),
	SIZE(member_key), FIELD(member_key, network), FIELD(member_key, index),
	SIZE(address_key), FIELD(address_key, local_id), FIELD(address_key, address),
	SIZE(tuple), FIELD(tuple, remote), FIELD(tuple, dport), FIELD(tuple, direction),
	FIELD(tuple, flags), FIELD(tuple, family), FIELD(tuple, group),
	SIZE(group), FIELD(group, network), FIELD(group, name),
	SIZE(pair_key), FIELD(pair_key, prefix), FIELD(pair_key, local_id), FIELD(pair_key, mac),
	FIELD(pair_key, address),
	SIZE(peer_key), FIELD(peer_key, prefix), FIELD(peer_key, group), FIELD(peer_key, address),
	SIZE(policy), FIELD(policy, flags), FIELD(policy, tuples), FIELD(policy, digest),
	FIELD(policy, tuple),
	SIZE(rule_key), FIELD(rule_key, policy), FIELD(rule_key, tuple), FIELD(rule_key, proto),
	FIELD(rule_key, dport), FIELD(rule_key, remote),
	SIZE(rule), FIELD(rule, number), FIELD(rule, action),
	SIZE(rate), FIELD(rate, due), FIELD(rate, mult), FIELD(rate, burst), FIELD(rate, shift),
	SIZE(meters), FIELD(meters, meter), FIELD(meters, mark),
	SIZE(conn_record), FIELD(conn_record, proto), FIELD(conn_record, family),
	FIELD(conn_record, local_port), FIELD(conn_record, remote_port), FIELD(conn_record, local),
	FIELD(conn_record, remote), FIELD(conn_record, state), FIELD(conn_record, flags),
	FIELD(conn_record, mark), FIELD(conn_record, remaining_ms), FIELD(conn_record, age_ms),
	FIELD(conn_record, packets), FIELD(conn_record, bytes),
	SIZE(conn_key), FIELD(conn_key, local), FIELD(conn_key, remote), FIELD(conn_key, local_port),
	FIELD(conn_key, remote_port), FIELD(conn_key, proto), FIELD(conn_key, family),
	SIZE(conn), FIELD(conn, expires_ns), FIELD(conn, packets), FIELD(conn, bytes),
	FIELD(conn, generation), FIELD(conn, state), FIELD(conn, flags), FIELD(conn, mark),
	FIELD(conn, window),
	SIZE(flow), FIELD(flow, key), FIELD(flow, conn),
	SIZE(flow_match), FIELD(flow_match, remote), FIELD(flow_match, mask),
	FIELD(flow_match, proto), FIELD(flow_match, state), FIELD(flow_match, verdict),
	FIELD(flow_match, family),
	SIZE(settings), FIELD(settings, life_ns), FIELD(settings, flags), FIELD(settings, opening_ns),
	FIELD(settings, openings_ns),
	SIZE(packet), FIELD(packet, source_mac), FIELD(packet, target_mac), FIELD(packet, source),
	FIELD(packet, destination), FIELD(packet, fragment_id), FIELD(packet, ethertype),
	FIELD(packet, source_port), FIELD(packet, destination_port), FIELD(packet, family),
	FIELD(packet, proto), FIELD(packet, fragment), FIELD(packet, tcp_flags),
	FIELD(packet, type), FIELD(packet, code), FIELD(packet, hops),
	SIZE(capture), FIELD(capture, matched), FIELD(capture, over), FIELD(capture, full),
	FIELD(capture, interval_ns), FIELD(capture, burst_ns), FIELD(capture, snap),
	FIELD(capture, directions), FIELD(capture, drops_only), FIELD(capture, proto),
	FIELD(capture, family), FIELD(capture, remote), FIELD(capture, mask),
	SIZE(capture_record), FIELD(capture_record, reason),
	SIZE(match), FIELD(match, value), FIELD(match, mask), FIELD(match, source_ports),
	FIELD(match, destination_ports), FIELD(match, priority), FIELD(match, action),
	SIZE(fields), FIELD(fields, source), FIELD(fields, destination), FIELD(fields, source_port),
	FIELD(fields, destination_port), FIELD(fields, proto), FIELD(fields, family),
	FIELD(fields, type), FIELD(fields, code), FIELD(fields, in_port), FIELD(fields, tcp_flags),
	FIELD(fields, dscp), FIELD(fields, state), FIELD(fields, kind), FIELD(fields, source_mac),
	FIELD(fields, ethertype), FIELD(fields, target_mac), FIELD(fields, vlan),
	FIELD(fields, network), FIELD(fields, mark), FIELD(fields, source_identity),
	FIELD(fields, destination_identity), FIELD(fields, metadata),
	SIZE(packet_in), FIELD(packet_in, tagged),
	SIZE(op), FIELD(op, code), FIELD(op, field), FIELD(op, arg), FIELD(op, value),
	FIELD(op, wide), SIZE(actions),
#undef FIELD
#undef SIZE
};

/* {type: {field: (offset, size), "": (0, size of the whole)}} */
static PyObject *make_layout(void)
{
	PyObject *result = PyDict_New(), *fields, *place;

	for (size_t i = 0; result && i < sizeof(layout) / sizeof(*layout); i++) {
		fields = PyDict_GetItemString(result, layout[i].type);
		if (!fields) {
			fields = PyDict_New();
			if (!fields || PyDict_SetItemString(result, layout[i].type, fields)) {
				Py_XDECREF(fields);
				goto fail;
			}
			Py_DECREF(fields); /* the dictionary holds it */
		}
		place = Py_BuildValue("(II)", layout[i].offset, layout[i].size);
		if (!place || PyDict_SetItemString(fields, layout[i].field, place)) {
			Py_XDECREF(place);
			goto fail;
		}
		Py_DECREF(place);
	}
	return result;
fail:
	Py_DECREF(result);
	return NULL;
}

static PyObject *make_names(const char *const *names, size_t count)
{
	PyObject *tuple = PyTuple_New(count);

	for (size_t i = 0; tuple && i < count; i++) {
		PyObject *name = PyUnicode_FromString(names[i]);

		if (!name || PyTuple_SetItem(tuple, i, name)) {
			Py_DECREF(tuple);
			return NULL;
		}
	}
	return tuple;
}

static PyObject *make_lives(void)
{
	PyObject *tuple = PyTuple_New(VNET_STATE_COUNT);

	for (size_t i = 0; tuple && i < VNET_STATE_COUNT; i++) {
		PyObject *life = PyLong_FromUnsignedLong(state_lives[i]);

		if (!life || PyTuple_SetItem(tuple, i, life)) {
			Py_DECREF(tuple);
			return NULL;
		}
	}
	return tuple;
}

static int add(PyObject *module, const char *name, PyObject *value)
{
	int failed = !value || PyModule_AddObjectRef(module, name, value);

	Py_XDECREF(value);
	return failed;
}

static int add_constants(PyObject *module)
{
	static const struct {
		const char *name;
		long value;
	} constants[] = {
		{"ABI_VERSION", VNET_ABI_VERSION},
		{"MAX_TUPLES", VNET_MAX_TUPLES},
		{"RECORD_SIZE", sizeof(struct vnet_conn_record)},
		{"RECORD_VERSION", VNET_RECORD_VERSION},
		{"PASS", VNET_PASS},
		{"DROP", VNET_DROP},
		{"REDIRECT", VNET_REDIRECT},
		{"ANSWERED", VNET_ANSWERED},
		{"CONSUMED", VNET_CONSUMED},
		{"HANDED", VNET_HANDED},
		{"FROM_PORT", VNET_FROM_PORT},
		{"TO_PORT", VNET_TO_PORT},
		{"FROM_UPLINK", VNET_FROM_UPLINK},
		{"SHORTCUT", VNET_SHORTCUT},
		{"TUPLE_FAMILY", VNET_TUPLE_FAMILY},
		{"TUPLE_PROTO", VNET_TUPLE_PROTO},
		{"TUPLE_GROUP", VNET_TUPLE_GROUP},
		{"MAX_GROUP", VNET_MAX_GROUP},
		{"MAX_PEERS", VNET_MAX_PEERS},
		{"PEER_GROUP_BITS", VNET_PEER_GROUP_BITS},
		{"META_LAST_GROUP", VNET_META_LAST_GROUP},
		{"POLICY_KEEP", VNET_POLICY_KEEP},
		{"PORT_BRIDGED", VNET_PORT_BRIDGED},
		{"PORT_ADDRESSES", VNET_PORT_ADDRESSES},
		{"PORT_ANSWERED", VNET_PORT_ANSWERED},
		{"PORT_OPEN", VNET_PORT_OPEN},
		{"PORT_METERED", VNET_PORT_METERED},
		{"PORT_CAPTURED", VNET_PORT_CAPTURED},
		{"PORT_TABLES", VNET_PORT_TABLES},
		{"PORT_NAT", VNET_PORT_NAT},
		{"PORT_SHORT", VNET_PORT_SHORT},
		{"PORT_PAIRS", VNET_PORT_PAIRS},
		{"PORT_PEER", VNET_PORT_PEER},
		{"PORT_HELD", VNET_PORT_HELD},
		{"PORT_DRAINING", VNET_PORT_DRAINING},
		{"PORT_RELAYED", VNET_PORT_RELAYED},
		{"REPLAY_MARK", VNET_REPLAY_MARK},
		{"PAIR_WHOLE_BITS", VNET_PAIR_WHOLE_BITS},
		{"MARKED", VNET_MARKED},
		{"CAPTURE_SNAP", VNET_CAPTURE_SNAP},
		{"HANDLER_TABLES", VNET_HANDLER_TABLES},
		{"MAX_OPS", VNET_MAX_OPS},
		{"VLAN_PRESENT", VNET_VLAN_PRESENT},
		{"KIND_FRAGMENT", VNET_KIND_FRAGMENT},
		{"KIND_EGRESS", VNET_KIND_EGRESS},
		{"IFACE_PORT", VNET_IFACE_PORT},
		{"IFACE_UPLINK", VNET_IFACE_UPLINK},
		{"IFACE_TAGGED", VNET_IFACE_TAGGED},
		{"BINDING_ROUTER", VNET_BINDING_ROUTER},
		{"CONN_EGRESS", VNET_CONN_EGRESS},
		{"CONN_ASSURED", VNET_CONN_ASSURED},
		{"CONN_IMPORTED", VNET_CONN_IMPORTED},
		{"FLOW_FRESH", VNET_FLOW_FRESH},
		{"FLOW_STALE", VNET_FLOW_STALE},
		{"SETTINGS_STRICT", VNET_SETTINGS_STRICT},
		{"MAX_OUT", VNET_MAX_OUT},
		{"MAX_PAGE", VNET_KERNEL_BATCH},
#define TABLE(id, name, key, value) {"TABLE_" #id, VNET_TABLE_##id},
		VNET_TABLES(TABLE)
#undef TABLE
	};

	for (size_t i = 0; i < sizeof(constants) / sizeof(*constants); i++)
		if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value))
			return -1;
	if (add(module, "REASONS", make_names(reason_names, VNET_REASON_COUNT)) ||
	    add(module, "STATES", make_names(state_names, VNET_STATE_COUNT)) ||
	    add(module, "STATE_SECONDS", make_lives()) || add(module, "LAYOUT", make_layout()))
		return -1;
	return 0;
}

static int module_exec(PyObject *module)
{
	PyObject *base = PyType_FromModuleAndSpec(module, &vnet_datapath_spec, NULL);
	int failed;

	if (!base)
		return -1;
	failed = add(module, "Native", PyType_FromModuleAndSpec(module, &vnet_native_spec, base)) ||
		 add(module, "Kernel", PyType_FromModuleAndSpec(module, &vnet_kernel_spec, base)) ||
		 add(module, "Classifier",
		     PyType_FromModuleAndSpec(module, &vnet_classifier_spec, NULL)) ||
		 add(module, "Datapath", Py_NewRef(base)) || add_constants(module);
	Py_DECREF(base);
	return failed ? -1 : 0;
}

static PyObject *bpf_object_size(PyObject *module, PyObject *unused)
{
	(void)module, (void)unused;
	return PyLong_FromSize_t(vnet_kernel_object_size());
}

/* Another process's open file, as a descriptor of this one: pidfd_getfd(2), which Python lacks. */
static PyObject *borrow_fd(PyObject *module, PyObject *args)
{
	int pidfd, fd, borrowed;

	(void)module;
	if (!PyArg_ParseTuple(args, "ii:borrow_fd", &pidfd, &fd))
		return NULL;
	borrowed = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	return borrowed < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(borrowed);
}

/* perf_event_open(2) for a tracepoint and one thread, whose newest records overwrite the oldest. */
static PyObject *trace_thread(PyObject *module, PyObject *args)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_RAW,
		.write_backward = 1,
	};
	unsigned long long tracepoint;
	const char *filter;
	int tid, fd;

	(void)module;
	if (!PyArg_ParseTuple(args, "iKs:trace_thread", &tid, &tracepoint, &filter))
		return NULL;
	attr.config = tracepoint;
	fd = (int)syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	if (ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter)) {
		PyErr_SetFromErrno(PyExc_OSError);
		close(fd);
		return NULL;
	}
	return PyLong_FromLong(fd);
}

static PyMethodDef module_methods[] = {
	{"trace_thread", trace_thread, METH_VARARGS, NULL},
	{"borrow_fd", borrow_fd, METH_VARARGS, NULL},
	{"bpf_object_size", bpf_object_size, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
	{Py_mod_exec, module_exec},
	{0, NULL},
};

static struct PyModuleDef module_definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "_flowcache",
	.m_doc = "The datapath in C: the pipeline run natively, and the one in the kernel.",
	.m_methods = module_methods,
	.m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__flowcache(void)
{
	return PyModuleDef_Init(&module_definition);
}
