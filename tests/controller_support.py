"""A controller for tests: the real application on a database of its own, and events to post."""

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from vnet_controller import config
from vnet_controller.server import Server

VM = "0a7b6ad4-1111-4000-8000-000000000001"

_ids = itertools.count(1)


def make_event(kind: str = "started", host: str = "alpha", **fields: Any) -> dict[str, Any]:
    """An event as an agent sends it; each next one of the process has a higher sequence."""
    number = fields.pop("number", None) or next(_ids)
    epoch = fields.pop("epoch", 1)
    second = fields.pop("second", number)
    moment = f"2026-03-01T{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}.000000Z"
    event = {
        "specversion": "1.0",
        "id": f"{host}/{epoch}/{number:016}",
        "source": f"/hosts/{host}",
        "type": f"vnet.instance.{kind}",
        "time": moment,
        "sequence": f"{number:016}",
        "epoch": epoch,
        "subject": VM,
        "inferred": False,
        "cause": "unknown",
        "datacontenttype": "application/json",
        "data": {"name": "web-1"},
    }
    return event | fields


def make_report(**fields: Any) -> dict[str, Any]:
    report = {
        "id": "m-1",
        "instance": VM,
        "instance_name": "web-1",
        "side": "destination",
        "source": "alpha",
        "destination": "beta",
        "generation": 1,
        "phase": "done",
        "steps": [{"phase": "prepare", "time_ns": 1_767_225_600_000_000_000, "detail": "asked"}],
    }
    return report | fields


def make_port(**fields: Any) -> dict[str, Any]:
    port = {
        "uuid": "0a7b6ad4-2222-4000-8000-000000000001",
        "instance": VM,
        "instance_name": "web-1",
        "tap": "tap0",
        "mac": "52:54:00:00:00:01",
        "role": "active",
        "generation": 0,
        "tagged": True,
        "ifindex": 7,
    }
    return port | fields


def make_config(directory: Path, **options: Any) -> Any:
    """`section__name` of `options` sets an option of a section."""
    conf = config.load(["--config-dir", str(directory)])
    conf.set_override("listen_port", 0)
    url = f"sqlite+aiosqlite:///{directory}/controller.db"
    conf.set_override("connection", url, group="database")
    for name, value in options.items():
        section, _, option = name.rpartition("__")
        conf.set_override(option, value, group=section or None)
    return conf


@asynccontextmanager
async def run_controller(directory: Path, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose paths begin at the controller."""
    async with run_server(directory, **options) as (_, session):
        yield session


@asynccontextmanager
async def run_server(
    directory: Path, **options: Any
) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    server = Server(make_config(directory, **options))
    try:
        await server.start()
        host, port = server.addresses[0]
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            yield server, session
    finally:
        await server.close()


async def call(
    session: aiohttp.ClientSession, method: str, path: str, expect: int = 200, **options: Any
) -> Any:
    """The decoded answer; fails when the status is another one."""
    async with session.request(method, path, **options) as response:
        body = await response.json() if response.content_length else None
        assert response.status == expect, body
        return body


async def post_events(session: aiohttp.ClientSession, *events: dict[str, Any]) -> Any:
    return await call(session, "POST", "/v1/events", json=list(events))


async def read_stream(
    response: aiohttp.ClientResponse, count: int
) -> list[tuple[int, dict[str, Any]]]:
    """The next `count` messages of a stream of server-sent events, as (id, data)."""
    messages: list[tuple[int, dict[str, Any]]] = []
    fields: dict[str, str] = {}
    while len(messages) < count:
        line = (await asyncio.wait_for(response.content.readline(), 20)).decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            messages.append((int(fields["id"]), json.loads(fields["data"])))
            fields = {}
        else:
            fields = {}
    return messages


async def wait_until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Poll; fails when the condition does not come true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "it never became true"
        await asyncio.sleep(0.02)


class ControllerProcess:
    """The real program on a database and a port of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, section: str = "", line: str = "", **environment: str) -> None:
        """Return when it answers; fails with its log when it does not start.

        `line` in `section` overrides the usual configuration.
        """
        self.port = find_free_port()
        path = self.directory / "controller.conf"
        path.write_text(
            f"[DEFAULT]\nlisten_port = {self.port}\nhost_timeout = 3600\n"
            f"[database]\nconnection = sqlite+aiosqlite:///{self.directory}/controller.db\n"
            f"[{section or 'DEFAULT'}]\n{line}\n"
        )
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vnet_controller.cmd", "--config-file", str(path)],
                stdout=log,
                stderr=log,
                env=os.environ | environment,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            log_text = (self.directory / "log").read_text()
            assert self.process.poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def call(self, method: str, path: str, value: Any = None) -> Any:
        body = json.dumps(value).encode() if value is not None else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(30)
        self.process = None
        return status

    def clean_up(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
