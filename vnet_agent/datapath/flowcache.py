"""What the drivers over the C core share: ports, uplinks and connections in its tables.

The tables are the truth, in the kernel or in this process; what is kept here is read back from
them by `adopt`, so that it survives the agent. Everything a frame reads is written in an order in
which no half-made port can be seen.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import ParamSpec, TypeVar

from oslo_config import cfg

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout, sight
from vnet_agent.datapath.base import (
    Connection,
    Driver,
    Exit,
    FlowFilter,
    FlowPage,
    ImportResult,
    PortCounters,
    PortEntry,
    Run,
)
from vnet_agent.datapath.captured import Capture, CaptureRequest
from vnet_agent.datapath.flags import KEPT, SHORT, set_flag
from vnet_agent.datapath.handler_tables import HandlerTables
from vnet_agent.datapath.handling import PacketIn, TableRule, TableState
from vnet_agent.datapath.holding import Holding, end_leftovers
from vnet_agent.datapath.meters import MeterTable
from vnet_agent.datapath.pairs import PairTable
from vnet_agent.datapath.policies import PolicyTable
from vnet_agent.datapath.records import decode_records
from vnet_agent.datapath.ring import RingCapture, clear_leftovers
from vnet_agent.datapath.segments import Segments
from vnet_agent.datapath.settings import pack_settings, read_lives
from vnet_agent.datapath.topology import Topology
from vnet_agent.exceptions import DatapathError, RecordError, StaleGeneration, UnknownPort
from vnet_agent.model.handler import Miss
from vnet_agent.model.policy import Policy
from vnet_agent.model.port import AddressPair, Role

ROLES = {Role.STANDBY: 1, Role.ACTIVE: 2, Role.MOVED: 3}
ROLE_NAMES = {number: role for role, number in ROLES.items()}

#: Bytes of one chunk of an export, whole records.
CHUNK = 256 * 1024 // c.RECORD_SIZE * c.RECORD_SIZE

#: An entry is removed only so long after its end, in ns: a frame that revives it comes first.
GRACE_NS = 2_000_000_000

P = ParamSpec("P")
R = TypeVar("R")


def guarded(operation: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the extension; what it raises becomes a DatapathError that names the operation."""
    try:
        return call(*args, **kwargs)
    except (OSError, ValueError, LookupError) as error:
        raise DatapathError(operation=operation, detail=str(error)) from error


