"""Two hosts in one process: real managers over loopback HTTP, between stand-ins for the rest."""

import asyncio
import itertools
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from vnet_agent import config, exceptions
from vnet_agent.bus import Bus
from vnet_agent.datapath.base import ImportResult, PortCounters
from vnet_agent.datapath.holding import Holding
from vnet_agent.migration.manager import Migrations
from vnet_agent.model.event import Event, Type
from vnet_agent.model.migration import Phase, Report
from vnet_agent.model.port import Port, Role
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState, HookCall

INSTANCE = "2a1a0d0e-0000-4000-8000-000000000001"
PORTS = tuple(
    Port(
        uuid=f"5b0c0000-0000-4000-8000-00000000000{n}",
        instance=INSTANCE,
        instance_name="vm1",
        tap=f"tap{n}",
        mac=f"fa:16:3e:00:00:0{n}",
    )
    for n in (1, 2)
)
PORT = PORTS[0].uuid
RECORD = struct.Struct("<IHBx")
#: Key, state, and whether today's policy would admit the connection.
Table = dict[int, tuple[int, int, int]]


def record(key: int, state: int = 1, admitted: bool = True) -> bytes:
    return RECORD.pack(key, state, admitted)


class FakeDriver:
    """Connections of ports as numbers; the semantics of `Driver`, in memory."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.clock = 1
        self.imports = 0
        self.on_export: Callable[[], None] | None = None
        self.chunk = 16
        self.hold: threading.Event | None = None
        self.waiting = False

    def holding(self, port: str) -> Holding:
        raise exceptions.UnknownPort(port=port)

    def change(self, port: str, *keys: int, state: int = 1, admitted: bool = True) -> None:
        self.clock += 1
        for key in keys:
            self.tables.setdefault(port, {})[key] = (state, admitted, self.clock)

    def keys(self, port: str = PORT) -> set[int]:
        return set(self.tables.get(port, {}))

    def cursor(self) -> int:
        self.clock += 1
        return self.clock

    def export(self, port: str, *, since: int = 0) -> Iterator[bytes]:
        if port not in self.tables:
            raise exceptions.UnknownPort(port=port)
        rows = [
            record(key, state, bool(admitted))
            for key, (state, admitted, changed) in sorted(self.tables[port].items())
            if changed >= since
        ]
        for start in range(0, len(rows), self.chunk):
            yield b"".join(rows[start : start + self.chunk])
            if self.on_export is not None:
                self.on_export()

    def import_records(self, port: str, records: bytes) -> ImportResult:
        if port not in self.tables:
            raise exceptions.UnknownPort(port=port)
        if len(records) % RECORD.size:
            raise exceptions.RecordError(detail="no whole records")
        if self.hold is not None:
            self.waiting = True
            self.hold.wait(10)
        self.imports += 1
        moved = refused = 0
        for key, state, admitted in RECORD.iter_unpack(records):
            if key >= 0xFFFF0000:
                refused += 1
                continue
            moved += 1
            if self.tables[port].get(key, (0, 0, 0))[0] <= state:
                self.change(port, key, state=state, admitted=bool(admitted))
        return ImportResult(moved=moved, refused={"policy": refused, "quota": 0})

    def counters(self, port: str) -> PortCounters:
        return PortCounters(
            rx_frames=0,
            rx_bytes=0,
            tx_frames=0,
            tx_bytes=0,
            connections=len(self.tables[port]),
            drops={},
        )

    def flush(self, port: str, *, generation: int) -> int:
        del generation
        count = len(self.tables[port])
        self.tables[port].clear()
        return count


class State(msgspec.Struct, frozen=True, kw_only=True):
    port: Port
    role: Role
    generation: int


class FakeInventory:
    """Owner of ports by generation; `log` is what was asked of it, refused calls too."""

    def __init__(self, driver: FakeDriver) -> None:
        self.driver = driver
        self.ports: dict[str, State] = {}
        self.log: list[str] = []
        self.delay: asyncio.Event | None = None
        self._callbacks: list[Callable[[], None]] = []

    def states(self) -> list[State]:
        return list(self.ports.values())

    def of_instance(self, instance: str) -> list[State]:
        return [state for state in self.ports.values() if state.port.instance == instance]

    def subscribe(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def put(self, ports: Sequence[Port], role: Role, generation: int) -> None:
        for port in ports:
            self.driver.tables.setdefault(port.uuid, {})
            self.ports[port.uuid] = State(port=port, role=role, generation=generation)
        for callback in self._callbacks:
            callback()

    async def prepare(self, ports: Sequence[Port], *, generation: int) -> None:
        self._check(ports[0].instance, generation, "prepare")
        if self.delay is not None:
            await self.delay.wait()
        self.put(ports, Role.STANDBY, generation)

    async def activate(self, instance: str, *, generation: int) -> None:
        self._check(instance, generation, "activate")
        self._set_role(instance, Role.ACTIVE, generation)

    async def mark_moved(self, instance: str, *, generation: int, port: str | None = None) -> None:
        self._check(instance, generation, "mark_moved")
        self._set_role(instance, Role.MOVED, generation, port)

    async def set_generation(self, instance: str, *, generation: int) -> None:
        self._check(instance, generation, "set_generation")
        for state in self.of_instance(instance):
            self.put([state.port], state.role, generation)

    async def expect(self, instance: str, *, generation: int) -> None:
        self._check(instance, generation, "expect")
        self._set_role(instance, Role.STANDBY, generation)

    async def release(self, instance: str, *, generation: int) -> None:
        self.log.append(f"release {generation}")
        for state in self.of_instance(instance):
            if state.generation <= generation:
                del self.ports[state.port.uuid]
                del self.driver.tables[state.port.uuid]
        for callback in self._callbacks:
            callback()

    def _set_role(
        self, instance: str, role: Role, generation: int, port: str | None = None
    ) -> None:
        for state in self.of_instance(instance):
            if port in (None, state.port.uuid):
                self.put([state.port], role, generation)

    def _check(self, instance: str, generation: int, what: str) -> None:
        self.log.append(f"{what} {generation}")
        for state in self.of_instance(instance):
            if state.generation > generation:
                raise exceptions.StaleGeneration(
                    port=state.port.uuid, given=generation, current=state.generation
                )


class FakeEvents:
    """Emits into a list that outlives the manager."""

    def __init__(self) -> None:
        self.emitted: list[Event] = []
        self.disk = asyncio.Event()
        self.disk.set()

    async def emit(
        self,
        type: Type,  # noqa: A002
        subject: str | None,
        data: dict[str, Any] | None = None,
        *,
        time_ns: int | None = None,
    ) -> Event:
        del time_ns
        await self.disk.wait()
        number = len(self.emitted) + 1
        event = Event(
            id=f"h/1/{number}",
            source="/hosts/h",
            type=type,
            time="",
            sequence=f"{number:020}",
            epoch=1,
            subject=subject,
            data=data or {},
        )
        self.emitted.append(event)
        return event

    async def events(
        self,
        *,
        after: str | None = None,
        limit: int = 100,
        types: tuple[Type, ...] = (),
        subject: str | None = None,
    ) -> list[Event]:
        start = 0 if after is None else int(after.rsplit("/", 1)[1])
        chosen = [e for e in self.emitted[start:] if e.type in types and e.subject == subject]
        return chosen[:limit]

    def types(self) -> list[str]:
        return [event.type.removeprefix("vnet.instance.migration.") for event in self.emitted]


class FakeController:
    """Knows where everything is, as the hosts themselves say."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self.reports: list[Report] = []
        self.broken = False

    async def locate(self, instance: str) -> tuple[str, str] | None:
        if self.broken:
            raise exceptions.VnetError(detail="the controller is away")
        for host in self.hosts:
            if any(s.role is Role.ACTIVE for s in host.inventory.of_instance(instance)):
                return host.name, host.url
        return None

    async def report_migration(self, report: Report) -> None:
        self.reports.append(report)


