"""An event loop whose time passes at once, and a network in it: the same seed, the same run.

Nothing waits for the clock: when nobody has anything to do the time jumps to the next deadline.
What threads would do is done in the loop, some time later. Processes end as by SIGKILL: from then
on nothing of them has any effect.
"""

import asyncio
import contextlib
import contextvars
import errno
import random
import selectors
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web

from vnet_agent.migration import server

T = TypeVar("T")

_EPOCH = 1_800_000_000
#: Of a socket, in bytes.
_ROOM = 1 << 16


class Stalled(AssertionError):
    """Everybody waits, and nobody will ever do anything again."""


class _Jump(selectors.SelectSelector):
    """Never waits: moves the clock instead."""

    def __init__(self, clock: "Clock") -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stalled("nothing is left to happen")
        self._clock.now += max(0.0, timeout)
        return []


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int((_EPOCH + self.now) * 1e9)


class Process:
    """What belongs together and dies together; code of it runs in its context."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ends: list[Wire] = []
        self.ports: list[int] = []
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.get_running_loop().create_task(work, context=self.context)

    def kill(self) -> None:
        self.alive = False
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        for port in self.ports:
            loop.network.listeners.pop(port, None)
        for end in self.ends:
            end.cut()
        for task in self.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task.cancel()


class Dead(Exception):
    """The process that asks for it was killed."""


class Gate:
    """To what is outside of a process: shut when it is dead."""

    def __init__(self, process: Process, target: object) -> None:
        self._process = process
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._process.alive:
                raise Dead(name)
            return found(*args, **kwargs)

        return call


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Wire(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: "Network", protocol: Any, process: Process | None) -> None:
        super().__init__()
        self.other: Wire
        self.process = process
        self._network = network
        self._protocol = protocol
        self._queue: list[bytes] = []
        self._size = 0
        self._at = 0.0
        self._reading = True
        self._paused = False
        self._closing = False
        self._lost = False
        if process is not None:
            process.ends.append(self)

    def connect(self) -> None:
        self._soon(self._protocol.connection_made, self)

    # -- asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1)}.get(name, default)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._network.loop.call_soon(self.other._deliver)

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, _ROOM

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        if self._closing or not data:
            return
        data = bytes(data)
        while data:  # at any place
            cut = self._network.random.randint(1, len(data)) if len(data) < 4096 else len(data)
            self._queue.append(data[:cut])
            data = data[cut:]
        self._size = sum(map(len, self._queue))
        if self._size > _ROOM and not self._paused:
            self._paused = True
            self._protocol.pause_writing()
        self._later(self._deliver)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(bytes(each) for each in list_of_data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._later(self._finish)

    def abort(self) -> None:
        self.cut()

    # -- the network

    def cut(self) -> None:
        for end in (self, self.other):
            end._closing = True
            end._queue.clear()
            end._soon(end._lose, ConnectionResetError(errno.ECONNRESET, "cut"))

    def _later(self, work: Callable[[], None]) -> None:
        self._at = max(self._at, self._network.loop.time() + self._network.delay())
        self._network.loop.call_at(self._at, work)

    def _soon(self, work: Callable[..., Any], *args: Any) -> None:
        """In the context of whose end it is; nothing, if that is dead."""

        def run() -> None:
            if self.process is None or self.process.alive:
                work(*args)

        context = self.process.context if self.process is not None else None
        self._network.loop.call_soon(run, context=context)

    def _deliver(self) -> None:
        if self._network.is_mute(self, self.other):
            return self._network.held.append(self)
        if not self._queue or not self.other._reading or self.other._lost:
            return None
        data = self._queue.pop(0)
        self._size -= len(data)
        self.other._soon(self.other._receive, data)
        if self._paused and self._size < _ROOM // 2:
            self._paused = False
            self._soon(self._protocol.resume_writing)
        if self._queue:
            self._network.loop.call_soon(self._deliver)
        return None

    def _receive(self, data: bytes) -> None:
        if not self._lost:
            self._protocol.data_received(data)

    def _finish(self) -> None:
        if self._queue and not self.other._lost:
            self._deliver()
            self._network.loop.call_later(self._network.delay(), self._finish)
            return
        self._soon(self._lose, None)
        self.other._closing = True
        self.other._soon(self.other._lose, None)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            if error is None:
                self._protocol.eof_received()
            self._protocol.connection_lost(error)


class Network:
    """`mute`: pairs of processes' names between which nothing passes, and nobody is told."""

    def __init__(self, loop: "SimulatedLoop", rng: random.Random) -> None:
        self.loop = loop
        self.random = rng
        self.listeners: dict[int, tuple[Callable[[], Any], Process | None]] = {}
        self.mute: set[frozenset[str]] = set()
        self.held: list[Wire] = []
        self._next_port = 40000

    def delay(self) -> float:
        return self.random.choice((0.0001, 0.001, 0.005, 0.05)) * self.random.random()

    def listen(self, factory: Callable[[], Any], port: int) -> int:
        process = _PROCESS.get()
        if not port:
            port = self._next_port
            self._next_port += 1
        self.listeners[port] = (factory, process)
        if process is not None:
            process.ports.append(port)
        return port

    async def connect(self, factory: Callable[[], Any], port: int) -> Any:
        mine = _PROCESS.get()
        await asyncio.sleep(self.delay())
        accept, theirs = self.listeners.get(port, (None, None))
        if mine is not None and theirs is not None:
            pair = frozenset((mine.name, theirs.name))
            while pair in self.mute:  # noqa: ASYNC110 - no event: the time in here costs nothing
                await asyncio.sleep(0.1)
        if accept is None or (mine is not None and not mine.alive):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens at {port}")
        near = Wire(self, factory(), mine)
        far = Wire(self, accept(), theirs)
        near.other, far.other = far, near
        near._protocol.connection_made(near)
        far.connect()
        return near._protocol

    def is_mute(self, one: Wire, other: Wire) -> bool:
        names = frozenset(each.process.name for each in (one, other) if each.process is not None)
        return names in self.mute

    def unmute(self, pair: frozenset[str]) -> None:
        self.mute.discard(pair)
        held, self.held = self.held, []
        for end in held:
            self.loop.call_soon(end._deliver)

    def cut(self, pair: frozenset[str], processes: list[Process]) -> None:
        """All connections between the two."""
        for process in processes:
            for end in process.ends:
                other = end.other.process
                if process.name in pair and other and other.name in pair and not end._lost:
                    end.cut()


