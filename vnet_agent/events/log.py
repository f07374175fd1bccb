"""The way to say that something happened: durable when `emit` returns, and in order."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from oslo_config import cfg

from vnet_agent.events.journal import SEQUENCE_WIDTH, Draft, Journal, Recorded
from vnet_agent.events.writer import Writer
from vnet_agent.exceptions import UnknownEvent
from vnet_agent.model.event import Cause, Event, Type

LOG = logging.getLogger(__name__)

#: Events that a subscriber may lag behind before its subscription ends.
_LAG = 10_000
#: Events between two attempts to trim a journal that nobody acknowledges.
_TRIM_EVERY = 256

_ID = re.compile(rf"(.+)/([0-9]{{1,15}})/([0-9]{{{SEQUENCE_WIDTH}}})\Z")


class EventLog:
    """This host's events: journal, history, and news for subscribers.

    `start` and `close` bracket everything else; outside of them JournalError is raised.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._host: str = conf.host
        self._keep: int = conf.events.journal_size
        self._journal = Journal(Path(conf.state_dir) / "events.db", host=conf.host)
        self._writer = Writer(self._journal, self._committed)
        self._subscriptions: set[Subscription] = set()
        self._sinks: frozenset[str] = frozenset()
        self._signals: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._trimmed = 0

    # -- life

    async def start(self) -> None:
        """Open the journal. Raises JournalError."""
        await self._writer.start()

    async def close(self) -> None:
        """Write what was emitted; end the subscriptions."""
        for subscription in list(self._subscriptions):
            await subscription.aclose()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._writer.close()

    @property
    def epoch(self) -> int:
        return self._journal.epoch

    def status(self) -> dict[str, Any]:
        """For `vnetctl status`: epoch, last sequence, and what the disk says, if it refuses."""
        return {"epoch": self.epoch, "last": self._journal.last, "error": self._writer.error}

    # -- writing

    async def emit(
        self,
        type: Type,  # noqa: A002
        subject: str | None,
        data: dict[str, Any] | None = None,
        *,
        cause: Cause = Cause.UNKNOWN,
        inferred: bool = False,
        time_ns: int | None = None,
        record: Mapping[str, Recorded | None] | None = None,
    ) -> Event:
        """Write one event, and with it, in the same transaction, recorded states.

        Returns when it is durable, which on a disk that refuses is when the disk takes it.
        `subject` and `data` must be JSON (TypeError, ValueError). `time_ns`: when it happened, ns
        since 1970; None is now.
        """
        subject, data = msgspec.json.decode(msgspec.json.encode((subject, data or {})))
        draft = Draft(
            type=type,
            subject=subject,
            data=data,
            cause=cause,
            inferred=inferred,
            time_ns=time.time_ns() if time_ns is None else time_ns,
            record=dict(record or {}),
        )
        event = await self._writer.append(draft)
        assert event is not None
        return event

    async def record(self, states: Mapping[str, Recorded | None]) -> None:
        """Change recorded states without an event; None forgets the instance."""
        await self._writer.append(Draft(record=dict(states)))

    def _committed(self, events: Sequence[Event]) -> None:
        for subscription in list(self._subscriptions):
            subscription.put(events)
        for signal in self._signals:
            signal.set()
        for event in events:
            LOG.info("%s %s %s", event.type, event.subject or "", event.id)
        if not self._sinks and self._journal.last - self._trimmed >= _TRIM_EVERY:
            self._trimmed = self._journal.last
            task = asyncio.create_task(self._trim())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _trim(self) -> None:
        await self._writer.call(lambda journal: journal.trim(self._sinks, keep=self._keep))

    # -- reading

    async def events(
        self,
        *,
        after: str | None = None,
        limit: int = 100,
        types: Iterable[str] = (),
        subject: str | None = None,
        latest: bool = False,
    ) -> list[Event]:
        """At most `limit` events after the one with the id `after`, in order.

        With `latest` the last ones instead of the first. Raises UnknownEvent for a foreign id.
        """
        wanted = tuple(types)

        def read(journal: Journal) -> list[Event]:
            number = 0 if after is None else self._number(after)
            return journal.read(
                after=number, limit=limit, types=wanted, subject=subject, latest=latest
            )

        return await self._writer.call(read)

    def _number(self, identity: str) -> int:
        match = _ID.match(identity)
        if match is None or match[1] != self._host or int(match[2]) > self.epoch:
            raise UnknownEvent(event=identity)
        return int(match[3]) if int(match[2]) == self.epoch else 0

    async def recorded(self) -> dict[str, Recorded]:
        """The last recorded state of each instance that is not off."""
        return await self._writer.call(Journal.instances)

    def subscribe(self) -> "Subscription":
        """Every event from now on. Ends with `close`, or when the reader lags far behind."""
        return Subscription(self._subscriptions)

    # -- delivery

    def set_sinks(self, names: Iterable[str]) -> None:
        """Who must have acknowledged an event before it may be trimmed."""
        self._sinks = frozenset(names)

    def signal(self) -> asyncio.Event:
        """An event of asyncio's that is set whenever there is something new to deliver."""
        signal = asyncio.Event()
        self._signals.append(signal)
        return signal

    async def pending(self) -> int:
        """How many events not every sink has acknowledged; 0 without sinks."""
        if not self._sinks:
            return 0
        return await self._writer.call(
            lambda journal: journal.last - min(map(journal.acknowledged, self._sinks))
        )

    async def unacknowledged(self, sink: str, limit: int) -> list[Event]:
        """The oldest events that `sink` does not have."""
        return await self._writer.call(
            lambda journal: journal.read(after=journal.acknowledged(sink), limit=limit)
        )

    async def acknowledge(self, sink: str, event: Event) -> None:
        """`sink` has this event and all before it; trims what nobody waits for any more."""

        def acknowledge(journal: Journal) -> None:
            if event.epoch == journal.epoch:
                journal.acknowledge(sink, int(event.sequence))
                journal.trim(self._sinks, keep=self._keep)

        await self._writer.call(acknowledge)


class Subscription(AsyncIterator[Event]):
    """A reader's queue of news; registered as soon as it is made."""

    def __init__(self, registry: "set[Subscription]") -> None:
        self._registry = registry
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        registry.add(self)

    def put(self, events: Sequence[Event]) -> None:
        if self._queue.qsize() + len(events) > _LAG:
            LOG.warning("A reader of events lags %d behind; its stream ends", self._queue.qsize())
            self._end()
            return
        for event in events:
            self._queue.put_nowait(event)

    async def __anext__(self) -> Event:
        event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)  # for a further call
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        self._end()

    def _end(self) -> None:
        if self in self._registry:
            self._registry.discard(self)
            self._queue.put_nowait(None)