class Host:
    """One compute host; `kill` and `start` stop and start its agent, the rest stays."""

    def __init__(
        self, name: str, state_dir: Path, controller: FakeController, **options: Any
    ) -> None:
        self.name = name
        self.state_dir = state_dir
        self.controller = controller
        self.options = {
            "listen_port": 0,
            "precopy_interval": 0.02,
            "idle_timeout": 5.0,
            "prepare_timeout": 2.0,
            **options,
        }
        self.driver = FakeDriver()
        self.inventory = FakeInventory(self.driver)
        self.events = FakeEvents()
        self.domains: list[Any] = []
        self.list_errors: list[Exception] = []
        self.url = ""
        controller.hosts.append(self)

    async def start(self) -> None:
        conf = config.load([], host=self.name, state_dir=str(self.state_dir))
        for name, value in self.options.items():
            conf.set_override(name, value, group="migration")
        self.bus = Bus()
        self.inventory._callbacks.clear()
        self.migrations = Migrations(
            conf,
            self.bus,
            self.inventory,
            self.driver,  # type: ignore[arg-type]
            self.events,
            self.controller,
            parse=lambda xml: PORTS if xml == "<domain/>" else (),
            domains=self._list_domains,
            find_domain=self._find_domain,
        )
        await self.migrations.start()
        self.url = self.migrations.url
        # The next process of this agent listens where this one did.
        self.options["listen_port"] = int(self.url.rsplit(":", 1)[1])

    async def kill(self) -> None:
        await self.migrations.close()
        await self.bus.close()

    async def _list_domains(self) -> list[Any]:
        if self.list_errors:
            raise self.list_errors.pop()
        return self.domains

    async def _find_domain(self, uuid: str) -> DomainState | None:
        """What `domains` does not say otherwise of is here, and leaves for wherever it may."""
        found = [domain for domain in self.domains if domain.uuid == uuid]
        return (
            found[0]
            if found
            else DomainState(uuid=uuid, name="vm1", state="running", job="MIGRATION_OUT")
        )

    async def hook(self, operation: str = "migrate") -> None:
        call = HookCall(domain="vm1", operation=operation, xml="<domain/>", time_ns=time.time_ns())
        await self.migrations.on_hook(call)

    def libvirt(self, event: str, detail: str, *, time_ns: int | None = None) -> None:
        self.bus.publish(
            DomainEvent(
                kind="lifecycle",
                uuid=INSTANCE,
                name="vm1",
                event=event,
                detail=detail,
                time_ns=time.time_ns() if time_ns is None else time_ns,
            )
        )

    def guest_arrives(self) -> None:
        self.libvirt("STARTED", "MIGRATED")
        self.libvirt("RESUMED", "MIGRATED")

    def reconnected(self) -> None:
        self.bus.publish(ConnectionChange(connected=True))

    def run_guest(self, *, generation: int = 1) -> None:
        self.inventory.put(PORTS, Role.ACTIVE, generation)

    @property
    def report(self) -> Report:
        """The newest."""
        return self.migrations.reports()[-1]

    @property
    def phase(self) -> Phase | None:
        reports = self.migrations.reports()
        return reports[-1].phase if reports else None

    @property
    def roles(self) -> set[Role]:
        return {state.role for state in self.inventory.states()}

    @property
    def generation(self) -> int:
        return max((state.generation for state in self.inventory.states()), default=0)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition, looking often; fails the test when it does not come true."""
    for _ in itertools.repeat(None, int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("what the test waits for did not happen")


Hosts = tuple[Host, Host]


@asynccontextmanager
async def two_hosts(directory: Path, **options: Any) -> AsyncIterator[Hosts]:
    """Hosts a and b with running agents; the guest runs on a with generation 1."""
    controller = FakeController()
    hosts = tuple(Host(name, directory / name, controller, **options) for name in ("a", "b"))
    for host in hosts:
        await host.start()
    hosts[0].run_guest()
    try:
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            await host.kill()


async def precopy(source: Host, destination: Host) -> None:
    """A migration up to the point where the full copy is there and deltas flow."""
    await destination.hook()
    destination.libvirt("STARTED", "MIGRATED")
    await until(lambda: destination.phase is Phase.PRECOPY)
    await until(lambda: (destination.report.precopy_rounds or 0) >= 2)
    assert source.phase is Phase.PRECOPY


async def switch(source: Host, destination: Host) -> None:
    """The switchover as libvirt tells it on both hosts, to the end of the session."""
    source.libvirt("SUSPENDED", "MIGRATED")
    await until(lambda: destination.phase is Phase.HANDOVER)
    destination.guest_arrives()
    await until(lambda: destination.roles == {Role.ACTIVE})
    await until(lambda: source.roles == {Role.MOVED})
    source.libvirt("STOPPED", "MIGRATED")
    await until(lambda: destination.phase is Phase.DONE)
    await until(lambda: source.phase is Phase.DONE)


async def migrate(source: Host, destination: Host) -> None:
    await precopy(source, destination)
    await switch(source, destination)
