"""A cloud of agents in simulated time: libvirt moves one VM about, and everything else fails.

Of libvirt there is what it does and tells; of the agents everything but the datapath and the
inventory, which are those of migration_hosts. What must hold is checked all the time by `Truth`,
and when all is quiet again by `World.check`.
"""

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
from migration_hosts import INSTANCE, PORT, PORTS, FakeController, FakeDriver, FakeInventory, Host
from simulated_loop import Gate, Process, SimulatedLoop

from vnet_agent.exceptions import LibvirtError
from vnet_agent.model.event import Type
from vnet_agent.model.migration import Phase, Report
from vnet_agent.model.port import Role
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState, HookCall

#: Seconds after which an agent is given up that does not answer its hook; see vnet_agent/hooks.
_HOOK = 2.0
#: Seconds after which a port is forgotten whose VM is nowhere to be seen; see inventory/.
_FORGET = 120.0
_ENDED = (Type.MIGRATION_COMPLETED, Type.MIGRATION_FAILED)


class Broken(AssertionError):
    """Something that must hold did not."""


class Truth:
    """Where the guest is, and what its connections are."""

    def __init__(self) -> None:
        self.host: SimulatedHost
        self.running = True
        self.busy = True
        """The guest opens connections, where it runs."""
        self.connections: dict[int, int] = {}
        """Key and state of each."""
        self.next_key = 1
        self.broken: list[str] = []
        """What must never happen, and did."""

    def runs_on(self, host: "SimulatedHost") -> bool:
        return self.running and self.host is host


class WatchedInventory(FakeInventory):
    """Nobody ever takes the port from where the guest runs."""

    def __init__(self, driver: FakeDriver, host: "SimulatedHost") -> None:
        super().__init__(driver)
        self._host = host

    async def release(self, instance: str, *, generation: int) -> None:
        had = bool(self.of_instance(instance))
        await super().release(instance, generation=generation)
        self._still_there("released", had)

    async def mark_moved(self, instance: str, *, generation: int, port: str | None = None) -> None:
        await super().mark_moved(instance, generation=generation, port=port)
        self._still_there("marked as moved", had=True)

    def _still_there(self, what: str, had: bool) -> None:
        states = self.of_instance(INSTANCE)
        gone = not states or any(state.role is Role.MOVED for state in states)
        if had and gone and self._host.truth.runs_on(self._host):
            self._host.truth.broken.append(
                f"the guest runs on {self._host.name}, and its port was {what}"
            )


class SimulatedHost(Host):
    """`alive`: its agent runs. libvirt's events reach it in order, some time later."""

    def __init__(
        self, name: str, directory: Path, controller: FakeController, truth: Truth
    ) -> None:
        super().__init__(
            name, directory, controller, precopy_interval=0.3, idle_timeout=5.0, relay_time=1.0
        )
        self.truth = truth
        self.inventory = WatchedInventory(self.driver, self)
        self.process = Process(name)
        self.alive = False
        self.gap = False
        self.domain: str | None = None
        """Its state, as libvirt lists it."""
        self.job = ""
        self._news: deque[DomainEvent] = deque()
        self._real = (self.driver, self.inventory, self.events)

    # -- the agent

    async def boot(self) -> None:
        self.process = Process(self.name)
        driver, inventory, events = (Gate(self.process, each) for each in self._real)
        self.driver, self.inventory, self.events = driver, inventory, events  # type: ignore[assignment]
        await self.process.run(self.start())
        self.driver, self.inventory, self.events = self._real
        self.alive = True
        self.reconcile()
        self._connected()

    def sigkill(self) -> None:
        self.alive = False
        self._news.clear()
        self._real[1]._callbacks.clear()
        self.process.kill()

    # -- libvirt

    def tell(self, event: str, detail: str) -> None:
        if not self.alive or self.gap:
            return
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self._news.append(
            DomainEvent(
                kind="lifecycle",
                uuid=INSTANCE,
                name="vm1",
                event=event,
                detail=detail,
                time_ns=loop.clock.time_ns(),
            )
        )
        loop.call_later(loop.network.delay() * 4, self._next)

    def _next(self) -> None:
        if self._news:
            event = self._news.popleft()
            self.process.context.run(self.bus.publish, event)
            if event.event == "RESUMED":
                self.speak()

    def lose_libvirt(self) -> None:
        self.gap = True
        self._news.clear()
        if self.alive:
            self.process.context.run(self.bus.publish, ConnectionChange(connected=False))

    def find_libvirt(self) -> None:
        self.gap = False
        self.reconcile()
        self._connected()

    def _connected(self) -> None:
        if self.alive and not self.gap:
            self.process.context.run(self.bus.publish, ConnectionChange(connected=True))

    async def _list_domains(self) -> list[Any]:
        await asyncio.sleep(0.01)
        if self.domain is None:
            return []
        state, _, reason = self.domain.partition("/")
        return [DomainState(uuid=INSTANCE, name="vm1", state=state, reason=reason or "unknown")]

    async def _find_domain(self, uuid: str) -> DomainState | None:
        if self.gap:
            raise LibvirtError(uri="simulated", detail="not connected")
        found = await self._list_domains()
        return msgspec.structs.replace(found[0], job=self.job) if found else None

    async def call_hook(self, operation: str) -> None:
        """Fails open: libvirt goes on after a while, whatever the agent does."""
        if not self.alive:
            return
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        call = HookCall(
            domain="vm1", operation=operation, xml="<domain/>", time_ns=loop.clock.time_ns()
        )
        work = loop.create_task(self.migrations.on_hook(call), context=self.process.context)
        await asyncio.wait({work}, timeout=_HOOK)

    # -- what the inventory does besides

    def reconcile(self) -> None:
        if not self.alive:
            return
        if self.domain == "running":
            self.speak()
        if self.domain is not None and not self.inventory.of_instance(INSTANCE):
            role = Role.ACTIVE if self.truth.runs_on(self) else Role.STANDBY
            self.process.context.run(self.inventory.put, PORTS, role, 1)

    def forget(self) -> None:
        if self.domain is None:
            for state in self.inventory.of_instance(INSTANCE):
                del self.inventory.ports[state.port.uuid]
                self.driver.tables.pop(state.port.uuid, None)

    def speak(self) -> None:
        """The guest's first frame makes its port active, in the datapath."""
        standby = [s for s in self.inventory.of_instance(INSTANCE) if s.role is Role.STANDBY]
        for state in standby:
            self.process.context.run(
                self.inventory.put, [state.port], Role.ACTIVE, state.generation
            )


