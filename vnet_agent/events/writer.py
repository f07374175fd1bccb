"""The one thread that touches the journal: groups commits, and outlasts a bad disk."""

import asyncio
import collections
import itertools
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec

from vnet_agent.events.journal import Draft, Journal, is_damage
from vnet_agent.exceptions import JournalError
from vnet_agent.model.event import Event, Type

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: Most drafts in one transaction.
_GROUP = 256
_RETRY_MIN, _RETRY_MAX = 0.1, 10.0

Committed = Callable[[list[Event]], None]


class _Append(msgspec.Struct):
    draft: Draft
    future: "asyncio.Future[Event | None]"


class _Call(msgspec.Struct):
    function: Callable[[Journal], Any]
    future: "Future[Any]"


class Writer:
    """Runs the journal in a thread of its own.

    Drafts are written in the order of `append`. When the disk refuses (full, read-only, I/O
    errors) one error is logged, and the same drafts are tried until they are written or the
    writer is closed: the callers wait meanwhile. A damaged database is set aside, and a new
    journal begun whose first event says so.
    """

    def __init__(self, journal: Journal, committed: Committed) -> None:
        self._journal = journal
        self._committed = committed
        self._queue: queue.SimpleQueue[_Append | _Call | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._held: collections.deque[_Append | _Call | None] = collections.deque()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepting = False
        self.error: str | None = None

    async def start(self) -> None:
        """Open the journal; raises JournalError if it cannot be opened nor made."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._accepting = True
        try:
            await self.call(self._open)
        except JournalError:
            await self.close()
            raise

    async def close(self) -> None:
        """Write what is queued, once more if the disk refused, and end the thread."""
        self._accepting = False
        if self._loop is None:
            return
        self._closing.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def append(self, draft: Draft) -> Event | None:
        """Return when the draft is durable, or raise JournalError."""
        self._check()
        assert self._loop is not None
        item = _Append(draft, self._loop.create_future())
        self._queue.put(item)
        return await item.future

    async def call(self, function: Callable[[Journal], T]) -> T:
        """Run `function` in the journal's thread, after what was queued before.

        While the disk refuses, it does not wait for that to be written.
        """
        self._check()
        item = _Call(function, Future())
        self._queue.put(item)
        try:
            result: T = await asyncio.wrap_future(item.future)
        except sqlite3.Error as error:
            raise JournalError(detail=f"{self._journal.path}: {error}") from error
        return result

    def _check(self) -> None:
        if not self._accepting:
            raise JournalError(detail=f"{self._journal.path} is not open")

    # -- in the thread

    def _run(self) -> None:
        while True:
            for kind, items in itertools.groupby(self._gather(), key=type):
                if kind is _Append:
                    self._write([item for item in items if isinstance(item, _Append)])
                elif kind is _Call:
                    for item in items:
                        self._run_call(item)
                else:
                    self._journal.close()
                    return

    def _gather(self) -> list[Any]:
        """Everything that is queued by now, at least one item."""
        items = [self._held.popleft() if self._held else self._queue.get()]
        while len(items) < _GROUP:
            try:
                items.append(self._held.popleft() if self._held else self._queue.get_nowait())
            except queue.Empty:
                break
        return items

    def _run_call(self, item: _Call) -> None:
        if not item.future.set_running_or_notify_cancel():
            return
        try:
            item.future.set_result(item.function(self._journal))
        except BaseException as error:
            item.future.set_exception(error)

    def _open(self, journal: Journal) -> None:
        try:
            journal.open()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self._renew(error)
        except OSError as error:
            raise JournalError(detail=f"{journal.path} cannot be made: {error}") from error

    def _renew(self, error: sqlite3.Error) -> None:
        journal = self._journal
        kept = journal.set_aside()
        LOG.error(
            "The event journal is damaged (%s). It was set aside as %s; events in it that the "
            "controller does not have yet can only be recovered by hand. A new journal begins",
            error,
            kept,
        )
        journal.open()
        data = {"reason": "journal damaged", "set_aside": str(kept)}
        first = Draft(type=Type.AGENT_RESYNCED, data=data, time_ns=time.time_ns())
        self._publish(journal.append([first]), [])

    def _write(self, group: list[_Append]) -> None:
        delay = _RETRY_MIN
        while True:
            last_try = self._closing.is_set()
            try:
                events = self._journal.append([item.draft for item in group])
            except (sqlite3.Error, OSError) as error:
                if self._recover(error):
                    continue
                if last_try:
                    self._fail(group, error)
                    return
                self._pause(delay)
                delay = min(delay * 2, _RETRY_MAX)
            except Exception as error:  # a draft that cannot be written must not stop the others
                if len(group) == 1:
                    self._fail(group, error)
                    return
                for item in group:
                    self._write([item])
                return
            else:
                if self.error is not None:
                    LOG.warning("The event journal can be written again")
                    self.error = None
                self._publish(events, group)
                return

    def _pause(self, seconds: float) -> None:
        """Wait for the disk or for `close`; what only asks is answered meanwhile."""
        deadline = time.monotonic() + seconds
        while not self._closing.is_set() and (left := deadline - time.monotonic()) > 0:
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(item, _Call):
                self._run_call(item)
            else:
                self._held.append(item)

    def _recover(self, error: sqlite3.Error | OSError) -> bool:
        """Log the first failure; True when a new journal took a damaged one's place."""
        if isinstance(error, sqlite3.Error) and is_damage(error):
            try:
                self._renew(error)
            except (sqlite3.Error, OSError):
                LOG.exception("A new event journal cannot be begun; trying again")
                return False
            return True
        if self.error is None:
            LOG.error(
                "The event journal %s cannot be written: %s. Events are kept in memory, and "
                "writing is tried again until it succeeds",
                self._journal.path,
                error,
            )
        self.error = str(error)
        return False

    def _fail(self, group: list[_Append], error: Exception) -> None:
        for item in group:
            LOG.error("Not in the event journal (%s): %s", error, item.draft)
        failure = JournalError(detail=f"{self._journal.path}: {error}")

        def fail() -> None:
            for item in group:
                _settle(item.future, failure)

        self._call_soon(fail)

    def _publish(self, events: list[Event | None], group: list[_Append]) -> None:
        def publish() -> None:
            self._committed([event for event in events if event is not None])
            for item, event in zip(group, events, strict=False):
                _settle(item.future, event)

        self._call_soon(publish)

    def _call_soon(self, function: Callable[[], object]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed: nobody waits any more
            LOG.debug("The event loop ended before the journal")


def _settle(future: "asyncio.Future[Event | None]", outcome: Event | Exception | None) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
