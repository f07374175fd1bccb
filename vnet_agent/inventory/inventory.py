"""The one owner of this host's ports: domain XML -> Port -> tag and datapath.

News (libvirt's events, rtnetlink, hooks) trigger, a full comparison makes it true. Changes are
made one at a time; listing libvirt's domains, which may take long while a hook of libvirt waits
for this very agent, is no part of them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from oslo_config import cfg

from vnet_agent.bus import Bus
from vnet_agent.datapath.base import Driver
from vnet_agent.exceptions import (
    DomainXmlError,
    LibvirtError,
    PortTaken,
    StaleGeneration,
    VnetError,
)
from vnet_agent.inventory.announce import Announcer, EventLog
from vnet_agent.inventory.changes import Changes
from vnet_agent.inventory.entry import Entry
from vnet_agent.inventory.links import Links
from vnet_agent.inventory.listing import Listing, Running, role_of
from vnet_agent.inventory.table import PolicyStore, Table, snapshot
from vnet_agent.inventory.tagger import Tagger
from vnet_agent.inventory.triggers import Triggers
from vnet_agent.inventory.uplinks import Uplinks
from vnet_agent.model.port import Port, PortState, Role
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState, HookCall
from vnet_agent.virt.xml import parse_ports

LOG = logging.getLogger(__name__)

#: The generation of a port that was never migrated.
FIRST_GENERATION = 1
#: Seconds that a port stays without its domain while a migration may still need it.
HOLD = 120.0


class Domains(Protocol):
    """Where listings come from."""

    async def domains(self) -> list[DomainState]: ...


class Inventory:
    def __init__(
        self,
        conf: cfg.ConfigOpts,
        *,
        bus: Bus,
        driver: Driver,
        policy: PolicyStore,
        events: EventLog,
        links: Links,
        domains: Domains,
    ) -> None:
        self._bus = bus
        self._links = links
        self._domains = domains
        self._linger = conf.libvirt.linger
        self._table = Table(driver, policy, quota=conf.datapath.connection_quota)
        self._announcer = Announcer(events)
        self._tagger = Tagger(driver, links, self._announcer, queue=conf.migration.queue_frames)
        self._uplinks = Uplinks(conf.datapath.uplinks, driver, links)
        self._listing = Listing()
        self._changes = Changes()
        self._sequence = 0
        self._triggers = Triggers(
            self.reconcile, self._settle, interval=conf.libvirt.resync_interval
        )
        self._callbacks: list[Callable[[], None]] = []
        self._shown: tuple[object, ...] = ()

    # -- life

    async def start(self) -> None:
        """Adopt what the datapath holds, then follow the news."""
        await self._links.start()
        self._table.adopt(self._links)
        self._announcer.start()
        self._links.subscribe(self._triggers.links_changed)
        self._bus.subscribe(DomainEvent, self._on_domain_event)
        self._bus.subscribe(ConnectionChange, self._on_connection_change)
        self._bus.subscribe(HookCall, self._on_hook)
        await self._settle()
        self._triggers.start()

    async def close(self) -> None:
        """Stop following; tags and datapath stay as they are."""
        await self._triggers.close()
        await self._changes.close()
        await self._announcer.close()
        await self._links.close()

    # -- what others ask

    def states(self) -> list[PortState]:
        return [entry.state() for entry in self._table]

    def of_instance(self, instance: str) -> list[PortState]:
        return [entry.state() for entry in self._table.of_instance(instance)]

    def get(self, port: str) -> PortState:
        """The port with this UUID, tap name or MAC; raises UnknownPort."""
        return self._table.find(port).state()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """`callback` runs in the event loop after every change of `states`."""
        self._callbacks.append(callback)

    # -- what others order; all raise StaleGeneration for an older owner, and DatapathError

    async def prepare(self, ports: Sequence[Port], *, generation: int) -> None:
        """Arm the ports of a VM that is coming: policy at once, tag and guard with the tap.

        Connections that an earlier stay of the VM left are forgotten.
        """
        await self._changes.run(self._prepare(ports, generation))

    async def activate(self, instance: str, *, generation: int) -> None:
        """The guest runs here: it has arrived, or its migration was given up."""
        await self._changes.run(self._change(instance, Role.ACTIVE, generation, hold=0.0))

    async def mark_moved(self, instance: str, *, generation: int, port: str | None = None) -> None:
        """The guest runs elsewhere; its ports or one stay until `release`, or for two minutes."""
        await self._changes.run(
            self._change(instance, Role.MOVED, generation, hold=HOLD, port=port)
        )

    async def set_generation(self, instance: str, *, generation: int) -> None:
        """A migration of the VM began and owns its ports from now on."""
        await self._changes.run(self._change(instance, None, generation, hold=HOLD))

    async def expect(self, instance: str, *, generation: int) -> None:
        """The VM comes back; unlike `prepare` this keeps the connections of its stay before."""
        await self._changes.run(self._change(instance, Role.STANDBY, generation, hold=HOLD))

    async def release(self, instance: str, *, generation: int) -> None:
        """Forget the VM's ports and their connections, unless they have a newer owner."""
        await self._changes.run(self._release(instance, generation))

    async def apply_policy(self) -> None:
        """Give every port the policy that the store says now."""
        await self._changes.run(self._apply_policy())

    # -- the comparison with libvirt

    async def reconcile(self) -> None:
        """Compare with what libvirt lists, and with the interfaces there are."""
        began = self._sequence
        try:
            listing = self._listing.read(await self._domains.domains())
        except LibvirtError as error:
            LOG.info("Ports stay as they are: %s", error)
            listing = None
        await self._links.refresh()
        await self._changes.run(self._compare(listing, began))

    async def _compare(self, listing: dict[str, Running] | None, began: int) -> None:
        await self._table.notice_roles()
        if listing is not None:
            await self._see(listing, began)
            await self._miss(listing, began)
        for entry in self._table:
            entry.retags = 0
        await self._settle_all()

    async def _see(self, listing: dict[str, Running], began: int) -> None:
        claimed: set[str] = set()
        for running in listing.values():
            for port in running.ports or ():
                entry = self._table.get(port.uuid)
                owner = entry and listing.get(entry.port.instance)
                if owner and owner is not running and port.uuid in _uuids(owner):
                    LOG.error("Port %s of %s is another VM's", port.uuid, port.instance)
                    continue
                if port.uuid in claimed:
                    LOG.error("Port %s of %s is another VM's too", port.uuid, port.instance)
                elif entry is None or entry.touched <= began:
                    await self._see_port(running, port, entry)
                claimed.add(port.uuid)

    async def _see_port(self, running: Running, port: Port, entry: Entry | None) -> None:
        same = entry is not None and entry.port.instance == port.instance
        role = role_of(running, entry.role if entry and same else None)
        generation = entry.generation if entry and same else FIRST_GENERATION
        arrived = entry is not None and entry.role is Role.STANDBY and role is Role.ACTIVE
        try:
            entry = await self._table.put(port, role=role, generation=generation)
        except VnetError as error:
            LOG.error("Port %s of %s: %s", port.uuid, port.instance, error)
            return
        entry.missing_since = None
        if arrived:
            entry.held_until = 0.0

    async def _miss(self, listing: dict[str, Running], began: int) -> None:
        """Forget ports that a whole listing does not have; a VM that is away has some time."""
        now = asyncio.get_running_loop().time()
        there = {port for running in listing.values() for port in _uuids(running)}
        for entry in self._table:
            running = listing.get(entry.port.instance)
            unsure = running is not None and running.ports is None
            if entry.port.uuid in there or entry.touched > began or unsure:
                continue
            if entry.held_until > now:
                self._triggers.reconcile_in(entry.held_until - now)
                continue
            if entry.missing_since is None:
                entry.missing_since = now
            left = entry.missing_since + self._linger - now
            if running is None and left > 0:
                self._triggers.reconcile_in(left)
                continue
            try:
                await self._remove(entry)
            except VnetError as error:
                LOG.error("Port %s of %s: %s", entry.port.uuid, entry.port.instance, error)

    # -- news

    async def _on_domain_event(self, event: DomainEvent) -> None:
        if event.kind == "lifecycle" and event.event == "RESUMED":
            await self._changes.run(self._arrive(event.uuid))
        elif (event.event, event.detail) == ("STOPPED", "MIGRATED"):
            await self._changes.run(self._leave(event.uuid))
        if event.kind in ("lifecycle", "device-added", "device-removed"):
            self._triggers.domains_changed()

    async def _on_connection_change(self, change: ConnectionChange) -> None:
        if change.connected:
            self._triggers.domains_changed()

    async def _on_hook(self, call: HookCall) -> None:
        """Before a guest's first frame its port is guarded: hooks come before libvirt's events.

        The role is standby, which the guest's first frame ends, since the hook does not say
        whether the VM starts here or arrives.
        """
        if call.operation not in ("prepare", "start") or not call.xml:
            self._triggers.domains_changed()
            return
        try:
            ports = parse_ports(call.xml, domain=call.domain)
        except DomainXmlError as error:
            LOG.error("%s; its hook is ignored", error)
            return
        await self._changes.run(self._expect(ports))
        self._triggers.domains_changed()

    # -- changes: only through self._changes

    async def _prepare(self, ports: Sequence[Port], generation: int) -> None:
        for port in ports:
            self._refuse_foreign(self._table.get(port.uuid), port)
        for port in ports:
            before = self._table.get(port.uuid)
            was = before and before.role
            self._refuse_older(before, generation)
            entry = await self._table.put(port, role=Role.STANDBY, generation=generation)
            if was not in (None, Role.STANDBY):
                await self._table.flush(entry, generation=generation)
            self._touch(entry, hold=HOLD)
        await self._settle_all()

    async def _change(
        self,
        instance: str,
        role: Role | None,
        generation: int,
        *,
        hold: float,
        port: str | None = None,
    ) -> None:
        """Of all ports of the VM, or of the one with this UUID."""
        entries = [
            entry
            for entry in self._table.of_instance(instance)
            if port is None or entry.port.uuid == port
        ]
        for entry in entries:
            self._refuse_older(entry, generation)
        for entry in entries:
            await self._table.change(entry, role=role, generation=generation)
            self._touch(entry, hold=hold)
        self._tell()

    async def _release(self, instance: str, generation: int) -> None:
        for entry in self._table.of_instance(instance):
            if entry.generation <= generation:
                await self._remove(entry)
                continue
            LOG.info(
                "Port %s stays: generation %d was released, its owner's is %d",
                entry.port.uuid, generation, entry.generation,
            )  # fmt: skip
        self._tell()

    async def _apply_policy(self) -> None:
        await self._table.apply_policy()
        await self._settle_all()

    async def _arrive(self, instance: str) -> None:
        for entry in self._table.of_instance(instance):
            if entry.role is Role.STANDBY:
                await self._table.change(entry, role=Role.ACTIVE, generation=entry.generation)
                self._touch(entry, hold=0.0)
        self._tell()

    async def _leave(self, instance: str) -> None:
        """The last step of a migration on its source: true even if no session knows of it.

        A port that waits for the VM to come back is of a later migration than this late news.
        Senders here reach the VM by its tap until it is known that they do without.
        """
        await self._table.notice_roles()
        for entry in self._table.of_instance(instance):
            if entry.role is Role.STANDBY:
                continue
            if await self._table.is_followed(entry):
                self._touch(entry, hold=HOLD)
                continue
            await self._table.change(entry, role=Role.MOVED, generation=entry.generation)
            self._touch(entry, hold=HOLD)
        self._tell()

    async def _expect(self, ports: Sequence[Port]) -> None:
        for port in ports:
            if self._table.get(port.uuid) is None:
                entry = await self._table.put(port, role=Role.STANDBY, generation=FIRST_GENERATION)
                self._touch(entry, hold=self._linger)
        await self._settle_all()

    async def _remove(self, entry: Entry) -> None:
        await self._tagger.remove(entry)
        await self._table.remove(entry)

    async def _settle(self) -> None:
        await self._changes.run(self._settle_all())

    async def _settle_all(self) -> None:
        await self._uplinks.settle()
        await self._tagger.settle(list(self._table))
        self._tell()

    def _touch(self, entry: Entry, *, hold: float | None = None) -> None:
        self._sequence += 1
        entry.touched = self._sequence
        entry.missing_since = None
        if hold is not None:
            entry.held_until = asyncio.get_running_loop().time() + hold

    @staticmethod
    def _refuse_foreign(entry: Entry | None, port: Port) -> None:
        """A port of a VM that runs here is not given away because another one's XML names it."""
        if entry is None or entry.port.instance == port.instance:
            return
        if entry.role is Role.ACTIVE and entry.missing_since is None:
            raise PortTaken(port=port.uuid, instance=entry.port.instance)

    @staticmethod
    def _refuse_older(entry: Entry | None, generation: int) -> None:
        if entry is not None and generation < entry.generation:
            raise StaleGeneration(port=entry.port.uuid, given=generation, current=entry.generation)

    def _tell(self) -> None:
        now = snapshot(self._table)
        if now == self._shown:
            return
        self._shown = now
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                LOG.exception("Telling of changed ports failed")


def _uuids(running: Running) -> set[str]:
    return {port.uuid for port in running.ports or ()}
