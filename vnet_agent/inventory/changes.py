"""One change at a time, and each to its end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Changes:
    """Runs coroutines one after another, in the order of the calls.

    A caller that is cancelled stops waiting, but its change goes on: half of one would leave the
    datapath with a port that nobody knows of.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, change: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(self._run(change))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Return when those that were begun have ended."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self, change: Coroutine[Any, Any, T]) -> T:
        async with self._lock:
            return await change
