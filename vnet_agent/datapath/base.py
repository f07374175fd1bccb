"""The contract of a datapath driver (entry points `vnet_agent.datapath`).

A driver keeps, for each port, its policy, its connections and its counters, and enforces them on
the frames of the tap that the port is attached to. What it keeps outlives the agent: `open`
adopts what an earlier process left. Methods block; those that can take long (`export`,
`import_records`, `connections`) release the GIL and are called in a thread.
"""

import abc
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from vnet_agent.datapath.captured import Capture, CaptureRequest
from vnet_agent.datapath.handling import PacketIn, TableRule, TableState, TableStep
from vnet_agent.datapath.holding import Holding
from vnet_agent.exceptions import TablesUnsupported
from vnet_agent.model.handler import Miss
from vnet_agent.model.policy import Policy
from vnet_agent.model.port import AddressPair, Role


class PortEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A port as the datapath holds it.

    `local_id` is the driver's 32-bit id, given by `set_port` and stable while the port exists.
    `generation` is the ownership token: it grows by one with each migration; a change that
    carries an older one is refused. `quota` is the most connections the port may hold. Without
    `port_security` neither sources are checked nor policy.
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
    port_security: bool = True
    pairs: tuple[AddressPair, ...] = ()


class PortCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the port was created, seen from the VM: `rx` was delivered to it, `tx` came
    from it. `drops` is by the reasons of `csrc/core/reason.h`."""

    rx_frames: int
    rx_bytes: int
    tx_frames: int
    tx_bytes: int
    connections: int
    drops: dict[str, int]


class Translated(msgspec.Struct, frozen=True, kw_only=True):
    """What the frames of one direction (`way`: `egress` or `ingress`) become."""

    way: str
    local: str
    local_port: int
    remote: str
    remote_port: int


class Connection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One connection record, decoded for people; `local` is the VM's side.

    `state` is a name of `csrc/core/conn.h` (`established`, `syn-sent`, ...). For ICMP
    `local_port` is the identifier and `remote_port` 0. `remaining_ms` is the time to expiry if no
    further frame comes: it travels instead of a clock. Packets and bytes count per direction.
    State `nat`: it is no connection, but what one is `translated` to.
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
    translated: Translated | None = None


class Flow(Connection, frozen=True, kw_only=True):
    """A connection as the flow cache holds it.

    `verdict` is `allow`: only admitted connections have an entry. `generation` is that of the
    policy that admitted it; if it is the port's own the entry is `fresh` and answers by itself,
    otherwise its next frame is judged again. `idle_ms` is the time since its last frame.
    """

    port: str
    verdict: str
    generation: int
    fresh: bool
    idle_ms: int


class FlowFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which flows to list; None is any. `protocol` is a name or a number, `remote` a CIDR."""

    protocol: str | None = None
    remote: str | None = None
    state: str | None = None
    fresh: bool | None = None


