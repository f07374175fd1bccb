"""The C extension; csrc/ext. Structs travel as bytes of the layouts that `LAYOUT` gives."""

from typing import Any

ABI_VERSION: int
MAX_TUPLES: int
RECORD_SIZE: int
RECORD_VERSION: int
PASS: int
DROP: int
REDIRECT: int
ANSWERED: int
CONSUMED: int
HANDED: int
FROM_PORT: int
TO_PORT: int
FROM_UPLINK: int
SHORTCUT: int
TUPLE_FAMILY: int
TUPLE_PROTO: int
TUPLE_GROUP: int
MAX_GROUP: int
MAX_PEERS: int
PEER_GROUP_BITS: int
META_LAST_GROUP: int
POLICY_KEEP: int
PORT_BRIDGED: int
PORT_ADDRESSES: int
PORT_ANSWERED: int
PORT_OPEN: int
PORT_METERED: int
PORT_CAPTURED: int
PORT_TABLES: int
PORT_NAT: int
PORT_SHORT: int
PORT_PAIRS: int
PORT_PEER: int
PORT_HELD: int
PORT_DRAINING: int
PORT_RELAYED: int
REPLAY_MARK: int
PAIR_WHOLE_BITS: int
MARKED: int
CAPTURE_SNAP: int
HANDLER_TABLES: int
MAX_OPS: int
VLAN_PRESENT: int
KIND_FRAGMENT: int
KIND_EGRESS: int
IFACE_PORT: int
IFACE_UPLINK: int
IFACE_TAGGED: int
BINDING_ROUTER: int
CONN_EGRESS: int
CONN_ASSURED: int
CONN_IMPORTED: int
FLOW_FRESH: int
FLOW_STALE: int
MAX_OUT: int
SETTINGS_STRICT: int
MAX_PAGE: int
TABLE_IFACES: int
TABLE_UPLINKS: int
TABLE_FDB: int
TABLE_MEMBERS: int
TABLE_ADDRESSES: int
TABLE_POLICIES: int
TABLE_RULES: int
TABLE_META: int
TABLE_CAPTURES: int
TABLE_SEGMENTS: int
TABLE_VLANS: int
TABLE_BINDINGS: int
TABLE_GROUPS: int
TABLE_PEERS: int
TABLE_METERS: int
TABLE_PAIRS: int

REASONS: tuple[str, ...]
STATES: tuple[str, ...]
STATE_SECONDS: tuple[int, ...]
LAYOUT: dict[str, dict[str, tuple[int, int]]]
"""Offset and size by struct and field; the field "" is the whole struct."""

def borrow_fd(pidfd: int, fd: int) -> int:
    """Another process's open file as a descriptor of this one; OSError."""

def trace_thread(tid: int, tracepoint: int, condition: str) -> int:
    """A descriptor of perf's for the thread's passes of a tracepoint; OSError."""

def bpf_object_size() -> int:
    """Bytes of the BPF object that is built in."""

class Datapath:
    """What Native and Kernel share. Local ids are 1 to `max_ports`.

    OSError: the kernel refused. LookupError: no such local id. ValueError: the bytes do not fit,
    or the datapath is closed.
    """

    @property
    def max_ports(self) -> int: ...
    def ports(self) -> list[bytes]: ...
    def port_get(self, local_id: int, /) -> bytes: ...
    def port_put(self, local_id: int, port: bytes, /) -> None: ...
    def port_clear(self, local_id: int, /) -> None: ...
    def port_store(self, local_id: int, offset: int, size: int, value: int, /) -> None: ...
    def counters(self, local_id: int, /) -> tuple[int, int, int, int, tuple[int, ...]]:
        """Frames and bytes to the VM, frames and bytes from it, drops by reason."""

    def table_put(self, table: int, keys: bytes, values: bytes, /) -> None: ...
    def table_get(self, table: int, key: bytes, /) -> bytes | None: ...
    def table_remove(self, table: int, keys: bytes, /) -> None: ...
    def table_items(self, table: int, /) -> list[tuple[bytes, bytes]]: ...
    def conns_create(self, local_id: int, quota: int, /) -> None: ...
    def conns_delete(self, local_id: int, /) -> None: ...
    def export(self, local_id: int, since: int, position: int, /) -> tuple[bytes, int]:
        """Records, and the position to go on at: 0 at first, -1 at the end."""

    def import_records(self, local_id: int, records: bytes, /) -> tuple[int, int, int, int, int]:
        """How many moved, then how many were refused: policy, quota, expired, address."""

    def count(self, local_id: int, /) -> int:
        """How many connections there are that have not expired."""

    def expire(self, local_id: int, before: int, /) -> tuple[int, int]:
        """Remove what expires up to `before` (ns of `now`): how many, and how many stay."""

    def flows(
        self, local_id: int, position: int, skip: int, room: int, match: bytes, /
    ) -> tuple[bytes, int, int, int, int]:
        """Structs `flow`, at most `room`; where to go on (position -1 at the end, and skip); the
        port's policy generation; and now. `match` is a struct `flow_match`."""

    def trace(self, hook: int, local_id: int, frame: bytes, /) -> dict[str, Any]:
        """Run a frame at a port and change nothing.

        `action`, `reason`, `parsed` and `now` are numbers, `out` and `rules` tuples of them (of
        interfaces, and of rules in the policy's source); `packet` and `port` are structs; `key` is
        the connection that was looked up, `before` and `after` its entry, or None.
        """

    def capture_open(self, size: int, /) -> int:
        """Make a ring of at least `size` bytes for captured frames; returns a descriptor, not the
        caller's to close, that is readable while there are some. OSError EBUSY: there is one."""

    def capture_read(self) -> bytes:
        """Structs `capture_record`, each with its frame's bytes behind it; b"" for none."""

    def capture_get(self, local_id: int, /) -> bytes:
        """The port's struct `capture` with its counters; OSError ENOENT when it has none."""

    def capture_close(self) -> None:
        """Take the ring away, an earlier agent's too; there may be none."""

    def handlers_open(self, interval_ns: int, burst_ns: int, /) -> None:
        """Make tables of handlers, or adopt those of an earlier agent; and the rate at which each
        port's frames may go to the controller."""

    def handlers_left(self) -> bool:
        """Whether there are tables to adopt."""

    def handlers_translate(self) -> bool:
        """Whether any rule has a NAT."""

    def handlers_used(self) -> bool:
        """Whether any table has a rule, or a miss that does not continue."""

    def handlers_replace(
        self, table: int, miss: int, matches: bytes, actions: bytes, cookies: bytes, /
    ) -> list[int]:
        """Put rules in the place of all that the table has: arrays of struct `match`, struct
        `actions` and 32 bits. Their ids."""

    def handlers_insert(self, table: int, match: bytes, actions: bytes, cookie: int, /) -> int: ...
    def handlers_delete(self, table: int, entry: int, /) -> None: ...
    def handlers_items(
        self, table: int, /
    ) -> tuple[int, list[tuple[int, bytes, bytes, int]]] | None:
        """What a miss does, and (id, match, actions, cookie) of each rule; None: nothing."""

    def packet_fd(self) -> int:
        """Readable while there are packet-ins."""

    def packet_read(self) -> bytes:
        """Struct `packet_in`, each followed by its bytes of the frame; b"" for none."""
    def settings_get(self) -> bytes:
        """A struct `settings`."""

    def settings_put(self, settings: bytes, /) -> None:
        """ValueError when a state would last no time."""

    def now(self) -> int: ...

