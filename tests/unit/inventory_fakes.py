"""A datapath, a libvirt, a kernel and an event log that do as they are told, and remember."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from vnet_agent import config
from vnet_agent.bus import Bus
from vnet_agent.datapath.base import (
    Connection,
    Driver,
    FlowPage,
    ImportResult,
    PortCounters,
    PortEntry,
    Run,
)
from vnet_agent.exceptions import DatapathError, LibvirtError, StaleGeneration, UnknownPort
from vnet_agent.inventory.inventory import Inventory
from vnet_agent.inventory.links import Link, LinkGone
from vnet_agent.model.event import Type
from vnet_agent.model.policy import ALLOW_ALL, Group, Policy
from vnet_agent.model.port import Port, Role
from vnet_agent.model.virt import DomainState

INSTANCE = "5f6c1f6e-3f0b-4a57-9a3e-6d2f1d5f7a01"
OTHER = "6f6c1f6e-3f0b-4a57-9a3e-6d2f1d5f7a02"
PORT = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
TAP = "tap0a1b2c3d-4e"
MAC = "fa:16:3e:00:00:0a"


def make_port(**changes: Any) -> Port:
    fields = {"uuid": PORT, "instance": INSTANCE, "instance_name": "vm", "tap": TAP, "mac": MAC}
    return Port(**(fields | changes))


def make_domain(
    *ports: Port, uuid: str = INSTANCE, state: str = "running", reason: str = "booted"
) -> DomainState:
    interfaces = "".join(
        f"<interface type='ethernet'><mac address='{port.mac}'/><target dev='{port.tap}'/>"
        "</interface>"
        for port in ports
    )
    named = "".join(f"<v:port mac='{port.mac}' uuid='{port.uuid}'/>" for port in ports)
    xml = (
        f"<domain><name>vm</name><uuid>{uuid}</uuid><metadata>"
        f"<v:ports xmlns:v='urn:vnet-agent:domain:1'>{named}</v:ports></metadata>"
        f"<devices>{interfaces}</devices></domain>"
    )
    return DomainState(uuid=uuid, name="vm", state=state, reason=reason, xml=xml)


class FakeDriver(Driver):
    """Keeps ports as a real one does; `calls` lists what was asked of it, in order."""

    def __init__(self) -> None:
        self.entries: dict[str, PortEntry] = {}
        self.policies: dict[str, Policy] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.members: dict[str, dict[int, set[str]]] = {}
        self.uplinks: dict[int, int | None] = {}
        self.vlans: dict[int, dict[int, int]] = {}
        self.refuse: set[str] = set()
        self.relaying: set[str] = set()

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] in self.refuse:
            raise DatapathError(operation=call[0], detail="told to fail")

    def _owned(self, port: str, generation: int) -> PortEntry:
        if port not in self.entries:
            raise UnknownPort(port=port)
        current = self.entries[port].generation
        if generation < current:
            raise StaleGeneration(port=port, given=generation, current=current)
        return self.entries[port]

    def _replace(self, port: str, **changes: Any) -> None:
        fields = {name: getattr(self.entries[port], name) for name in PortEntry.__struct_fields__}
        self.entries[port] = PortEntry(**(fields | changes))

    def open(self) -> None: ...
    def close(self) -> None: ...
    def destroy(self) -> None: ...
    def configure(self) -> None: ...

    def ports(self) -> list[PortEntry]:
        return list(self.entries.values())

    def set_port(self, port: str, **fields: Any) -> PortEntry:
        self._note("set_port", port, fields["role"], fields["generation"])
        held = self.entries.get(port)
        if held:
            self._owned(port, fields["generation"])
            self._replace(port, **fields)
        else:
            number = len(self.calls)
            self.entries[port] = PortEntry(port=port, local_id=number, ifindex=None, **fields)
        return self.entries[port]

    def remove_port(self, port: str, *, generation: int) -> None:
        self._note("remove_port", port)
        self._owned(port, generation)
        del self.entries[port]
        self.policies.pop(port, None)

    def attach(self, port: str, ifindex: int) -> None:
        self._note("attach", port, ifindex)
        self._replace(port, ifindex=ifindex)

    def detach(self, port: str) -> None:
        self._note("detach", port)
        self._replace(port, ifindex=None)

    def attach_uplink(
        self, ifindex: int, *, network: int | None = None, vlans: Mapping[int, int] | None = None
    ) -> None:
        self._note("attach_uplink", ifindex, network)
        self.uplinks[ifindex] = network
        self.vlans[ifindex] = dict(vlans or {})

    def detach_uplink(self, ifindex: int) -> None:
        self._note("detach_uplink", ifindex)
        self.uplinks.pop(ifindex, None)
        self.vlans.pop(ifindex, None)

    def counters(self, port: str) -> PortCounters:
        raise NotImplementedError

    def set_members(
        self, group: str, members: Mapping[int, Collection[str]], *, complete: bool = True
    ) -> None:
        self._note("set_members", group)
        if complete:
            self.members[group] = {net: set(who) for net, who in members.items()}
            return
        for network, who in members.items():
            self.members.setdefault(group, {}).setdefault(network, set()).update(who)

    def set_policy(self, port: str, policy: Policy) -> None:
        self._note("set_policy", port)
        self.policies[port] = policy

    def export(self, port: str, *, since: int = 0) -> Iterator[bytes]:
        raise NotImplementedError

    def cursor(self) -> int:
        return 0

    def import_records(self, port: str, records: bytes) -> ImportResult:
        raise NotImplementedError

    def connections(self, port: str, *, limit: int | None = None) -> list[Connection]:
        return []

    def flows(self, port: str, **how: Any) -> FlowPage:
        raise NotImplementedError

    def trace(self, port: str, frame: bytes, *, egress: bool) -> Run:
        raise NotImplementedError

    def all_counters(self):
        raise NotImplementedError

    def capture(self, ports, request, *, size):
        raise NotImplementedError

    def holding(self, port: str) -> Any:
        return SimpleNamespace(relays=lambda: port in self.relaying)

    def flush(self, port: str, *, generation: int) -> int:
        self._note("flush", port)
        return 0

    def collect(self) -> int:
        return 0


class FakeLinks:
    """The kernel's interfaces; the test adds and removes them."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._next = 10
        self.hidden: dict[int, str] = {}
        self.aliases_set: list[str] = []

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def refresh(self) -> None:
        """Aliases that changed without news become visible."""
        for ifindex, alias in self.hidden.items():
            name = self.links[ifindex].name
            self.links[ifindex] = Link(ifindex=ifindex, name=name, alias=alias)
        self.hidden.clear()

    def by_name(self, name: str) -> Link | None:
        return next((link for link in self.links.values() if link.name == name), None)

    def by_index(self, ifindex: int) -> Link | None:
        return self.links.get(ifindex)

    async def lengthen(self, ifindex: int, frames: int) -> None: ...

    async def set_alias(self, ifindex: int, alias: str) -> None:
        if ifindex not in self.links:
            raise LinkGone
        self.aliases_set.append(alias)
        self.change(ifindex, alias=alias)

    def subscribe(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    # -- what the test does

    def add(self, name: str, alias: str = "") -> int:
        self._next += 1
        self.links[self._next] = Link(ifindex=self._next, name=name, alias=alias)
        self._tell()
        return self._next

    def remove(self, ifindex: int) -> None:
        del self.links[ifindex]
        self._tell()

    def change(self, ifindex: int, *, name: str | None = None, alias: str | None = None) -> None:
        old = self.links[ifindex]
        self.links[ifindex] = Link(
            ifindex=ifindex,
            name=old.name if name is None else name,
            alias=old.alias if alias is None else alias,
        )
        self._tell()

    def alias(self, ifindex: int) -> str:
        return self.links[ifindex].alias

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()


class FakeDomains:
    """libvirt's listing; None is a libvirtd that is away."""

    def __init__(self) -> None:
        self.now: list[DomainState] | None = []
        self.gate: asyncio.Event | None = None
        self.asked = 0

    async def domains(self) -> list[DomainState]:
        self.asked += 1
        if self.now is None:
            raise LibvirtError(uri="fake", detail="not connected")
        answer = list(self.now)
        if self.gate:
            await self.gate.wait()
        return answer


class FakeEvents:
    def __init__(self) -> None:
        self.emitted: list[tuple[Type, str | None, dict[str, Any]]] = []

    async def emit(
        self, kind: Type, subject: str | None, data: dict[str, Any] | None = None
    ) -> None:
        self.emitted.append((kind, subject, data or {}))

    @property
    def kinds(self) -> list[Type]:
        return [kind for kind, _, _ in self.emitted]


class FakePolicy:
    def __init__(self) -> None:
        self.policy = ALLOW_ALL
        self.asked: list[Port] = []
        self.revision = "1"
        self.member_groups: dict[str, tuple[str, ...]] = {}

    def groups_of(self, port: Port) -> list[Group]:
        return []

    def members_elsewhere(self, name: str) -> dict[int, set[str]]:
        return {}

    def resolve(self, port: Port) -> Policy:
        self.asked.append(port)
        return self.policy


class World:
    """An inventory with all that is around it."""

    def __init__(self, **options: Any) -> None:
        self.conf = config.load([])
        groups = {"linger": "libvirt", "resync_interval": "libvirt", "uplinks": "datapath"}
        for name, value in options.items():
            self.conf.set_override(name, value, group=groups[name])
        self.driver = FakeDriver()
        self.links = FakeLinks()
        self.domains = FakeDomains()
        self.events = FakeEvents()
        self.policy = FakePolicy()
        self.bus = Bus()
        self.inventory = self.make()

    def make(self) -> Inventory:
        return Inventory(
            self.conf,
            bus=self.bus,
            driver=self.driver,
            policy=self.policy,
            events=self.events,
            links=self.links,
            domains=self.domains,
        )

    def role(self, port: str = PORT) -> Role:
        return self.inventory.get(port).role

    def held(self) -> bool:
        return PORT in self.driver.entries


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    await world.inventory.start()
    try:
        yield world
    finally:
        await world.inventory.close()
        await world.bus.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds; at most some ten seconds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never became true")
