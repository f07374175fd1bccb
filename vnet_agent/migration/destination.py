"""The host that the guest comes to: arms its ports, pulls their state, takes over."""

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Sequence

import msgspec

from vnet_agent import exceptions
from vnet_agent.migration import messages, wire
from vnet_agent.migration.finder import Finder
from vnet_agent.migration.peer import ERRORS, Peer, Refused
from vnet_agent.migration.puller import Puller
from vnet_agent.migration.relay import Relay
from vnet_agent.migration.runner import Context, Runner
from vnet_agent.migration.session import Action, DestinationSession, News
from vnet_agent.migration.source import SourceRunner
from vnet_agent.migration.store import OpenSession
from vnet_agent.model.event import Type
from vnet_agent.model.migration import Phase, Report
from vnet_agent.model.port import Role

LOG = logging.getLogger(__name__)

#: How long the port waits for the source's generation before it is armed without it, in seconds.
_PATIENCE = 0.1
#: Seconds for which the report waits until the connections are counted.
_COUNTING = 5.0
_BACKOFF = (0.05, 0.5)


class DestinationRunner(Runner):
    """One migration to this host.

    `saved` is what a restarted agent goes on from; `floor` is the newest generation of the
    instance that this host knows of. `resumed` says that an earlier process began this session.
    `departing` are migrations away from here, of the same VM, whose state may not all have gone.
    """

    session: DestinationSession

    def __init__(
        self,
        context: Context,
        finder: Finder,
        saved: OpenSession,
        *,
        floor: int = 0,
        resumed: bool = False,
        departing: Sequence[SourceRunner] = (),
    ) -> None:
        super().__init__(
            context,
            DestinationSession(),
            Report(
                id=saved.id,
                instance=saved.instance,
                instance_name=saved.instance_name,
                side="destination",
                source=saved.source_host,
                destination=context.host,
                generation=saved.generation,
            ),
        )
        self.saved = saved
        self.prepared = asyncio.Event()
        self.heard = resumed
        """libvirt has told of the guest that is due; what it told before was of another stay."""
        self.settled = asyncio.Event()
        """All the state that will come has come."""
        self.peer: Peer | None = None
        self._finder = finder
        self._resumed = resumed
        self._was_armed = resumed and saved.generation > 0
        self._floor = saved.generation - 1 if self._was_armed else floor
        self._departing = departing
        self._armed_here = False
        self._arrived_ns: int | None = None
        self._pull: asyncio.Task[None] | None = None
        self._relay: Relay | None = None
        self._relaying: asyncio.Task[None] | None = None
        self._arm_task: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None
        if saved.guest_started:
            self.post(News.GUEST_STARTED)

    def post(self, news: News, detail: str = "") -> None:
        super().post(news, detail)
        if self.over or self.session.final or self.session.lost:
            self.settled.set()

    # -- news from libvirt

    def guest_announced(self) -> None:
        """libvirt's own STARTED/MIGRATED: what it tells from now on is of this session."""
        self.heard = True
        self.guest_started()

    def guest_started(self) -> None:
        if not self.saved.guest_started:
            self.saved.guest_started = True
            self.post(News.GUEST_STARTED)

    def guest_arrived(self, detail: str, time_ns: int = 0) -> None:
        """`time_ns` is when the guest resumed, by the wall clock; 0 when that was not seen."""
        if self._arrived_ns is None and time_ns:
            self._arrived_ns = time_ns
        self.post(News.GUEST_ARRIVED, detail)

    # -- PREPARE

    async def _begin(self) -> None:
        self._arm_task = self.spawn(self._arm(), "arming")
        try:
            await self.context.store.save_session(self.saved)
        except sqlite3.Error as error:
            LOG.error("Migration %s will not survive a restart: %s", self.report.id, error)

    async def _arm(self) -> None:
        opening = asyncio.create_task(self._open())
        try:
            await self._wait_departed()
            await asyncio.wait({opening}, timeout=_PATIENCE)
            if not opening.done():
                await self._prepare(self._floor + 1)
            reply = await opening
        except Exception as error:
            if not isinstance(error, (exceptions.VnetError, Refused, *ERRORS)):
                LOG.exception("Migration %s: asking the source failed", self.report.id)
            await self._prepare(self._floor + 1)
            reason = str(error) or "no answer in time"
            self.post(News.NO_STATE, f"no state from the source: {reason}")
        else:
            if reply.version >= wire.HANDOVER and self.context.conf.migration.hand_over_frames:
                self._relay = Relay(self)
            self.report.source = self.saved.source_host = reply.host
            await self._prepare(max(reply.generation, self._floor) + 1)
            self.post(News.ARMED, f"generation {self.report.generation}, from {reply.host}")
        finally:
            opening.cancel()
            self.prepared.set()

    async def _wait_departed(self) -> None:
        """Arming forgets the connections of the VM's stay before. With a generation of its own
        the session keeps the ports from being released before that."""
        if all(source.departed.is_set() for source in self._departing):
            return
        LOG.info("Migration %s: the state of the VM's stay before has not left", self.report.id)
        self._floor += 1
        if not self.session.arrived:
            await self.context.inventory.expect(self.report.instance, generation=self._floor)
        for source in self._departing:
            await source.departed.wait()

    async def _open(self) -> messages.OpenReply:
        """Find the source and open the session there; the last error prepare_timeout after the
        guest has come. Until then its last host has all, and its agent may only be restarting."""
        patience: float = self.context.conf.migration.prepare_timeout
        delay, deadline = _BACKOFF[0], 0.0
        told = time.monotonic() + patience
        while True:
            if not (self.session.arrived and deadline):
                deadline = time.monotonic() + patience
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    return await self.reopen()
            except (Refused, *ERRORS) as error:
                final = isinstance(error, Refused) and error.status < 500 and error.status != 404
                late = self.session.arrived and time.monotonic() + delay >= deadline
                if final or late:
                    raise
                LOG.info("Migration %s: no answer yet: %s", self.report.id, error)
                if time.monotonic() >= told:
                    told = math.inf
                    self.session.note(f"no answer from the source yet: {error}")
                    self._record_steps()
                self.peer = None
            await asyncio.sleep(delay)
            delay = min(2 * delay, _BACKOFF[1])

    async def reopen(self) -> messages.OpenReply:
        """One attempt; also after the source has restarted and knows nothing of the session."""
        if self.peer is None:
            host, url = self.saved.source_host, self.saved.source_url
            if not url:
                host, url = await self._finder.find(self.report.instance)
            self.peer = self._finder.peer(url, host)
        request = messages.OpenRequest(
            session=self.report.id,
            instance=self.report.instance,
            destination=self.context.host,
            versions=wire.VERSIONS,
            transfer=self.context.conf.migration.transfer_state,
            room=self.context.conf.datapath.connection_quota,
        )
        reply = await self.peer.open(request)
        self.saved.source_url = self.peer.url
        return reply

    async def _prepare(self, generation: int) -> None:
        """Hold the ports with `generation`: STANDBY, unless the guest is here already."""
        report, inventory = self.report, self.context.inventory
        if self.session.over or (generation <= report.generation and self._armed_here):
            return
        first, self._armed_here = not self._armed_here, True
        report.generation = self.saved.generation = generation
        known = inventory.of_instance(report.instance)
        here = self.session.arrived or any(
            state.role is Role.ACTIVE and state.generation == generation for state in known
        )
        try:
            if here:
                await inventory.set_generation(report.instance, generation=generation)
            else:
                await inventory.prepare(self.saved.ports, generation=generation)
            if known and first and not here and not self._was_armed:
                stale = [state.port.uuid for state in known]
                await self.context.in_thread(lambda: self._flush(stale, generation))
        except exceptions.VnetError as error:
            LOG.error("Migration %s: ports are not armed: %s", report.id, error)
            report.error = report.error or str(error)
        self.prepared.set()

    def _flush(self, ports: Sequence[str], generation: int) -> None:
        """What an earlier stay of the VM has left here is older than what comes."""
        for port in ports:
            self.context.driver.flush(port, generation=generation)

    # -- actions

    def _perform_now(self, action: Action) -> bool:
        if action is Action.PULL:
            self._pull = self.spawn(Puller(self).run(), "pull")
            if self._relay is not None and self.peer is not None:
                self._relaying = self.spawn(self._relay.run(self.peer), "relay")
            return True
        if self._relay is not None and action is Action.ACTIVATE:
            self._relay.arrived()
        if self._relay is not None and action is Action.REPLAY:
            self._relay.ready()
        return action in (Action.REPLAY, Action.EXCHANGE_FRAMES)

    async def _perform(self, action: Action) -> None:
        inventory, report = self.context.inventory, self.report
        if action is Action.ACTIVATE:
            # The guest can be faster than the arming.
            generation = max(report.generation, self._floor)
            await inventory.activate(report.instance, generation=generation)
        elif action is Action.ASK_FINAL:
            self.spawn(self.ask_final(), "finalize")
        elif action is Action.TELL_ACTIVE:
            self.spawn(self._tell_active(), "activation")
        elif action is Action.STOP_PULL:
            await self._stop(self._arm_task)
            await self._stop(self._pull)
            if not self.session.arrived:
                await self._stop(self._relaying)
        elif action is Action.RELEASE and report.generation:
            await inventory.release(report.instance, generation=report.generation)
        elif action is Action.CANCEL_SOURCE:
            self.spawn(self._cancel_source(), "cancelling")

    @staticmethod
    async def _stop(task: asyncio.Task[None] | None) -> None:
        """Cancel and wait: after this nothing is imported any more."""
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def ask_final(self) -> None:
        """The guest is here: the source need not wait for its own libvirt to send the rest.

        Not when it has left again: it may run at the source, which must not stop its taps.
        """
        if self.peer is not None and not self.session.failed:
            try:
                await self.peer.finalize(self.report.id)
            except (Refused, *ERRORS) as error:
                LOG.info("Migration %s: finalize: %s", self.report.id, error)

    async def _cancel_source(self) -> None:
        if self.peer is not None:
            try:
                await self.peer.cancel(self.report.id)
            except (Refused, *ERRORS) as error:
                LOG.info("Migration %s: the source was not told: %s", self.report.id, error)

    async def _tell_active(self) -> None:
        """Tell the source until it is done, so that it lets go of the port."""
        delay = _BACKOFF[0]
        while self.peer is not None and not self.session.over:
            try:
                reply = await self.peer.active(self.report.id, left=self.session.failed)
            except (Refused, *ERRORS) as error:
                LOG.info("Migration %s: activation: %s", self.report.id, error)
                forgotten = isinstance(error, Refused) and error.status == 404
                if forgotten and (self.session.final or self.session.lost):
                    self.post(News.SOURCE_DONE)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _BACKOFF[1])
                continue
            self._measure(reply)
            if reply.outcome is messages.Outcome.KEPT:
                return self.post(News.SOURCE_KEPT, reply.detail)
            if reply.outcome is not messages.Outcome.PENDING:
                return self.post(News.SOURCE_DONE)
        return None

    def _measure(self, reply: messages.ActiveReply) -> None:
        """libvirt's downtime if there is one; else both wall clocks, if they are the same."""
        report = self.report
        if reply.downtime_ms is not None:
            report.vcpu_pause_ms = reply.downtime_ms
        elif (
            reply.boot_id == self.context.boot_id
            and reply.suspended_ns is not None
            and self._arrived_ns is not None
            and self._arrived_ns >= reply.suspended_ns
        ):
            report.vcpu_pause_ms = round((self._arrived_ns - reply.suspended_ns) / 1e6, 3)

    # -- what others see

    async def _publish(self, *, last: bool) -> None:
        """Events: each of them once for a session, over restarts too (see `announced`)."""
        if self._announcing is None and (self.prepared.is_set() or last):
            self._announcing = self.spawn(self._announce(), "announcement")
        if not last:
            await self.context.store.save_session(self.saved)
            return
        await self._stop(self._relaying)
        if self._announcing is not None:
            await asyncio.wait({self._announcing})
        if self._pull is not None and self.session.final:  # it may still count
            await asyncio.wait({self._pull}, timeout=_COUNTING)
        done = self.session.phase is Phase.DONE
        self.context.totals.add(self.report)
        await self._emit(Type.MIGRATION_COMPLETED if done else Type.MIGRATION_FAILED)
        await self.context.store.save(self.report)
        await self.context.store.drop_session(self.report.id)

    async def _announce(self) -> None:
        """Beside the session: an event waits for the journal's disk, and the guest does not."""
        if not self.saved.announced:
            await self._emit(Type.MIGRATION_STARTED, time_ns=self.saved.started_ns)
            self.saved.announced = True
            if not self.session.over:
                await self.context.store.save_session(self.saved)

    async def _emit(self, kind: Type, *, time_ns: int | None = None) -> None:
        if self._resumed and await self._was_emitted(kind):
            return
        report = self.report
        data = msgspec.to_builtins(report)
        if kind is Type.MIGRATION_STARTED:
            names = ("id", "instance_name", "source", "destination", "generation")
            data = {name: data[name] for name in names}
        await self.context.events.emit(
            kind, report.instance, data, time_ns=time_ns or time.time_ns()
        )

    async def _was_emitted(self, kind: Type) -> bool:
        after: str | None = None
        while True:
            page = await self.context.events.events(
                after=after, limit=500, types=(kind,), subject=self.report.instance
            )
            if any(event.data.get("id") == self.report.id for event in page):
                return True
            if not page:
                return False
            after = page[-1].id
