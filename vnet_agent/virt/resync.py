"""Whole listings for whoever keeps a record: after each connect, and at regular intervals."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from vnet_agent.bus import Bus
from vnet_agent.exceptions import LibvirtError
from vnet_agent.model.virt import ConnectionChange, DomainState

LOG = logging.getLogger(__name__)

#: Seconds to the next attempt when a listing failed although libvirtd is there.
RETRY = 1.0

List = Callable[[], Awaitable[Sequence[DomainState]]]


class Consume(Protocol):
    """`age` is how long ago the listing was begun, in seconds."""

    async def __call__(self, domains: Sequence[DomainState], /, *, age: float) -> None: ...


class Resync:
    def __init__(self, bus: Bus, domains: List, consume: Consume, *, interval: float) -> None:
        self._bus = bus
        self._domains = domains
        self._consume = consume
        self._interval = interval
        self._wake = asyncio.Event()
        self._connected = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._bus.subscribe(ConnectionChange, self._on_change)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _on_change(self, change: ConnectionChange) -> None:
        self._connected = change.connected
        self._wake.set()

    async def _run(self) -> None:
        pause = self._interval
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                LOG.debug("A listing is due")
            self._wake.clear()
            pause = self._interval * random.uniform(0.9, 1.1)
            if self._connected and not await self._try():
                pause = min(RETRY, pause)

    async def _try(self) -> bool:
        began = asyncio.get_running_loop().time()
        try:
            domains = await self._domains()
            await self._consume(domains, age=asyncio.get_running_loop().time() - began)
        except LibvirtError as error:
            LOG.warning("No comparison with libvirt: %s", error)
            return False
        except Exception:
            LOG.exception("Comparing with libvirt failed")
        return True