class FlowcacheDriver(Driver):
    """Subclasses make `self._make()` and hook attachment to interfaces in."""

    #: Whether ports are told of known neighbours; see `[datapath] answer_neighbours`.
    _answers = False

    def __init__(
        self, max_ports: int, conf: cfg.ConfigOpts | None = None, *, packet_rate: int = 100
    ) -> None:
        self._max_ports = max_ports
        self._conf = conf
        self._packet_rate = packet_rate
        self._lock = threading.RLock()
        self._handle: c.Datapath | None = None
        self._ids: dict[str, int] = {}
        self._last_id = 0
        #: Entries of each port's table, as the last `collect` left them.
        self._held: dict[int, int] = {}

    # -- for the subclasses

    def _adopt(self, handle: c.Datapath) -> None:
        self._handle = handle
        clear_leftovers(handle)
        end_leftovers(handle)
        self._policies = PolicyTable(handle)
        self._ids = {
            layout.unpack_uuid(layout.raw("port", "port", data)): layout.number(
                "port", "local_id", data
            )
            for data in handle.ports()
        }
        self._topology = Topology(handle, set(self._ids.values()))
        self._pairs = PairTable(handle, set(self._ids.values()))
        self._segments = Segments(handle)
        self._policies.adopt(handle.ports())
        self._meters = MeterTable(handle, handle.ports())
        self._last_id = max(self._ids.values(), default=0)
        self._handlers = HandlerTables(handle, rate=self._packet_rate)
        self.configure()

    def configure(self) -> None:
        with self._lock:
            guarded("configure", self._c.settings_put, pack_settings(self._conf))

    def _attach_interface(self, ifindex: int, *, uplink: bool) -> None:
        """Run the programs on the interface."""

    def _detach_interface(self, ifindex: int, *, uplink: bool) -> None:
        """Stop running them; the interface may be gone."""

    def _set_short(self, ifindex: int) -> int:
        """The flag of the short way that the port's interface has from now on, 0 for none."""
        return 0

    @property
    def _c(self) -> c.Datapath:
        if self._handle is None:
            raise DatapathError(operation="use", detail="the datapath is not open")
        return self._handle

    # -- ports

    def ports(self) -> list[PortEntry]:
        with self._lock:
            return [self._entry(data) for data in self._c.ports()]

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
        operation = f"set_port {port}"
        wanted = guarded(
            operation,
            lambda: {
                "mac": layout.pack_mac(mac),
                "network": network,
                "flags": c.PORT_BRIDGED * bridged
                | c.PORT_ADDRESSES * bool(addresses)
                | c.PORT_ANSWERED * self._answers
                | c.PORT_PAIRS * bool(pairs)
                | c.PORT_OPEN * (not port_security),
                "role": ROLES[role],
                "owner": generation,
            },
        )
        packed = guarded(operation, lambda: [layout.pack_address(item) for item in addresses])
        port, instance_id = guarded(
            operation, lambda: (layout.normal_uuid(port), layout.pack_uuid(instance))
        )
        with self._lock:
            if port in self._ids:
                data = self._check_owner(port, generation)
                guarded(operation, self._change, data, wanted, packed, pairs, instance_id)
            else:
                guarded(operation, self._create, port, instance_id, wanted, packed, pairs, quota)
            return self._entry(self._data(port))

    def remove_port(self, port: str, *, generation: int) -> None:
        with self._lock:
            data = self._check_owner(port, generation)
            self.detach(port)
            local_id = self._id(port)
            self._topology.remove(data)
            self._keep_pairs(data, ())
            self._policies.release(local_id)
            guarded(f"remove_port {port}", self._c.port_clear, local_id)
            guarded(f"remove_port {port}", self._meters.release, local_id)
            guarded(f"remove_port {port}", self._c.conns_delete, local_id)
            self._held.pop(local_id, None)
            del self._ids[self._key(port)]

    def attach(self, port: str, ifindex: int) -> None:
        with self._lock:
            entry = self._entry(self._data(port))
            if entry.ifindex not in (None, ifindex):
                self.detach(port)
            before = self._topology.port_of(ifindex)
            if before not in (None, entry.local_id):
                self._store(before, "ifindex", 0)
            self._topology.set_iface(ifindex, kind=c.IFACE_PORT, local_id=entry.local_id)
            try:
                guarded(
                    f"attach {port} to interface {ifindex}",
                    lambda: self._attach_interface(ifindex, uplink=False),
                )
            except DatapathError:
                if entry.ifindex != ifindex:
                    self._topology.remove_iface(ifindex)
                raise
            self._store(entry.local_id, "ifindex", ifindex)
            self._settle(entry.local_id, ifindex)

    def _settle(self, local_id: int, ifindex: int) -> None:
        """The port's flag says what its interface knows."""
        wanted = self._set_short(ifindex)
        for flag in (c.PORT_SHORT, c.PORT_PEER):
            guarded("settle", set_flag, self._c, local_id, flag, wanted=flag == wanted)

    def detach(self, port: str) -> None:
        with self._lock:
            entry = self._entry(self._data(port))
            if entry.ifindex is None:
                return
            self._store(entry.local_id, "ifindex", 0)
            guarded(f"detach {port}", set_flag, self._c, entry.local_id, SHORT, wanted=False)
            # The interface may be another port's by now: the kernel gives numbers out again.
            if self._topology.port_of(entry.ifindex) == entry.local_id:
                guarded(
                    f"detach {port}",
                    lambda: self._detach_interface(entry.ifindex or 0, uplink=False),
                )
                self._topology.remove_iface(entry.ifindex)

    def attach_uplink(
        self, ifindex: int, *, network: int | None = None, vlans: Mapping[int, int] | None = None
    ) -> None:
        operation, tagged = f"attach uplink {ifindex}", vlans or {}
        with self._lock:
            guarded(operation, self._segments.check, network, tagged)
            # The program first: until the tables name the interface, all its frames pass.
            guarded(operation, lambda: self._attach_interface(ifindex, uplink=True))
            for replaced in guarded(operation, self._segments.carry, ifindex, network, tagged):
                self._detach_uplink(operation, replaced)

    def detach_uplink(self, ifindex: int) -> None:
        with self._lock:
            self._segments.remove(ifindex)
            self._detach_uplink(f"detach uplink {ifindex}", ifindex)

    def _detach_uplink(self, operation: str, ifindex: int) -> None:
        guarded(operation, lambda: self._detach_interface(ifindex, uplink=True))

    def counters(self, port: str) -> PortCounters:
        with self._lock:
            local_id = self._id(port)
        held = guarded(f"counters {port}", self._c.count, local_id)
        return self._counters(port, local_id, held)

    def all_counters(self) -> dict[str, PortCounters]:
        with self._lock:
            ids = dict(self._ids)
        found = {}
        for port, local_id in ids.items():
            try:
                # Only at first: a port that was adopted, and that no `collect` has seen yet.
                if local_id not in self._held:
                    self._held[local_id] = self._c.count(local_id)
                found[port] = self._counters(port, local_id, self._held.get(local_id, 0))
            except LookupError:  # removed meanwhile
                continue
            except DatapathError as error:
                if not isinstance(error.__cause__, LookupError):
                    raise
        return found

    def _counters(self, port: str, local_id: int, held: int) -> PortCounters:
        totals = guarded(f"counters {port}", self._c.counters, local_id)
        return PortCounters(
            rx_frames=totals[0],
            rx_bytes=totals[1],
            tx_frames=totals[2],
            tx_bytes=totals[3],
            connections=held,
            drops={name: drops for name, drops in zip(c.REASONS, totals[4], strict=True) if drops},
        )

    # -- policy

    def set_policy(self, port: str, policy: Policy) -> None:
        with self._lock:
            data = self._data(port)
            local_id = layout.number("port", "local_id", data)
            guarded(
                f"set_policy {port}",
                self._policies.assign,
                local_id,
                policy,
                network=layout.number("port", "network", data),
            )
            guarded(f"set_policy {port}", self._meters.assign, local_id, policy.limits)

    def set_members(
        self, group: str, members: Mapping[int, Collection[str]], *, complete: bool = True
    ) -> None:
        with self._lock:
            guarded(
                f"set_members {group}",
                self._policies.set_members,
                group,
                members,
                complete=complete,
            )

    # -- connections

    def export(self, port: str, *, since: int = 0) -> Iterator[bytes]:
        with self._lock:
            local_id = self._id(port)
        return self._export(port, local_id, since)

    def _export(self, port: str, local_id: int, since: int) -> Iterator[bytes]:
        position = 0
        while position >= 0:
            records, position = guarded(
                f"export {port}", self._c.export, local_id, since, position
            )
            for start in range(0, len(records), CHUNK):
                yield records[start : start + CHUNK]

    def cursor(self) -> int:
        return self._c.now()

    def import_records(self, port: str, records: bytes) -> ImportResult:
        with self._lock:
            local_id = self._id(port)
        try:
            moved, *refused = self._c.import_records(local_id, records)
        except ValueError as error:
            raise RecordError(detail=str(error)) from error
        except (OSError, LookupError) as error:
            raise DatapathError(operation=f"import {port}", detail=str(error)) from error
        names = ("policy", "quota", "expired", "address")
        return ImportResult(
            moved=moved,
            refused={name: count for name, count in zip(names, refused, strict=True) if count},
        )

    def connections(self, port: str, *, limit: int | None = None) -> list[Connection]:
        found: list[Connection] = []
        for chunk in self.export(port):
            room = None if limit is None else limit - len(found)
            found.extend(decode_records(chunk, room))
            if limit is not None and len(found) >= limit:
                break
        return found

    def flows(
        self, port: str, *, match: FlowFilter, cursor: str | None = None, limit: int
    ) -> FlowPage:
        with self._lock:
            local_id = self._id(port)
        wanted = sight.pack_filter(match)
        position, skip = sight.read_cursor(cursor)
        found = guarded(f"flows {port}", self._c.flows, local_id, position, skip, limit, wanted)
        return sight.decode_page(port, *found, lives=read_lives(self._c.settings_get()))

    def trace(self, port: str, frame: bytes, *, egress: bool) -> Run:
        with self._lock:
            local_id = self._id(port)
            hook = c.FROM_PORT if egress else c.TO_PORT
            raw = guarded(f"trace {port}", self._c.trace, hook, local_id, frame)
            policy_id = layout.number("port", "policy", raw["port"]) >> 32
            held = self._c.table_get(c.TABLE_POLICIES, layout.u32(policy_id))
            network = layout.number("port", "network", raw["port"])
            exits = tuple(self._exit(ifindex, network) for ifindex in raw["out"])
            role = ROLE_NAMES[layout.number("port", "role", raw["port"])]
        return sight.decode_run(
            port,
            raw,
            lives=read_lives(self._c.settings_get()),
            egress=egress,
            role=role,
            exits=exits,
            digest=None if held is None else layout.raw("policy", "digest", held),
            connections=guarded(f"trace {port}", self._c.count, local_id),
        )

    def _exit(self, ifindex: int, network: int) -> Exit:
        local_id = self._topology.port_of(ifindex)
        name = next((port for port, held in self._ids.items() if held == local_id), None)
        return Exit(
            ifindex=ifindex,
            interface=sight.interface_name(ifindex),
            port=name,
            network=network if name is None else None,
            vlan=self._segments.vlan_of(network) if name is None else None,
        )

    def capture(self, ports: Sequence[str], request: CaptureRequest, *, size: int) -> Capture:
        with self._lock:
            ids = {self._id(port): self._key(port) for port in ports}
            return RingCapture(self._c, self._lock, ids, request, size=size)

    # -- tables of handlers

    def tables(self) -> list[TableState]:
        with self._lock:
            return guarded("tables", self._handlers.tables)

    def replace_table(self, table: int, rules: Sequence[TableRule], miss: Miss) -> list[int]:
        with self._lock:
            return guarded("replace_table", self._handlers.replace, table, rules, miss)

    def insert_rule(self, table: int, rule: TableRule) -> int:
        with self._lock:
            return guarded("insert_rule", self._handlers.insert, table, rule)

    def delete_rule(self, table: int, rule_id: int) -> None:
        with self._lock:
            guarded("delete_rule", self._handlers.delete, table, rule_id)

    def read_packet_ins(self) -> Iterator[PacketIn]:
        with self._lock:
            names = {local_id: port for port, local_id in self._ids.items()}
            return iter(guarded("packet-ins", self._handlers.read_packet_ins, names))

    def _tap_of(self, port: str) -> int:
        """The interface that the port is attached to."""
        ifindex = layout.number("port", "ifindex", self._data(port))
        if not ifindex:
            raise DatapathError(
                operation=f"send to {port}", detail="the port has no interface on this host"
            )
        return ifindex

    def holding(self, port: str) -> Holding:
        with self._lock:
            return Holding(self._c, self._id(port), self._lock)

    def flush(self, port: str, *, generation: int) -> int:
        with self._lock:
            self._check_owner(port, generation)
            return guarded(f"flush {port}", self._c.expire, self._id(port), (1 << 64) - 1)[0]

    def collect(self) -> int:
        with self._lock:
            local_ids = list(self._ids.values())
            self._policies.purge()
        before = max(self._c.now() - GRACE_NS, 0)
        removed = 0
        for local_id in local_ids:
            try:
                expired, self._held[local_id] = self._c.expire(local_id, before)
                removed += expired
            except LookupError:  # removed meanwhile
                continue
            except OSError as error:
                raise DatapathError(operation="collect", detail=str(error)) from error
        return removed

    # -- a port's words

    def _create(
        self,
        port: str,
        instance_id: bytes,
        wanted: dict[str, int],
        addresses: list[bytes],
        pairs: tuple[AddressPair, ...],
        quota: int,
    ) -> None:
        local_id = self._free_id()
        data = layout.pack(
            "port",
            local_id=local_id,
            quota=quota,
            port=layout.pack_uuid(port),
            instance=instance_id,
            **{**wanted, "flags": wanted["flags"] | self._handlers.flag},
        )
        self._topology.check_mac(data)
        self._c.conns_create(local_id, quota)
        try:
            self._topology.set_addresses(local_id, addresses)
            self._pairs.add(local_id, pairs)
            self._keep_pairs(data, pairs)
            self._c.port_put(local_id, data)
            self._topology.add(data)
        except Exception:
            self._topology.remove(data)
            self._keep_pairs(data, ())
            self._c.port_clear(local_id)
            self._c.conns_delete(local_id)
            raise
        self._ids[port] = self._last_id = local_id
        self._policies.start(local_id)

    def _change(
        self,
        data: bytes,
        wanted: dict[str, int],
        addresses: list[bytes],
        pairs: tuple[AddressPair, ...],
        instance_id: bytes,
    ) -> None:
        local_id = layout.number("port", "local_id", data)
        kept = layout.number("port", "flags", data) & KEPT
        wanted = {**wanted, "flags": wanted["flags"] | kept}
        changed = layout.pack(
            "port",
            local_id=local_id,
            quota=layout.number("port", "quota", data),
            port=layout.raw("port", "port", data),
            instance=instance_id,
            **wanted,
        )
        moves = any(
            layout.number("port", field, data) != wanted[field]
            for field in ("mac", "network", "flags")
        )
        if moves:
            self._topology.check_mac(changed)
        if not addresses:  # else sources would be checked against none
            self._store(local_id, "flags", wanted["flags"])
        readdressed = self._pairs.add(local_id, pairs)
        readdressed |= self._topology.set_addresses(local_id, addresses)
        for field in ("flags", "mac", "network", "owner", "role"):
            if layout.number("port", field, data) != wanted[field]:
                self._store(local_id, field, wanted[field])
        self._keep_pairs(data, pairs)
        if readdressed or moves:
            # Verdicts were made for what the port was before.
            self._policies.renew(local_id)
        # Also when nothing moves: whoever made the port may have died before this.
        self._topology.move(data, changed)

    def _keep_pairs(self, data: bytes, pairs: tuple[AddressPair, ...]) -> None:
        local_id, network, mac = (
            layout.number("port", field, data) for field in ("local_id", "network", "mac")
        )
        self._pairs.keep(local_id, pairs, network, mac)

    def _store(self, local_id: int, field: str, value: int) -> None:
        offset, size = c.LAYOUT["port"][field]
        guarded(f"store {field}", self._c.port_store, local_id, offset, size, value)

    def _free_id(self) -> int:
        """The next id after the last one given: a late frame of a removed port finds nobody."""
        used = set(self._ids.values())
        for step in range(self._max_ports):
            candidate = (self._last_id + step) % self._max_ports + 1
            if candidate not in used:
                return candidate
        raise ValueError(f"all {self._max_ports} ports are in use; see [datapath] max_ports")

    @staticmethod
    def _key(port: str) -> str:
        """Ports are found by any spelling of their UUID."""
        try:
            return layout.normal_uuid(port)
        except ValueError:
            return port

    def _id(self, port: str) -> int:
        local_id = self._ids.get(self._key(port))
        if local_id is None:
            raise UnknownPort(port=port)
        return local_id

    def _data(self, port: str) -> bytes:
        return guarded(f"read {port}", self._c.port_get, self._id(port))

    def _check_owner(self, port: str, generation: int) -> bytes:
        data = self._data(port)
        current = layout.number("port", "owner", data)
        if generation < current:
            raise StaleGeneration(port=port, given=generation, current=current)
        return data

    def _entry(self, data: bytes) -> PortEntry:
        local_id = layout.number("port", "local_id", data)
        return PortEntry(
            port=layout.unpack_uuid(layout.raw("port", "port", data)),
            instance=layout.unpack_uuid(layout.raw("port", "instance", data)),
            local_id=local_id,
            mac=layout.unpack_mac(layout.number("port", "mac", data)),
            addresses=self._topology.addresses(local_id),
            network=layout.number("port", "network", data),
            bridged=bool(layout.number("port", "flags", data) & c.PORT_BRIDGED),
            role=ROLE_NAMES[layout.number("port", "role", data)],
            generation=layout.number("port", "owner", data),
            quota=layout.number("port", "quota", data),
            ifindex=layout.number("port", "ifindex", data) or None,
            port_security=not layout.number("port", "flags", data) & c.PORT_OPEN,
            pairs=self._pairs.of(local_id),
        )
