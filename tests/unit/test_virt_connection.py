"""The connection against libvirt's own test driver, and against a daemon that fails or hangs."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import libvirt
import pytest

from vnet_agent.bus import Bus
from vnet_agent.exceptions import LibvirtError
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState
from vnet_agent.virt import connection as module
from vnet_agent.virt import names
from vnet_agent.virt.connection import Connection
from vnet_agent.virt.session import Session

URI = "test:///default"
UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"


class Seen:
    """What was published, in order."""

    def __init__(self, bus: Bus) -> None:
        self.values: list[Any] = []
        bus.subscribe(DomainEvent, self.add)
        bus.subscribe(ConnectionChange, self.add)

    async def add(self, value: object) -> None:
        self.values.append(value)

    async def wait(self, wanted: Callable[[Any], bool], count: int = 1) -> Any:
        for _ in range(1000):
            found = [value for value in self.values if wanted(value)]
            if len(found) >= count:
                return found[-1]
            await asyncio.sleep(0.01)
        raise AssertionError(f"not seen; only {self.values}")


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    bus = Bus()
    yield bus
    await bus.close()


@pytest.fixture
async def seen(bus: Bus) -> Seen:
    return Seen(bus)


@pytest.fixture
async def connection(bus: Bus, seen: Seen) -> AsyncIterator[Connection]:
    connection = Connection(bus, uri=URI)
    await connection.start()
    await seen.wait(lambda value: value == ConnectionChange(connected=True))
    yield connection
    await connection.close()


def is_lifecycle(event: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, DomainEvent) and value.event == event


async def test_lists_domains_with_state_and_xml(connection: Connection) -> None:
    (domain,) = await connection.domains()
    assert (domain.uuid, domain.name, domain.state) == (UUID, "test", "running")
    assert domain.xml.startswith("<domain type='test' id='1'>")
    assert await connection.xml(UUID) == domain.xml


async def test_unknown_domain(connection: Connection) -> None:
    with pytest.raises(LibvirtError, match=r"libvirt at test:///default: .*not found"):
        await connection.xml("00000000-0000-4000-8000-000000000000")


async def test_events_become_typed_values(connection: Connection, seen: Seen) -> None:
    assert connection._session is not None
    domain = connection._session._connection.lookupByUUIDString(UUID)
    domain.suspend()
    event = await seen.wait(is_lifecycle("SUSPENDED"))
    assert (event.kind, event.uuid, event.name, event.detail) == (
        "lifecycle",
        UUID,
        "test",
        "PAUSED",
    )
    assert event.time_ns > 0
    assert (await connection.domains())[0].state == "paused"
    domain.resume()
    domain.destroy()
    stopped = await seen.wait(is_lifecycle("STOPPED"))
    assert stopped.detail == "DESTROYED"
    (listed,) = await connection.domains()
    assert (listed.state, listed.reason, listed.xml) == ("shutoff", "destroyed", "")
    kinds = [value.event for value in seen.values if isinstance(value, DomainEvent)]
    assert kinds == ["SUSPENDED", "RESUMED", "STOPPED"]


class FakeSession:
    """A libvirtd whose every call is a step the test decides."""

    opened: list["FakeSession"] = []
    on_open: Callable[[int], None] = staticmethod(lambda number: None)
    numbers = itertools.count()

    def __init__(self, uri: str, *, keepalive: Any, publish: Any, on_close: Any) -> None:
        type(self).on_open(next(self.numbers))
        self.publish = publish
        self.on_close = on_close
        self.closed = False
        self.answer: Callable[[], list[DomainState]] = list
        self.opened.append(self)

    def domains(self) -> list[DomainState]:
        return self.answer()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    class Fresh(FakeSession):
        opened: list[FakeSession] = []
        numbers = itertools.count()

    monkeypatch.setattr(module, "Session", Fresh)
    return Fresh


def is_change(connected: bool) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, ConnectionChange) and value.connected == connected


async def test_comes_back_after_any_close(bus: Bus, seen: Seen, fake: type[FakeSession]) -> None:
    connection = Connection(bus, uri="fake", reconnect_min=0.01)
    await connection.start()
    await seen.wait(is_change(True))
    fake.opened[0].on_close("end of file")
    change = await seen.wait(is_change(False))
    assert change.reason == "end of file"
    await seen.wait(is_change(True), count=2)
    assert fake.opened[0].closed
    assert not fake.opened[1].closed
    await connection.close()
    assert fake.opened[1].closed


async def test_tries_again_until_libvirtd_is_there_and_says_so_once(
    bus: Bus, seen: Seen, fake: type[FakeSession], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(number: int) -> None:
        if number < 3:
            raise libvirt.libvirtError("no socket")

    fake.on_open = staticmethod(refuse)
    connection = Connection(bus, uri="fake", reconnect_min=0.001, reconnect_max=0.002)
    await connection.start()
    with pytest.raises(LibvirtError, match="not connected"):
        await connection.domains()
    await seen.wait(is_change(True))
    assert next(fake.numbers) == 4
    assert caplog.text.count("no socket") == 1
    await connection.close()


async def test_closed_while_still_opening(bus: Bus, seen: Seen, fake: type[FakeSession]) -> None:
    fake.on_open = staticmethod(lambda number: None)
    connection = Connection(bus, uri="fake", reconnect_min=0.01)
    original = fake.__init__

    def open_and_close(self: FakeSession, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        if len(self.opened) == 1:
            self.on_close("at once")

    fake.__init__ = open_and_close  # type: ignore[method-assign]
    await connection.start()
    await seen.wait(is_change(True), count=2)
    assert [value.connected for value in seen.values] == [True, False, True]
    await connection.close()


async def test_a_daemon_that_hangs_hangs_nobody(
    bus: Bus, seen: Seen, fake: type[FakeSession]
) -> None:
    release = threading.Event()
    connection = Connection(bus, uri="fake", reconnect_min=0.01, call_timeout=0.05)
    await connection.start()
    await seen.wait(is_change(True))
    fake.opened[0].answer = lambda: (release.wait(30) and []) or []
    with pytest.raises(LibvirtError, match=r"no answer within 0.05 s"):
        await connection.domains()
    release.set()
    fake.opened[0].answer = list
    assert await connection.domains() == []
    await connection.close()


async def test_stopping_does_not_wait_for_a_daemon_that_hangs_at_opening(
    bus: Bus, fake: type[FakeSession]
) -> None:
    release, entered = threading.Event(), threading.Event()

    def hang(number: int) -> None:
        entered.set()
        release.wait(30)

    fake.on_open = staticmethod(hang)
    connection = Connection(bus, uri="fake")
    await connection.start()
    await asyncio.to_thread(entered.wait, 10)
    await connection.close()
    assert fake.opened == []
    release.set()
    for _ in range(1000):
        if fake.opened and fake.opened[0].closed:
            break
        await asyncio.sleep(0.01)
    assert fake.opened[0].closed


async def test_events_of_the_event_thread_arrive_in_order(
    bus: Bus, seen: Seen, fake: type[FakeSession]
) -> None:
    connection = Connection(bus, uri="fake")
    await connection.start()
    await seen.wait(is_change(True))

    def publish() -> None:
        for number in range(500):
            fake.opened[0].publish(DomainEvent(kind="reboot", uuid=UUID, name=str(number)))

    thread = threading.Thread(target=publish)
    thread.start()
    await seen.wait(lambda value: isinstance(value, DomainEvent), count=500)
    thread.join()
    assert [value.name for value in seen.values[1:]] == [str(n) for n in range(500)]
    await connection.close()


def test_a_session_deregisters_everything_before_it_closes() -> None:
    calls: list[str] = []
    session = Session(URI, keepalive=(1, 3), publish=calls.append, on_close=calls.append)
    real = session._connection

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(real, name)

    session._connection = Recorder()
    session.close()
    assert calls.count("domainEventDeregisterAny") == 8
    assert calls[-1] == "close"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((5, 3), ("STOPPED", "MIGRATED")),
        ((4, 1), ("RESUMED", "MIGRATED")),
        ((6, 1), ("SHUTDOWN", "GUEST")),
        ((8, 0), ("CRASHED", "PANICKED")),
        ((2, 99), ("STARTED", "99")),
        ((77, 1), ("77", "1")),
    ],
)
def test_names_of_lifecycle_events(numbers: tuple[int, int], expected: tuple[str, str]) -> None:
    assert names.lifecycle(*numbers) == expected


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1, 1), ("running", "booted")),
        ((3, 2), ("paused", "migration")),
        ((3, 11), ("paused", "starting-up")),
        ((5, 2), ("shutoff", "destroyed")),
        ((4, 1), ("shutdown", "unknown")),
        ((42, 1), ("nostate", "unknown")),
    ],
)
def test_names_of_states(numbers: tuple[int, int], expected: tuple[str, str]) -> None:
    assert names.state(*numbers) == expected


def test_names_of_jobs() -> None:
    assert names.job_operation(5) == "MIGRATION_OUT"
    assert names.close_reason(2) == "keep-alive time-out"
