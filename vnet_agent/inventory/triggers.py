"""When the inventory compares: at news, at appointments, and at regular intervals."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

LOG = logging.getLogger(__name__)

#: Seconds in which further news of the same burst are waited for.
BURST = 0.02


class Triggers:
    """Runs `reconcile` and `settle`, each in a loop of its own; only schedules.

    News that come while one runs make it run once more. Exceptions are logged.
    """

    def __init__(
        self,
        reconcile: Callable[[], Awaitable[None]],
        settle: Callable[[], Awaitable[None]],
        *,
        interval: float,
    ) -> None:
        self._reconcile = reconcile
        self._settle = settle
        self._interval = interval
        self._domains = asyncio.Event()
        self._links = asyncio.Event()
        self._appointment: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(self._domains, self._reconcile, self._interval)),
            asyncio.create_task(self._run(self._links, self._settle, None)),
        ]

    async def close(self) -> None:
        if self._appointment:
            self._appointment.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def domains_changed(self) -> None:
        self._domains.set()

    def links_changed(self) -> None:
        self._links.set()

    def reconcile_in(self, seconds: float) -> None:
        """Reconcile then at the latest; of several appointments the earliest holds."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds + BURST
        if self._appointment and not self._appointment.cancelled():
            if loop.time() < self._appointment.when() <= when:
                return
            self._appointment.cancel()
        self._appointment = loop.call_at(when, self.domains_changed)

    @staticmethod
    async def _run(
        event: asyncio.Event, work: Callable[[], Awaitable[None]], interval: float | None
    ) -> None:
        while True:
            try:
                async with asyncio.timeout(interval):
                    await event.wait()
                await asyncio.sleep(BURST)
            except TimeoutError:
                LOG.debug("Comparing after %g s without news", interval)
            event.clear()
            try:
                await work()
            except Exception:
                LOG.exception("Comparing failed; the next news or interval tries again")