class Native(Datapath):
    def __new__(cls, max_ports: int = 1024) -> Native: ...
    def process(
        self, hook: int, ifindex: int, frame: bytes, now: int = 0, past_tables: bool = False, /
    ) -> tuple[int, int, tuple[int, ...]]:
        """Action, reason, and the interfaces on which the frame leaves."""

    def run(
        self, hook: int, ifindex: int, frame: bytes, now: int = 0, past_tables: bool = False, /
    ) -> tuple[int, int, list[tuple[int, bytes]]]:
        """As `process`, but each interface (0: the VM) with the frame as it leaves there."""

    def set_clock(self, now: int, /) -> None:
        """Stop the clock at `now` ns; 0 lets it run."""

class Kernel(Datapath):
    def __new__(cls, pin_dir: str, max_ports: int) -> Kernel: ...
    def close(self) -> None: ...
    def unpin(self) -> None: ...
    def finish_upgrade(self) -> bool:
        """Once every interface has this version's programs; whether there was a version before."""

    def attach(self, ifindex: int, uplink: bool, /) -> None: ...
    def detach(self, ifindex: int, uplink: bool, /) -> None: ...
    def set_short(self, ifindex: int, /) -> int:
        """Give an attached interface the short way that it can have: PORT_SHORT or PORT_PEER, the
        port's flag from now on; 0 for none."""

    def has_short(self, ifindex: int, /) -> bool: ...
    def leave_short(self, ifindex: int, /) -> None:
        """Another's XDP program stays."""

    def send(self, ifindex: int, egress: bool, through_tables: bool, frame: bytes, /) -> None:
        """Let the frame be one from the VM behind the interface (`egress`), or to it."""

    def test_run(
        self, hook: int, ifindex: int, frame: bytes, repeat: int = 1, /
    ) -> tuple[int, int]:
        """What the program in the kernel returns for the frame (TC_ACT_*), and the mean ns."""

class Classifier:
    """Sets of rules in an image of `lines` of 64 bytes (csrc/native/classifier.h).

    The lines are memory of its own, or with `fd` those of an array map made with BPF_F_MMAPABLE
    that has nothing in it yet.

    A rule travels as a struct `match`, what a frame shows as a struct `fields`. ValueError: a rule
    that contradicts itself, bytes that do not fit, or the classifier is closed. LookupError: no
    such set or rule. OSError: ENOMEM (the image is full) or E2BIG; nothing is changed then.
    """

    def __new__(cls, lines: int, sets: int, fd: int = -1) -> Classifier: ...
    def close(self) -> None:
        """Give the memory back; what is in a map stays there."""

    def replace(self, table: int, matches: bytes, miss: int, /) -> list[int]:
        """Put rules in the place of all that a set has, made if need be. Returns their entries."""

    def remove(self, table: int, /) -> None: ...
    def rebuild(self, table: int, /) -> None:
        """Choose the subtables anew; entries stay."""

    def insert(self, table: int, match: bytes, /) -> int:
        """Returns the rule's entry, its name until it is deleted."""

    def delete(self, table: int, entry: int, /) -> None: ...
    def read(self, table: int, entry: int, /) -> bytes:
        """A struct `match`, without bits of the value outside of the mask."""

    def lookup(self, table: int, fields: bytes, /) -> tuple[int, int]:
        """The action, and the entry of the rule: 0 when none matched."""

    def measure(self, table: int, /) -> dict[str, int]:
        """What the set takes and the bound of its look-ups: struct vnet_measure."""

    def check(self) -> str | None:
        """Walk through everything: what is wrong, or None."""