class World:
    """Hosts, one VM, and what may go wrong with them."""

    def __init__(self, loop: SimulatedLoop, directory: Path) -> None:
        self.loop = loop
        self.random = loop.random
        self.truth = Truth()
        self.controller = FakeController()
        self.hosts = [
            SimulatedHost(name, directory / name, self.controller, self.truth) for name in "abc"
        ]
        self.log: list[str] = []
        self.killed = False
        """An agent was, since all was quiet: it cannot know what went on meanwhile."""
        self._healing: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for host in self.hosts:
            await host.boot()
        first = self.hosts[0]
        first.domain, self.truth.host = "running", first
        first.run_guest()
        self._traffic = self.loop.create_task(self._live())

    def say(self, text: str) -> None:
        self.log.append(f"{self.loop.time():10.4f} {text}")

    # -- the guest

    async def _live(self) -> None:
        """Opens connections and changes them, where it runs."""
        while True:
            await asyncio.sleep(self.random.random() * 0.05)
            truth = self.truth
            if not (truth.running and truth.busy) or PORT not in truth.host.driver.tables:
                continue
            if self.random.random() < 0.3 and truth.connections:
                key = self.random.choice(list(truth.connections))
                truth.connections[key] += 1
            else:
                key, truth.next_key = truth.next_key, truth.next_key + 1
                truth.connections[key] = 1
            truth.host.driver.change(PORT, key, state=truth.connections[key])
            if self.random.random() < 0.2:
                truth.host.speak()

    # -- what libvirt does

    async def migrate(self, destination: SimulatedHost, outcome: str) -> None:
        """`outcome`: moved, or refused, dies (in pre-copy), or stays (at the switchover)."""
        source = self.truth.host
        self.say(f"{source.name} -> {destination.name}: {outcome}")
        source.job = "MIGRATION_OUT"
        try:
            await self._migrate(source, destination, outcome)
        finally:
            source.job = ""

    async def _migrate(
        self, source: SimulatedHost, destination: SimulatedHost, outcome: str
    ) -> None:
        truth = self.truth
        await destination.call_hook("migrate")
        if outcome == "refused":
            await destination.call_hook("release")
            return
        await destination.call_hook("prepare")
        await destination.call_hook("start")
        destination.domain = "paused/migration"
        destination.tell("STARTED", "MIGRATED")
        await self._pause(2.0)
        if outcome == "dies":
            await self._die(destination)
            return
        truth.running = False
        source.domain = "paused/migration"
        source.tell("SUSPENDED", "MIGRATED")
        await self._pause(0.2)
        if outcome == "stays":
            await self._die(destination)
            truth.running = True
            source.domain = "running"
            source.tell("RESUMED", "MIGRATED")
            return
        truth.host, truth.running = destination, True
        self.say(f"runs on {destination.name}")
        destination.domain = "running"
        destination.tell("RESUMED", "MIGRATED")
        await self._pause(0.1)
        source.domain = None
        source.tell("STOPPED", "MIGRATED")
        await source.call_hook("stopped")
        await source.call_hook("release")

    async def _die(self, destination: SimulatedHost) -> None:
        destination.domain = None
        destination.tell("STOPPED", "FAILED")
        await destination.call_hook("stopped")
        await destination.call_hook("release")

    async def _pause(self, most: float) -> None:
        await asyncio.sleep(self.random.random() * most)

    # -- what goes wrong

    def trouble(self) -> None:
        """Something, at some time from now on, for a while."""
        kind = self.random.choice(("kill", "kill", "cut", "mute", "controller", "gap", "disk"))
        host, other = self.random.sample(self.hosts, 2)
        at, lasts = self.random.random() * 2.5, self.random.choice((0.1, 1.0, 8.0))
        task = self._trouble(kind, host, other, at, lasts * self.random.random())
        self._healing.append(self.loop.create_task(task))

    async def _trouble(
        self, kind: str, host: SimulatedHost, other: SimulatedHost, at: float, lasts: float
    ) -> None:
        await asyncio.sleep(at)
        pair = frozenset((host.name, other.name))
        self.say(f"{kind} {host.name} {other.name} for {lasts:.3f}")
        if kind == "kill" and host.alive:
            host.sigkill()
            self.killed = True
            await asyncio.sleep(lasts)
            await host.boot()
            self.say(f"{host.name} is back")
        elif kind == "cut":
            self.loop.network.cut(pair, [each.process for each in self.hosts])
        elif kind == "mute":
            self.loop.network.mute.add(pair)
            await asyncio.sleep(lasts)
            self.loop.network.unmute(pair)
        elif kind == "controller":
            self.controller.broken = True
            await asyncio.sleep(lasts)
            self.controller.broken = False
        elif kind == "gap":
            host.lose_libvirt()
            await asyncio.sleep(lasts)
            host.find_libvirt()
        elif kind == "disk":
            host.events.disk.clear()
            await asyncio.sleep(lasts)
            host.events.disk.set()

    # -- what must hold

    async def settle(self) -> None:
        """Until all that was wrong is over, and everybody has had his time-outs."""
        await asyncio.gather(*self._healing)
        self._healing.clear()
        await asyncio.sleep(self.random.random())
        self.truth.busy = False
        await asyncio.sleep(60.0)
        for host in self.hosts:
            host.find_libvirt()
        await asyncio.sleep(_FORGET)
        for host in self.hosts:
            host.forget()
        self.truth.busy = True

    def check(self) -> None:
        if self.truth.broken:
            raise Broken(self.truth.broken[0])
        self._check_owner()
        self._check_reports()

    def _check_owner(self) -> None:
        for host in self.hosts:
            roles = host.roles
            if host is self.truth.host and roles != {Role.ACTIVE}:
                raise Broken(f"the guest runs on {host.name}, where its ports are {roles}")
            if host is not self.truth.host and (roles or host.driver.tables):
                raise Broken(f"{host.name} has ports, {roles}, and the guest is elsewhere")

    def _check_reports(self) -> None:
        for host in self.hosts:
            for report in host.migrations.reports():
                if report.phase not in (Phase.DONE, Phase.ABORTED):
                    raise Broken(f"{host.name}: {report.id} is for ever in {report.phase}")
                self._check_events(host, report)

    def _check_events(self, host: SimulatedHost, report: Report) -> None:
        mine = [each for each in host.events.emitted if each.data.get("id") == report.id]
        wanted = 1 if report.side == "destination" else 0
        started = sum(each.type is Type.MIGRATION_STARTED for each in mine)
        ended = sum(each.type in _ENDED for each in mine)
        if started > wanted or ended != wanted:
            raise Broken(f"{host.name}: {started} and {ended} events of {report.side} {report.id}")

    def missing(self) -> dict[int, int]:
        """Connections that the guest has and its port does not know as they are."""
        table = self.truth.host.driver.tables.get(PORT, {})
        return {
            key: state
            for key, state in self.truth.connections.items()
            if table.get(key, (0, 0, 0))[0] != state
        }

    def newest(self, host: SimulatedHost) -> Report | None:
        reports = [r for r in host.migrations.reports() if r.side == "destination"]
        return msgspec.structs.replace(reports[-1]) if reports else None
