"""In-process delivery of typed values: one publisher never waits for a slow subscriber."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Bus:
    """Delivers each published value to the subscribers of its type, in order for each of them.

    `publish` may be called only in the event loop's thread. Every subscription has a queue and a
    task of its own; an exception in a handler is logged and does not end the subscription.
    """

    def __init__(self) -> None:
        self._queues: list[tuple[type, asyncio.Queue[Any]]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def subscribe(self, kind: type[T], handler: Callable[[T], Awaitable[None]]) -> None:
        queue: asyncio.Queue[T] = asyncio.Queue()
        self._queues.append((kind, queue))
        self._tasks.append(asyncio.create_task(self._deliver(queue, handler)))

    def publish(self, value: object) -> None:
        for kind, queue in self._queues:
            if isinstance(value, kind):
                queue.put_nowait(value)

    async def drain(self) -> None:
        """Return when everything published so far has been handled."""
        await asyncio.gather(*(queue.join() for _, queue in self._queues))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @staticmethod
    async def _deliver(queue: asyncio.Queue[T], handler: Callable[[T], Awaitable[None]]) -> None:
        while True:
            value = await queue.get()
            try:
                await handler(value)
            except Exception:
                LOG.exception("Handling %r failed", value)
            finally:
                queue.task_done()
