"""The small parts of the process: one agent per state directory, and what systemd is told."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vnet_agent import config, state_dir, systemd
from vnet_agent.datapath.loader import load_driver
from vnet_agent.exceptions import ConfigError, VnetError


def test_only_one_agent_for_a_state_directory(tmp_path: Path) -> None:
    directory = str(tmp_path / "a" / "b")
    with state_dir.locked(directory):
        with (
            pytest.raises(VnetError, match=f"process {os.getpid()}") as caught,
            state_dir.locked(directory),
        ):
            pass
        assert directory in str(caught.value)
    with state_dir.locked(directory) as path:
        assert path == Path(directory)


def test_a_state_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"state_dir .* cannot be used: "),
        state_dir.locked(str(tmp_path / "file" / "below")),
    ):
        pass


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def test_the_service_manager_is_told(manager: socket.socket) -> None:
    systemd.ready()
    assert manager.recv(100) == b"READY=1"
    systemd.reloading()
    assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    systemd.stopping()
    assert manager.recv(100) == b"STOPPING=1"


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0vnet-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@vnet-test-{os.getpid()}")
        systemd.ready()
        receiver.settimeout(10)
        assert receiver.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/socket"])
def test_no_service_manager(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.ready()


async def test_the_watchdog_is_fed_while_the_loop_turns(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    task = asyncio.create_task(systemd.feed_watchdog())
    for _ in range(3):
        assert await asyncio.to_thread(manager.recv, 100) == b"WATCHDOG=1"
    task.cancel()


@pytest.mark.parametrize(("usec", "pid"), [("", ""), ("x", ""), ("20000", "1")])
async def test_no_watchdog_for_us(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    await asyncio.wait_for(systemd.feed_watchdog(), 10)


def test_a_driver_nobody_offers() -> None:
    conf = config.load([])
    conf.set_override("driver", "warp", group="datapath")
    with pytest.raises(ConfigError, match=r"\[datapath\] driver: there is no 'warp'; known are"):
        load_driver(conf)
