"""The contract of a datapath driver (entry points `vnet_agent.datapath`).

A driver keeps, for each port, its policy, its connections and its counters, and enforces them on
the frames of the tap that the port is attached to. What it keeps outlives the agent: `open`
adopts what an earlier process left. Methods block; those that can take long (`export`,
`import_records`, `connections`) release the GIL and are called in a thread.
"""

import abc
from collections.abc import Iterator

import msgspec

from vnet_agent.model.policy import Policy
from vnet_agent.model.port import Role


class PortEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A port as the datapath holds it.

    `local_id` is the driver's 32-bit id, given by `set_port` and stable while the port exists.
    `generation` is the ownership token: it grows by one with each migration; a change that
    carries an older one is refused. `quota` is the most connections the port may hold.
    """

    port: str
    instance: str
    local_id: int
    mac: str
    addresses: tuple[str, ...]
    network: int
    bridged: bool
    role: Role
    generation: int
    quota: int
    ifindex: int | None


class PortCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the port was created, seen from the VM: `rx` was delivered to it, `tx` came
    from it. `drops` is by the reasons of `csrc/core/reason.h`."""

    rx_frames: int
    rx_bytes: int
    tx_frames: int
    tx_bytes: int
    connections: int
    drops: dict[str, int]


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One connection record, decoded for people; `local` is the VM's side.

    `state` is a name of `csrc/core/conn.h` (`established`, `syn-sent`, ...). For ICMP
    `local_port` is the identifier and `remote_port` 0. `remaining_ms` is the time to expiry if no
    further frame comes: it travels instead of a clock. Packets and bytes count per direction.
    """

    protocol: str
    local: str
    local_port: int
    remote: str
    remote_port: int
    state: str
    origin: str
    assured: bool
    remaining_ms: int
    mark: int
    egress_packets: int
    egress_bytes: int
    ingress_packets: int
    ingress_bytes: int


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """`moved` records were accepted; `refused` counts the others by reason (`policy`, `quota`,
    `expired`, `address`)."""

    moved: int
    refused: dict[str, int]


class Driver(abc.ABC):
    """See the module. All methods raise DatapathError, and UnknownPort where one is named."""

    # -- life

    @abc.abstractmethod
    def open(self) -> None:
        """Create the datapath or adopt the one that is there, without a gap for its traffic."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of it; frames keep flowing."""

    @abc.abstractmethod
    def destroy(self) -> None:
        """Take everything away: detach programs, unpin maps."""

    # -- ports

    @abc.abstractmethod
    def ports(self) -> list[PortEntry]:
        """Every port held, adopted ones too."""

    @abc.abstractmethod
    def set_port(
        self,
        port: str,
        *,
        instance: str,
        mac: str,
        addresses: tuple[str, ...],
        network: int,
        bridged: bool,
        role: Role,
        generation: int,
        quota: int,
    ) -> PortEntry:
        """Create the port or change it; connections, counters and attachment stay.

        A port without policy drops every IP frame: call `set_policy` before `attach`. `port` and
        `instance` are UUIDs. `quota` is fixed at creation. Raises StaleGeneration when the port
        is held with a newer generation; DatapathError when another port of the network has the
        MAC, or all ids are taken.
        """

    @abc.abstractmethod
    def remove_port(self, port: str, *, generation: int) -> None:
        """Detach, forget the port and its connections; StaleGeneration if it has a newer owner."""

    @abc.abstractmethod
    def attach(self, port: str, ifindex: int) -> None:
        """Guard the tap with this ifindex. Idempotent; a new ifindex replaces the old one."""

    @abc.abstractmethod
    def detach(self, port: str) -> None:
        """Stop guarding the port's tap, which may be gone already."""

    @abc.abstractmethod
    def attach_uplink(self, ifindex: int, *, network: int) -> None:
        """Make the interface the way out for frames of the network that no local port takes."""

    @abc.abstractmethod
    def detach_uplink(self, ifindex: int) -> None: ...

    @abc.abstractmethod
    def counters(self, port: str) -> PortCounters: ...

    # -- policy

    @abc.abstractmethod
    def set_policy(self, port: str, policy: Policy) -> None:
        """Replace the port's rules as a whole; when it returns, no frame sees the old verdict."""

    # -- connections

    @abc.abstractmethod
    def export(self, port: str, *, since: int = 0) -> Iterator[bytes]:
        """Chunks of whole wire records (csrc/core/record.h), at most 256 KiB each.

        `since` is a cursor from `cursor`: only connections that were created or changed state
        from then on. 0 is all. Packets alone are no change.
        """

    @abc.abstractmethod
    def cursor(self) -> int:
        """Now, in the driver's clock: what `export(since=...)` takes later."""

    @abc.abstractmethod
    def import_records(self, port: str, records: bytes) -> ImportResult:
        """Take records (whole ones) into the port's table, each re-checked against its policy.

        An existing entry of the same key is overwritten only by a record that is not older
        in state. Raises RecordError, with nothing imported, when the bytes are not records.
        """

    @abc.abstractmethod
    def connections(self, port: str, *, limit: int | None = None) -> list[Connection]: ...

    @abc.abstractmethod
    def flush(self, port: str, *, generation: int) -> int:
        """Forget the port's connections; returns how many. StaleGeneration as above."""

    @abc.abstractmethod
    def collect(self) -> int:
        """Remove expired connections everywhere; returns how many. Called every few seconds."""
