"""All migrations of this host: from libvirt's news and the hook to sessions and reports.

Events of a migration come from its destination only, each once: STARTED when the ports are armed,
then COMPLETED with the whole report or FAILED. The source reports its side to the controller.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from oslo_config import cfg

from vnet_agent import exceptions
from vnet_agent.bus import Bus
from vnet_agent.datapath.base import Driver
from vnet_agent.migration import libvirt_news, seams, tls
from vnet_agent.migration.destination import DestinationRunner
from vnet_agent.migration.finder import Finder
from vnet_agent.migration.peer import Client
from vnet_agent.migration.runner import Context, is_over
from vnet_agent.migration.server import Server
from vnet_agent.migration.session import News
from vnet_agent.migration.source import SourceRunner
from vnet_agent.migration.store import OpenSession, Store
from vnet_agent.migration.totals import Totals
from vnet_agent.model.migration import Phase, Report
from vnet_agent.model.port import Port, PortState, Role
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState, HookCall

LOG = logging.getLogger(__name__)

#: The longest that the hook waits for the ports to be armed, in seconds.
_HOOK_WAIT = 0.12
_THREADS = 4
#: The generation of a port that was never migrated.
FIRST_GENERATION = 1
#: Seconds from libvirt's hook `migrate` to its hook `prepare` at most, and hooks that are held.
_DOUBT = 10.0
_MOST_DOUBTS = 64
#: Seconds to the next attempt when libvirt is there but does not list its domains.
_RETRY = 1.0


class Migrations:
    """`parse` reads ports out of a domain XML (default: the virt room's); `domains` lists what
    libvirt has now, to catch up after a gap in its events (without it, such a session waits for
    the next event)."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        bus: Bus,
        inventory: seams.Inventory,
        driver: Driver,
        events: seams.EventLog,
        controller: seams.Controller | None = None,
        *,
        parse: seams.ParsePorts | None = None,
        domains: seams.ListDomains | None = None,
        find_domain: seams.FindDomain | None = None,
    ) -> None:
        self._store = Store(Path(conf.state_dir) / "migrations.db")
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="migration")
        self._context = Context(
            conf,
            inventory,
            driver,
            events,
            controller,
            self._store,
            self._executor,
            find_domain=find_domain,
        )
        self._bus = bus
        self._parse = parse or _parse_ports
        self._domains = domains
        self._incoming: dict[str, DestinationRunner] = {}
        self._server = Server(self._context, self._incoming)
        self._client: Client | None = None
        self._finder: Finder | None = None
        self._unannounced: set[str] = set()
        self._beginning: set[asyncio.Task[None]] = set()
        self._doubtful: dict[str, tuple[float, tuple[Port, ...]]] = {}
        self._catching_up: asyncio.Task[None] | None = None
        self._closed = True

    @property
    def url(self) -> str:
        """Where other agents reach this one, once started."""
        return self._server.url

    async def start(self) -> None:
        """Listen, and go on with what an earlier process began; VnetError when it may not."""
        tls.check_listen(self._context.conf)
        self._client = Client(
            self._context.conf, tls.make_context(self._context.conf, server=False)
        )
        self._finder = Finder(self._context, self._client)
        saved = await self._store.open()
        await self._end_interrupted()
        await self._server.start()
        self._closed = False
        self._bus.subscribe(DomainEvent, self._on_domain_event)
        self._bus.subscribe(ConnectionChange, self._on_connection)
        self._context.inventory.subscribe(self._on_inventory)
        await self._recover(saved)
        LOG.info("Migrations: other agents reach this one at %s", self.url)

    async def close(self) -> None:
        """Stop; sessions stay open on disk, and nothing changes in the datapath."""
        self._closed = True
        waiting = {*self._beginning, *filter(None, [self._catching_up])}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._server.close()
        for session in self._incoming.values():
            await session.close()
        if self._client is not None:
            await self._client.close()
        await self._store.close()
        self._executor.shutdown(wait=False)

    @property
    def totals(self) -> Totals:
        return self._context.totals

    def reports(self) -> list[Report]:
        """The newest last."""
        return self._store.reports()

    def report(self, id: str) -> Report:  # noqa: A002
        """MigrationError when there is none."""
        found = self._store.find(id)
        if found is None:
            raise exceptions.MigrationError(session=id, detail="unknown on this host")
        return found

    async def on_hook(self, call: HookCall) -> None:
        """Before the hook is answered: a coming VM's ports are armed, if that can be done fast."""
        if self._closed:
            return
        if call.operation in ("migrate", "prepare", "start"):
            self._server.let_go(call.domain)
        if call.operation != "migrate":
            if call.operation in ("prepare", "start") and (late := self._accept(call.domain)):
                await self._wait_prepared(late)
            elif call.operation in ("stopped", "release"):
                self._doubtful.pop(call.domain, None)
            self._on_other_hook(call)
            return
        try:
            ports = tuple(self._parse(call.xml))
        except exceptions.DomainXmlError as error:
            LOG.error("Hook migrate of %s: %s", call.domain, error)
            return
        if not ports:
            LOG.info("Hook migrate of %s: it has no ports", call.domain)
            return
        if self._runs_here(ports[0].instance):
            LOG.warning("Hook migrate of %s, which runs here: waiting for libvirt", call.domain)
            self._doubt(call.domain, ports)
            return
        await self._wait_prepared(self._begin(ports))

    @staticmethod
    async def _wait_prepared(session: DestinationRunner) -> None:
        try:
            async with asyncio.timeout(_HOOK_WAIT):
                await session.prepared.wait()
        except TimeoutError:
            LOG.info("Migration %s: goes on in the background", session.report.id)

    # -- libvirt calls the hook before it refuses a domain that it has already

    def _runs_here(self, instance: str) -> bool:
        states = self._context.inventory.of_instance(instance)
        return any(state.role is Role.ACTIVE for state in states)

    def _doubt(self, domain: str, ports: tuple[Port, ...]) -> None:
        self._doubtful.pop(domain, None)
        self._doubtful[domain] = (time.monotonic(), ports)
        while len(self._doubtful) > _MOST_DOUBTS:
            del self._doubtful[next(iter(self._doubtful))]

    def _accept(self, domain: str) -> DestinationRunner | None:
        """libvirt goes on with what was doubtful: the VM was gone from here after all."""
        at, ports = self._doubtful.pop(domain, (0.0, ()))
        if not ports or time.monotonic() - at > _DOUBT:
            return None
        return self._begin(ports)

    # -- sessions

    def _begin(self, ports: tuple[Port, ...], *, generation: int = 0) -> DestinationRunner:
        """A new session; what this host was to the instance before is over."""
        instance = ports[0].instance
        departing = self._server.of_instance(instance)
        for source in departing:
            source.post(News.GUEST_GONE, "the instance comes back")
        old = self._incoming.get(instance)
        if old is not None:
            old.post(News.CANCELLED, "a newer migration of the instance began")
        saved = OpenSession(
            id=str(uuid.uuid4()),
            instance=instance,
            instance_name=ports[0].instance_name,
            ports=ports,
            started_ns=time.time_ns(),
            generation=generation,
        )
        return self._run(saved, resumed=generation > 0, departing=departing)

    def _run(
        self, saved: OpenSession, *, resumed: bool, departing: Sequence[SourceRunner] = ()
    ) -> DestinationRunner:
        assert self._finder is not None
        session = DestinationRunner(
            self._context,
            self._finder,
            saved,
            floor=self._newest_generation(saved.instance),
            resumed=resumed,
            departing=departing,
        )
        over = [name for name, each in self._incoming.items() if each.finished.is_set()]
        for name in over:
            del self._incoming[name]
        self._incoming[saved.instance] = session
        session.start()
        return session

    def _newest_generation(self, instance: str) -> int:
        """The newest that this host knows of: reports remember those that were aborted."""
        held = [s.generation for s in self._context.inventory.of_instance(instance)]
        past = [r.generation for r in self._store.reports() if r.instance == instance]
        return max(held + past, default=0)

    async def _recover(self, saved: Sequence[OpenSession]) -> None:
        """Go on with what was coming here."""
        for open_session in saved:
            report = self._store.find(open_session.id)
            if report is not None and is_over(report):
                await self._store.drop_session(open_session.id)
            else:
                self._run(open_session, resumed=True)
        await self._adopt()
        self._on_inventory()

    async def _end_interrupted(self) -> None:
        """A source's sessions end with its process; the destination opens them anew, and may
        do so as soon as this agent listens."""
        for report in self._store.reports():
            if not is_over(report) and report.side == "source":
                report.phase, report.error = Phase.ABORTED, "the agent was restarted"
                await self._store.save(report)

    async def _adopt(self) -> None:
        """Ports of no session: a standby's is opened anew, what has moved away is released.

        A standby of the first generation is more likely that of a VM that was being started.
        """
        by_instance: dict[str, list[PortState]] = {}
        for state in self._context.inventory.states():
            by_instance.setdefault(state.port.instance, []).append(state)
        for instance, states in by_instance.items():
            generation = max(state.generation for state in states)
            roles = {state.role for state in states}
            if instance in self._incoming:
                continue
            if Role.STANDBY in roles and generation > FIRST_GENERATION:
                self._begin(tuple(state.port for state in states), generation=generation)
            elif Role.MOVED in roles:
                await self._context.inventory.release(instance, generation=generation)

    # -- news

    def _on_other_hook(self, call: HookCall) -> None:
        for session in self._incoming.values():
            if session.report.instance_name != call.domain or session.over:
                continue
            if call.time_ns and call.time_ns < session.saved.started_ns:
                continue
            if call.operation in ("start", "started"):
                session.guest_started()
            elif call.operation in ("stopped", "release"):
                session.post(News.GUEST_DIED, f"hook {call.operation}")

    async def _on_domain_event(self, event: DomainEvent) -> None:
        if self._closed:
            return
        if event.event in ("RESUMED", "STOPPED"):
            self._unannounced.discard(event.uuid)
        if libvirt_news.is_incoming(event) and (late := self._accept(event.name)) is not None:
            late.guest_announced()
        for source in self._server.of_instance(event.uuid):
            libvirt_news.tell_source(source, event)
        session = self._incoming.get(event.uuid)
        if session is not None and not session.over:
            libvirt_news.tell_destination(session, event)
        elif libvirt_news.is_incoming(event):
            self._unannounced.add(event.uuid)
            self._begin_late()
        elif libvirt_news.is_departure(event):
            libvirt_news.tell_statistics(list(self._server.sessions.values()), event)

    def _begin_late(self) -> None:
        """QEMU waits for a guest, and the hook has not said so: begin once its ports are known."""
        for instance in list(self._unannounced):
            states = self._context.inventory.of_instance(instance)
            if states:
                self._unannounced.discard(instance)
                task = asyncio.create_task(self._begin_unannounced(instance))
                self._beginning.add(task)
                task.add_done_callback(self._beginning.discard)

    async def _begin_unannounced(self, instance: str) -> None:
        """The event may have come late, of a QEMU whose end a hook has told already."""
        if self._context.find_domain is not None:
            with contextlib.suppress(exceptions.LibvirtError):
                if not libvirt_news.is_there(await self._context.find_domain(instance)):
                    return
        states = self._context.inventory.of_instance(instance)
        session = self._incoming.get(instance)
        if self._closed or not states or (session is not None and not session.over):
            return
        LOG.warning("The hook did not announce the migration of %s", instance)
        self._begin(tuple(state.port for state in states)).guest_announced()

    async def _on_connection(self, change: ConnectionChange) -> None:
        """After a gap libvirt is asked what is, for each session that is open."""
        if self._catching_up is not None:
            self._catching_up.cancel()
            self._catching_up = None
        if change.connected and self._domains is not None:
            self._catching_up = asyncio.create_task(self._catch_up(self._domains))

    async def _catch_up(self, list_domains: seams.ListDomains) -> None:
        while not self._closed:
            try:
                domains = {domain.uuid: domain for domain in await list_domains()}
            except exceptions.LibvirtError as error:
                LOG.warning("Open migrations are not compared yet: %s", error)
                await asyncio.sleep(_RETRY)
            else:
                self._tell_listed(domains)
                return

    def _tell_listed(self, domains: Mapping[str, DomainState]) -> None:
        for source in self._server.sessions.values():
            libvirt_news.resync_source(source, domains.get(source.report.instance))
        for session in self._incoming.values():
            libvirt_news.resync_destination(session, domains.get(session.report.instance))
        self._unannounced.update(d.uuid for d in domains.values() if self._comes_here(d))
        self._begin_late()

    def _comes_here(self, domain: DomainState) -> bool:
        """Its hook and its events have not been seen, and it is not leaving."""
        session = self._incoming.get(domain.uuid)
        states = self._context.inventory.of_instance(domain.uuid)
        return (
            libvirt_news.waits_for_guest(domain)
            and (session is None or session.over)
            and all(state.role is Role.STANDBY for state in states)
        )

    def _on_inventory(self) -> None:
        """The datapath makes a port ACTIVE itself at the guest's first frame."""
        if self._closed:
            return
        self._begin_late()
        for session in list(self._incoming.values()):
            if session.over or not session.report.generation:
                continue
            for state in self._context.inventory.of_instance(session.report.instance):
                newest = state.generation >= session.report.generation
                if state.role is Role.ACTIVE and newest:
                    session.guest_arrived("the guest sent a frame")
                    break


def _parse_ports(xml: str) -> Sequence[Port]:
    from vnet_agent.virt.xml import parse_ports

    return parse_ports(xml)