class SimulatedLoop(asyncio.SelectorEventLoop):
    """One for a run; `random` is what decides everything in it."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.clock = clock
        super().__init__(_Jump(clock))
        self.random = random.Random(seed)
        self.network = Network(self, self.random)
        self._busy: dict[object, float] = {}
        self.set_task_factory(_owned)

    def time(self) -> float:
        return self.clock.now

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Each executor does one thing after the other, and each takes some time."""
        process = _PROCESS.get()
        future: asyncio.Future[T] = self.create_future()
        took = self.random.choice((0.0001, 0.001, 0.01)) * self.random.random()
        at = max(self._busy.get(executor, 0.0), self.time()) + took
        self._busy[executor] = at

        def run() -> None:
            if process is not None and not process.alive:
                return
            try:
                result = func(*args)
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_at(at, run)
        return future


def _owned(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    process = _PROCESS.get() if context is None else context.get(_PROCESS)
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task


class _Connector(aiohttp.BaseConnector):
    def __init__(self, **_: Any) -> None:
        super().__init__()

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        del traces
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        try:
            async with asyncio.timeout(timeout.sock_connect):
                return await loop.network.connect(self._factory, req.url.port)
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        except TimeoutError as error:
            raise aiohttp.ServerTimeoutError("no connection") from error


class _Site(web.BaseSite):
    def __init__(self, runner: Any, host: str, port: int, *, ssl_context: Any = None) -> None:
        super().__init__(runner)
        self._address = (host, port)

    @property
    def name(self) -> str:
        return "simulated"

    async def start(self) -> None:
        await super().start()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        port = loop.network.listen(self._runner.server, self._address[1])
        self._server: Any = _Listening((self._address[0], port))


class _Listening:
    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.sockets = [self]

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None: ...


@contextlib.contextmanager
def simulated(seed: int) -> Iterator[SimulatedLoop]:
    """Meanwhile time is the loop's, and so is what aiohttp and the agents' server do."""
    clock = Clock()
    loop = SimulatedLoop(seed, clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", clock.monotonic)
        patch.setattr(time, "time_ns", clock.time_ns)
        patch.setattr(
            uuid, "uuid4", lambda: uuid.UUID(int=loop.random.getrandbits(128), version=4)
        )
        patch.setattr(aiohttp.client, "TCPConnector", _Connector)
        patch.setattr(server.web, "TCPSite", _Site)
        try:
            yield loop
        finally:
            loop.run_until_complete(_end())
            loop.close()


async def _end() -> None:
    for _ in range(10):
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task.cancel()
        await asyncio.sleep(1.0)
