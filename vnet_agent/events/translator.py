"""From libvirt's news to events: each thing that happened once, and never a false stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from oslo_config import cfg

from vnet_agent.bus import Bus
from vnet_agent.events import causes, lifecycle
from vnet_agent.events.causes import Move
from vnet_agent.events.journal import Recorded
from vnet_agent.events.lifecycle import Outcome
from vnet_agent.events.log import EventLog
from vnet_agent.model.event import Cause, Type
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState
from vnet_agent.version import version

LOG = logging.getLogger(__name__)

#: Whether an instance runs on another host; None if that cannot be told now.
Elsewhere = Callable[[str], Awaitable[bool | None]]

#: Seconds for which a pause is held back: a guest's panic pauses it first.
SETTLE = 0.3
#: Seconds for which live events outweigh a listing that may have been made before them.
FRESH = 3.0


class _Resync(msgspec.Struct, frozen=True):
    domains: Sequence[DomainState]
    age: float
    done: "asyncio.Future[None]"


class _Held(msgspec.Struct):
    event: DomainEvent
    timer: asyncio.TimerHandle


class Translator:
    """Listens on the bus and emits; keeps each instance's last recorded state in the journal.

    `elsewhere` is asked about an instance that vanished while nobody listened; without it, such
    an instance counts as stopped unless it was seen to leave.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        bus: Bus,
        log: EventLog,
        *,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._bus = bus
        self._log = log
        self._elsewhere = elsewhere
        self._window_ns = int(conf.events.reboot_window * 1e9)
        self._recorded: dict[str, Recorded] = {}
        self._ending: dict[str, Cause] = {}
        self._rebooted: dict[str, int] = {}
        self._held: dict[str, _Held] = {}
        self._seen: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._gap = True
        self._in_vain = False
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load the recorded states, tell that the agent is here, and listen.

        The log must be started, and outlive the bus.
        """
        self._recorded = await self._log.recorded()
        await self._log.emit(Type.AGENT_STARTED, None, {"version": version()})
        self._bus.subscribe(object, self._on_news)

    async def close(self) -> None:
        """Tell what is held back."""
        for uuid in list(self._held):
            await self._release(uuid)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def resync(self, domains: Sequence[DomainState], *, age: float = 0.0) -> None:
        """Compare a full listing with what is recorded, and emit the differences as inferred.

        `age` is how long ago libvirt was asked, in seconds: what was told since outweighs it.
        Comes after everything that is on the bus already; returns when the events are durable.
        """
        done = asyncio.get_running_loop().create_future()
        self._bus.publish(_Resync(domains, age, done))
        await done

    async def _on_news(self, news: object) -> None:
        async with self._lock:
            match news:
                case DomainEvent():
                    await self._on_event(news)
                case ConnectionChange():
                    self._gap = True
                    self._seen.clear()  # a listing of the new connection is newer than all that
                case _Resync():
                    await self._on_resync(news)

    # -- live events

    async def _on_event(self, event: DomainEvent) -> None:
        if event.kind == "reboot":
            await self._tell_held(event.uuid)
            await self._on_reboot(event)
        elif event.kind == "lifecycle":
            await self._on_lifecycle(event)
        else:
            return
        self._seen[event.uuid] = asyncio.get_running_loop().time()

    async def _on_reboot(self, event: DomainEvent) -> None:
        before = self._rebooted.get(event.uuid)
        if before is not None and abs(event.time_ns - before) < self._window_ns:
            return
        self._rebooted[event.uuid] = event.time_ns
        self._ending.pop(event.uuid, None)
        crashed = self._state(event.uuid) == lifecycle.CRASHED
        await self._log.emit(
            Type.REBOOTED,
            event.uuid,
            {"name": event.name} | ({"reason": "on_crash"} if crashed else {}),
            cause=Cause.HOST if crashed else Cause.UNKNOWN,
            time_ns=event.time_ns or None,
        )

    async def _on_lifecycle(self, event: DomainEvent) -> None:
        meaning = causes.lifecycle(event.event, event.detail)
        if meaning.move is Move.CRASH:
            self._drop_held(event.uuid)
        else:
            await self._tell_held(event.uuid)
        if meaning.move is Move.ENDING:
            self._ending[event.uuid] = meaning.cause
            return
        state = self._state(event.uuid)
        if (event.event, event.detail) == ("SUSPENDED", "PAUSED") and state == lifecycle.RUNNING:
            self._hold(event)
            return
        if meaning.move is Move.START and self._is_told(event.uuid):
            return  # the listing told of this very start
        ending = self._ending.get(event.uuid)
        outcome = lifecycle.advance(state, meaning, ending)
        await self._tell(event, outcome)
        if outcome.state is None or meaning.move is Move.START:
            self._forget(event.uuid)

    async def _tell(self, event: DomainEvent, outcome: Outcome) -> None:
        data = {"name": event.name, "reason": f"{event.event}/{event.detail}".lower()}
        await self._commit(event.uuid, event.name, outcome, data, event.time_ns or None)

    def _forget(self, uuid: str) -> None:
        self._ending.pop(uuid, None)
        self._rebooted.pop(uuid, None)

    # -- a pause may be the beginning of a crash

    def _hold(self, event: DomainEvent) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(SETTLE, self._release_soon, event.uuid)
        self._held[event.uuid] = _Held(event, timer)

    def _drop_held(self, uuid: str) -> DomainEvent | None:
        held = self._held.pop(uuid, None)
        if held is None:
            return None
        held.timer.cancel()
        return held.event

    async def _tell_held(self, uuid: str) -> None:
        event = self._drop_held(uuid)
        if event is not None:
            meaning = causes.lifecycle(event.event, event.detail)
            await self._tell(event, lifecycle.advance(self._state(uuid), meaning))

    def _release_soon(self, uuid: str) -> None:
        task = asyncio.create_task(self._release(uuid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _release(self, uuid: str) -> None:
        async with self._lock:
            await self._tell_held(uuid)

    # -- after a gap

    async def _on_resync(self, news: _Resync) -> None:
        try:
            differences = await self._compare(news.domains, FRESH + news.age)
            if self._gap or differences:
                data = {"instances": len(self._recorded), "differences": differences}
                await self._log.emit(Type.AGENT_RESYNCED, None, data)
            self._gap = False
        finally:
            if not news.done.done():
                news.done.set_result(None)

    async def _compare(self, domains: Sequence[DomainState], fresh: float) -> int:
        now = asyncio.get_running_loop().time()
        self._seen = {uuid: at for uuid, at in self._seen.items() if now - at < fresh}
        self._started = {uuid: at for uuid, at in self._started.items() if now - at < FRESH}
        listed = {domain.uuid: domain for domain in domains}
        differences = 0
        self._in_vain = False
        for uuid in sorted(listed.keys() | self._recorded.keys()):
            if uuid in self._seen:
                continue
            domain = listed.get(uuid)
            if domain is None:
                outcome = await self._find_out(uuid)
                reason = "not listed"
                name = self._recorded[uuid].name
            else:
                outcome = lifecycle.compare(self._state(uuid), domain)
                reason = f"{domain.state}/{domain.reason}"
                name = domain.name
            if outcome is not None:
                differences += len(outcome.told)
                if any(told.type is Type.STARTED for told in outcome.told):
                    self._started[uuid] = now
                await self._commit(uuid, name, outcome, {"name": name, "reason": reason}, None)
        return differences

    async def _find_out(self, uuid: str) -> Outcome | None:
        state = self._recorded[uuid].state
        elsewhere: bool | None = False
        if self._elsewhere is not None and state not in (lifecycle.INCOMING, lifecycle.LEAVING):
            elsewhere = None if self._in_vain else await self._ask(uuid, self._elsewhere)
            self._in_vain = elsewhere is None
        return lifecycle.missing(state, elsewhere)

    async def _ask(self, uuid: str, elsewhere: Elsewhere) -> bool | None:
        try:
            return await elsewhere(uuid)
        except Exception:
            LOG.exception("Asking where instance %s runs failed", uuid)
            return None

    def _is_told(self, uuid: str) -> bool:
        at = self._started.pop(uuid, None)
        return at is not None and asyncio.get_running_loop().time() - at < FRESH

    # -- recording

    def _state(self, uuid: str) -> str | None:
        recorded = self._recorded.get(uuid)
        return recorded.state if recorded is not None else None

    async def _commit(
        self, uuid: str, name: str, outcome: Outcome, data: dict[str, str], time_ns: int | None
    ) -> None:
        """Emit what the outcome tells; the new state is written together with its last event."""
        new = None if outcome.state is None else Recorded(name=name, state=outcome.state)
        record = {uuid: new} if self._recorded.get(uuid) != new else {}
        if record and not outcome.told:
            await self._log.record(record)
        for told in outcome.told:
            await self._log.emit(
                told.type,
                uuid,
                dict(data),
                cause=told.cause,
                inferred=told.inferred,
                time_ns=time_ns,
                record=record if told is outcome.told[-1] else None,
            )
        if new is None:
            self._recorded.pop(uuid, None)
        else:
            self._recorded[uuid] = new
