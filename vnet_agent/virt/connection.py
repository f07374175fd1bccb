"""The agent's connection to libvirtd: comes back by itself, and never blocks the event loop."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt
from oslo_config import cfg

from vnet_agent.bus import Bus
from vnet_agent.exceptions import LibvirtError
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState
from vnet_agent.virt.session import Session
from vnet_agent.virt.worker import Worker

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for one question; a slow hook of any VM holds libvirtd's listings up for as long.
CALL_TIMEOUT = 30.0


class Connection:
    """Publishes DomainEvent and ConnectionChange on the bus while it is started.

    All callbacks are armed before `ConnectionChange(connected=True)` is published: what happens
    after a listing that follows it will be told.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        uri: str,
        reconnect_min: float = 0.2,
        reconnect_max: float = 15.0,
        keepalive: tuple[int, int] = (1, 3),
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._bus = bus
        self._uri = uri
        self._pauses = (reconnect_min, max(reconnect_min, reconnect_max))
        self._keepalive = keepalive
        self._call_timeout = call_timeout
        self._worker = Worker("libvirt-calls")
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts, bus: Bus) -> "Connection":
        options = conf.libvirt
        return cls(
            bus,
            uri=options.uri,
            reconnect_min=options.reconnect_min,
            reconnect_max=options.reconnect_max,
            keepalive=(options.keepalive_interval, options.keepalive_count),
        )

    @property
    def connected(self) -> bool:
        return self._session is not None

    async def start(self) -> None:
        """Connect in the background, now and after every loss."""
        self._task = asyncio.create_task(self._stay_connected())

    async def close(self) -> None:
        self._stopped = True
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        session, self._session = self._session, None
        if session:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._worker.call(session.close), 2)
        self._worker.stop()

    async def domains(self) -> list[DomainState]:
        """All domains of the host, also inactive ones; LibvirtError when libvirtd is away."""
        return await self._ask(lambda session: session.domains())

    async def xml(self, uuid: str) -> str:
        """The XML of one domain; LibvirtError when it or libvirtd is away."""
        return await self._ask(lambda session: session.xml(uuid))

    async def _ask(self, question: Callable[[Session], T]) -> T:
        session = self._session
        if session is None:
            raise LibvirtError(uri=self._uri, detail="not connected")
        try:
            return await asyncio.wait_for(self._worker.call(question, session), self._call_timeout)
        except TimeoutError:
            detail = f"no answer within {self._call_timeout:g} s"
            raise LibvirtError(uri=self._uri, detail=detail) from None
        except libvirt.libvirtError as error:
            raise LibvirtError(uri=self._uri, detail=str(error)) from None

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        shortest, longest = self._pauses
        pause = shortest
        told = ""
        while True:
            since = loop.time()
            refusal = ""
            try:
                await self._live_once(loop)
                if loop.time() - since > longest:
                    pause = shortest
            except libvirt.libvirtError as error:
                refusal = str(error)
            except Exception:
                LOG.exception("The connection to libvirt at %s failed", self._uri)
            if refusal and refusal != told:
                LOG.warning("No connection to libvirt at %s, trying on: %s", self._uri, refusal)
            told = refusal
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, longest)

    async def _live_once(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open a session and return when it has ended; libvirtError when it does not open."""
        ended: asyncio.Future[str] = loop.create_future()

        def end(reason: str) -> None:
            if not ended.done():
                ended.set_result(reason)

        # A daemon that accepts and then hangs keeps this waiting, at the cost of one idle thread,
        # until it answers or dies: both end the call.
        session = await self._worker.call(
            self._open, _threadsafe(loop, self._bus.publish), _threadsafe(loop, end)
        )
        self._session = session
        LOG.info("Connected to libvirt at %s", self._uri)
        self._bus.publish(ConnectionChange(connected=True))
        reason = await ended
        self._session = None
        LOG.warning("Lost libvirt at %s: %s", self._uri, reason)
        self._bus.publish(ConnectionChange(connected=False, reason=reason))
        await self._worker.call(session.close)

    def _open(
        self, publish: Callable[[DomainEvent], None], on_close: Callable[[str], None]
    ) -> Session:
        session = Session(self._uri, keepalive=self._keepalive, publish=publish, on_close=on_close)
        if self._stopped:
            session.close()
        return session


def _threadsafe(
    loop: asyncio.AbstractEventLoop, function: Callable[[Any], None]
) -> Callable[[Any], None]:
    """The same function, callable in any thread; without effect once the loop is closed."""

    def call(value: Any) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(function, value)

    return call
