"""Events about tags, emitted in order and without holding the inventory up."""

import asyncio
import logging
from typing import Any, Protocol

from vnet_agent.inventory.entry import Entry
from vnet_agent.model.event import Type

LOG = logging.getLogger(__name__)


class EventLog(Protocol):
    """The part of the event log that is needed here."""

    async def emit(
        self, kind: Type, subject: str | None, data: dict[str, Any] | None, /
    ) -> Any: ...


class Announcer:
    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._queue: asyncio.Queue[tuple[Type, str, dict[str, Any]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Emit what waits, within two seconds."""
        if self._task:
            await asyncio.wait([asyncio.create_task(self._queue.join())], timeout=2)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def tagged(self, entry: Entry) -> None:
        self._put(Type.PORT_TAGGED, entry, {"ifindex": entry.ifindex})

    def untagged(self, entry: Entry, reason: str) -> None:
        """`reason` is `tap-gone` or `removed`."""
        self._put(Type.PORT_UNTAGGED, entry, {"reason": reason})

    def _put(self, kind: Type, entry: Entry, more: dict[str, Any]) -> None:
        port = entry.port
        data = {"port": port.uuid, "tap": port.tap, "mac": port.mac, **more}
        self._queue.put_nowait((kind, port.instance, data))

    async def _run(self) -> None:
        while True:
            kind, subject, data = await self._queue.get()
            try:
                await self._events.emit(kind, subject, data)
            except Exception:
                LOG.exception("Event %s of %s was not recorded", kind, subject)
            finally:
                self._queue.task_done()
