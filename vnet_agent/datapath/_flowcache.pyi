"""The C extension; csrc/ext. Structs travel as bytes of the layouts that `LAYOUT` gives."""

from typing import Any

ABI_VERSION: int
MAX_TUPLES: int
RECORD_SIZE: int
RECORD_VERSION: int
PASS: int
DROP: int
REDIRECT: int
CONSUMED: int
FROM_PORT: int
TO_PORT: int
FROM_UPLINK: int
TUPLE_FAMILY: int
TUPLE_PROTO: int
POLICY_KEEP: int
PORT_BRIDGED: int
PORT_ADDRESSES: int
IFACE_PORT: int
IFACE_UPLINK: int
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

REASONS: tuple[str, ...]
STATES: tuple[str, ...]
STATE_SECONDS: tuple[int, ...]
LAYOUT: dict[str, dict[str, tuple[int, int]]]
"""Offset and size by struct and field; the field "" is the whole struct."""

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

    def expire(self, local_id: int, before: int, /) -> int:
        """Remove what expires up to `before` (ns of `now`); returns how many."""

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

    def settings_get(self) -> bytes:
        """A struct `settings`."""

    def settings_put(self, settings: bytes, /) -> None:
        """ValueError when a state would last no time."""

    def now(self) -> int: ...

class Native(Datapath):
    def __new__(cls, max_ports: int = 1024) -> Native: ...
    def process(
        self, hook: int, ifindex: int, frame: bytes, now: int = 0, /
    ) -> tuple[int, int, tuple[int, ...]]:
        """Action, reason, and the interfaces on which the frame leaves."""

    def set_clock(self, now: int, /) -> None:
        """Stop the clock at `now` ns; 0 lets it run."""

class Kernel(Datapath):
    def __new__(cls, pin_dir: str, max_ports: int) -> Kernel: ...
    def close(self) -> None: ...
    def unpin(self) -> None: ...
    def attach(self, ifindex: int, uplink: bool, /) -> None: ...
    def detach(self, ifindex: int, uplink: bool, /) -> None: ...
    def test_run(
        self, hook: int, ifindex: int, frame: bytes, repeat: int = 1, /
    ) -> tuple[int, int]:
        """What the program in the kernel returns for the frame (TC_ACT_*), and the mean ns."""