class FlowPage(msgspec.Struct, frozen=True, kw_only=True):
    """`cursor` is where the next page begins, None after the last one."""

    flows: list[Flow]
    cursor: str | None


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """An interface that a frame leaves on: the tap of `port`, or the uplink of `network`, there
    with the tag `vlan` if that is not None."""

    ifindex: int
    interface: str | None
    port: str | None
    network: int | None
    vlan: int | None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What the datapath would do with a frame.

    `verdict` is `deliver` (to the VM), `bridge` (the Linux bridge forwards), `forward` (to `out`),
    `flood` (copies to `out`, which may be empty), `answer` (it asks for a known neighbour and goes
    back as the answer), `controller` or `drop`. `reason` is why it is dropped, `parsed` why it
    could not be read whole. `cache` is `hit` (the entry answers), `stale` (the entry is judged
    again), `anew` (the entry's connection is over, or not this frame's), `miss` (there is no
    entry) or `none` (nothing was looked up). `connection` is the entry, and `then` what becomes of
    it. `tables` are the operator's that it came to. `rules` are positions in the policy of those
    that matched; `digest` tells which policy that is, None: the port has none. `connections` of
    `quota` are in use.
    """

    verdict: str
    reason: str | None
    parsed: str | None
    packet: dict[str, str | int]
    cache: str
    connection: Flow | None
    then: str
    tables: tuple[TableStep, ...]
    rules: tuple[int, ...]
    digest: bytes | None
    out: tuple[Exit, ...]
    role: Role
    addresses_known: bool
    port_security: bool
    connections: int
    quota: int


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
    def configure(self) -> None:
        """Take over what may change of the configuration while frames flow: time-outs and
        strictness. `open` does it too. Each connection's next frame counts by it."""

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
        port_security: bool = True,
        pairs: tuple[AddressPair, ...] = (),
    ) -> PortEntry:
        """Create the port or change it; connections, counters and attachment stay.

        `pairs` are allowed besides `mac` and `addresses`. A MAC that several ports may have is
        where it spoke last.

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
    def attach_uplink(
        self, ifindex: int, *, network: int | None = None, vlans: Mapping[int, int] | None = None
    ) -> None:
        """Make the interface the way out for frames of its networks that no local port takes.

        `network` leaves untagged, each of `vlans` (802.1Q id: network) with its tag; the interface
        carries nothing else, and no other interface carries these. Raises DatapathError, with
        nothing changed, for an id that is not 1 to 4094 or a network that stands twice.
        """

    @abc.abstractmethod
    def detach_uplink(self, ifindex: int) -> None:
        """The interface, which may be gone already, is the way out of no network any more."""

    @abc.abstractmethod
    def counters(self, port: str) -> PortCounters: ...

    @abc.abstractmethod
    def all_counters(self) -> dict[str, PortCounters]:
        """Of every port; `connections` are the entries that the last `collect` left.

        So it costs the same however many connections there are.
        """

    # -- policy

    @abc.abstractmethod
    def set_policy(self, port: str, policy: Policy) -> None:
        """Replace the port's rules and limits as a whole.

        When it returns, no frame sees the old verdict. Limits that stay the same go on with what
        they have let through.
        """

    @abc.abstractmethod
    def set_members(
        self, group: str, members: Mapping[int, Collection[str]], *, complete: bool = True
    ) -> None:
        """Say who is a member of a group that rules name in `remote_group`, by network.

        Members are addresses and CIDRs, of ports here and elsewhere. A group that was never told
        of has those of an earlier process, or none. Who stays a member is one at every moment;
        what was admitted by who is none any more is judged again with its next frame. Unless
        `complete` nobody is taken away.
        """

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
    def flows(
        self, port: str, *, match: FlowFilter, cursor: str | None = None, limit: int
    ) -> FlowPage:
        """At most `limit` (2048 at most) flows that match, from `cursor` on.

        A connection that lives through the listing is listed once; in the kernel one that came
        or went meanwhile can make one of the same hash bucket be missed or come twice. Raises
        FilterError for a filter or a cursor that means nothing.
        """

    @abc.abstractmethod
    def trace(self, port: str, frame: bytes, *, egress: bool) -> Run:
        """Run the frame (Ethernet, 256 KiB at most) from or to the VM, and change nothing."""

    @abc.abstractmethod
    def capture(self, ports: Sequence[str], request: CaptureRequest, *, size: int) -> Capture:
        """Begin to copy frames of the ports, with their verdicts, to a ring of `size` bytes.

        One capture at a time: CaptureBusy. Raises FilterError for a request that means nothing.
        Frames never wait for the reader; what an agent captured when it died ends with `open`.
        """

    @abc.abstractmethod
    def holding(self, port: str) -> Holding:
        """What lets frames for the port's VM wait, or follow it, while it moves."""

    @abc.abstractmethod
    def flush(self, port: str, *, generation: int) -> int:
        """Forget the port's connections; returns how many. StaleGeneration as above."""

    @abc.abstractmethod
    def collect(self) -> int:
        """Remove expired connections everywhere; returns how many. Called every few seconds."""

    # -- tables of handlers; a driver that has none raises TablesUnsupported

    def tables(self) -> list[TableState]:
        """What is in force, also of an earlier life of the agent."""
        return []

    def replace_table(self, table: int, rules: Sequence[TableRule], miss: Miss) -> list[int]:
        """Put the rules in the place of all that the table has, in one step; their ids."""
        raise TablesUnsupported

    def insert_rule(self, table: int, rule: TableRule) -> int:
        """The rule's id."""
        raise TablesUnsupported

    def delete_rule(self, table: int, rule_id: int) -> None:
        raise TablesUnsupported

    def packet_in_fileno(self) -> int:
        """A descriptor that is readable while there are packet-ins; it goes with `close`."""
        raise TablesUnsupported

    def read_packet_ins(self) -> Iterator[PacketIn]:
        """Those that are there now, in the order in which they came; never waits."""
        raise TablesUnsupported

    def send_packet(self, port: str, *, egress: bool, frame: bytes, through_tables: bool) -> None:
        """Let the frame (Ethernet) be one from the port's VM (`egress`) or to it.

        Through the tables from the first one on, or past them, as `normal` does.
        """
        raise TablesUnsupported
