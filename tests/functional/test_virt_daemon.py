"""The connection against a real libvirtd that restarts, dies and hangs.

The daemon runs as nobody with all its directories in a temporary one, and serves libvirt's test
driver: nothing of the machine's own libvirt is touched.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vnet_agent.bus import Bus
from vnet_agent.exceptions import LibvirtError
from vnet_agent.model.virt import ConnectionChange, DomainEvent
from vnet_agent.virt.connection import Connection

NOBODY = 65534


class Libvirtd:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        config = 'auth_unix_rw="none"\nunix_sock_dir="{}"\n'
        (directory / "libvirtd.conf").write_text(config.format(directory))
        shutil.chown(directory, NOBODY)
        self.uri = f"test+unix:///default?socket={directory}/libvirt-sock"

    def start(self) -> None:
        home = str(self._directory)
        names = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
        self._process = subprocess.Popen(
            ["libvirtd", "-f", f"{home}/libvirtd.conf", "-p", f"{home}/pid"],
            env={"PATH": os.environ["PATH"]} | dict.fromkeys(names, home),
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self._process:
            self.send(signal.SIGCONT)
            self.send(number)
            self._process.wait(30)
            self._process = None


@pytest.fixture
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    directory = Path("/tmp") / f"vnet-test-libvirtd-{os.getpid()}"
    directory.mkdir(mode=0o755)
    daemon = Libvirtd(directory)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(directory)


class Followed:
    """A connection and what it published."""

    def __init__(self, uri: str, call_timeout: float = 30.0) -> None:
        self.bus = Bus()
        self.values: list[Any] = []
        self.connection = Connection(
            self.bus, uri=uri, reconnect_min=0.05, reconnect_max=0.2, keepalive=(1, 2),
            call_timeout=call_timeout,
        )  # fmt: skip

    async def add(self, value: Any) -> None:
        self.values.append(value)

    def changes(self) -> list[bool]:
        return [value.connected for value in self.values if isinstance(value, ConnectionChange)]

    async def until(self, condition: Callable[[], Any]) -> None:
        for _ in range(3000):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"it never became true; seen: {self.values}")


@pytest.fixture
async def followed(libvirtd: Libvirtd) -> AsyncIterator[Followed]:
    followed = Followed(libvirtd.uri)
    followed.bus.subscribe(ConnectionChange, followed.add)
    followed.bus.subscribe(DomainEvent, followed.add)
    await followed.connection.start()
    await followed.until(lambda: followed.changes() == [True])
    yield followed
    await followed.connection.close()
    await followed.bus.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_comes_back_after_a_restart(
    libvirtd: Libvirtd, followed: Followed, number: int
) -> None:
    await asyncio.to_thread(libvirtd.stop, number)
    await followed.until(lambda: followed.changes() == [True, False])
    with pytest.raises(LibvirtError):
        await followed.connection.domains()
    libvirtd.start()
    await followed.until(lambda: followed.changes() == [True, False, True])
    assert [domain.name for domain in await followed.connection.domains()] == ["test"]


async def test_a_hung_daemon_is_found_out_and_hangs_nobody(
    libvirtd: Libvirtd, followed: Followed
) -> None:
    libvirtd.send(signal.SIGSTOP)
    question = asyncio.create_task(followed.connection.domains())
    ticks = 0
    while followed.changes() == [True]:
        await asyncio.sleep(0.01)
        ticks += 1
        assert ticks < 3000
    assert ticks > 10
    with pytest.raises(LibvirtError):
        await question
    libvirtd.send(signal.SIGCONT)
    await followed.until(lambda: followed.changes() == [True, False, True])
    assert await followed.connection.domains()


async def test_stopping_while_the_daemon_hangs(libvirtd: Libvirtd, followed: Followed) -> None:
    libvirtd.send(signal.SIGSTOP)
    question = asyncio.create_task(followed.connection.domains())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await followed.connection.close()
    question.cancel()
    await asyncio.gather(question, return_exceptions=True)


async def test_reconnecting_leaks_no_descriptors(libvirtd: Libvirtd, followed: Followed) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    counts = []
    for number in range(1, 6):
        await asyncio.to_thread(libvirtd.stop)
        await followed.until(lambda n=number: followed.changes().count(False) == n)
        libvirtd.start()
        await followed.until(lambda n=number: followed.changes().count(True) == n + 1)
        counts.append(descriptors())
    assert counts[-1] == counts[0]
