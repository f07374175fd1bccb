"""Blocking calls in one daemon thread, so that a call that never returns hangs nobody.

The executors of the standard library are joined when the process ends, and a call that hangs in
libvirt would then keep the agent from stopping.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs calls one after another; a caller may stop waiting, the call itself goes on."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function` returns or raises; one that is cancelled before its turn never runs."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result, error = None, None
            if future.cancelled():
                return
            try:
                result = function(*arguments)
            except BaseException as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, result, error)

        self._queue.put(work)
        return await future

    def stop(self) -> None:
        """End the thread after the calls that are queued; does not wait."""
        self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
