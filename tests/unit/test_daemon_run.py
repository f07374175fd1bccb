"""The agent as a process of its own: memory driver, libvirt's test driver, no root."""

import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vnet_agent.cmd.agent import main

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "etc/libvirt/hooks/qemu.d/vnet"
XML = (ROOT / "tests/fuzz/corpus/domain_xml/nova.xml").read_bytes()

CONFIG = """[DEFAULT]
host = h1
state_dir = {directory}/state
api_socket = {directory}/s
[libvirt]
uri = test:///default
[datapath]
driver = memory
[policy]
file = {directory}/policy.yaml
[migration]
listen_port = 0
"""
POLICY = "groups: [{{name: {name}, applies_to: ['*'], rules: [{{direction: egress}}]}}]\n"


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("agent", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


class Agent:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "agent.conf"
        self.config.write_text(CONFIG.format(directory=directory))
        (directory / "policy.yaml").write_text(POLICY.format(name="first"))
        self.log = directory / "log"
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(directory / "notify"))
        self._manager.settimeout(30)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": str(self.directory / "notify")},
            )
        assert self.told() == b"READY=1"

    @property
    def command(self) -> list[str]:
        program = "import sys; from vnet_agent.cmd.agent import main; sys.exit(main())"
        return [sys.executable, "-c", program, "--config-file", str(self.config)]

    def told(self) -> bytes:
        """The next thing that the service manager is told."""
        return self._manager.recv(100)

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(30)

    def get(self, path: str) -> Any:
        connection = Connection(self.directory / "s")
        connection.request("GET", path)
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        return answer

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        self._manager.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.close()


def until(condition: Callable[[], Any]) -> Any:
    for _ in range(1000):
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never became true")


def test_a_life(agent: Agent) -> None:
    agent.start()
    status = until(lambda: (s := agent.get("/v1/status"))["libvirt_connected"] and s)
    assert (status["host"], status["datapath"]) == ("h1", "memory")

    second = subprocess.run(agent.command, capture_output=True, text=True, timeout=30)
    assert second.returncode == 1
    assert f"vnet-agent: another agent (process {agent.process.pid})" in second.stderr

    hook = subprocess.run(
        [HOOK, "vm1", "start", "begin", "-"],
        input=XML,
        capture_output=True,
        env={"VNET_AGENT_CONF": str(agent.config)},
    )
    assert (hook.returncode, hook.stdout, hook.stderr) == (0, b"", b"")
    macs = {"fa:16:3e:00:00:0a", "fa:16:3e:00:00:0b"}
    assert until(lambda: {port["mac"] for port in agent.get("/v1/ports")["ports"]} == macs)

    agent.send(signal.SIGTERM)
    assert agent.told() == b"STOPPING=1"
    assert agent.wait() == 0
    assert "Traceback" not in agent.log.read_text()
    assert not (agent.directory / "s").exists()


def test_starts_again_after_it_was_killed(agent: Agent) -> None:
    agent.start()
    agent.send(signal.SIGKILL)
    agent.wait()
    agent.start()
    started = [e for e in agent.get("/v1/events")["events"] if e["type"] == "vnet.agent.started"]
    assert len(started) == 2


def test_reload(agent: Agent) -> None:
    """A good policy file is taken, a bad one is refused with its line, and the old one stays."""

    def groups() -> list[str]:
        return [group["name"] for group in agent.get("/v1/rules")["groups"]]

    def reload() -> None:
        agent.send(signal.SIGHUP)
        assert agent.told().startswith(b"RELOADING=1")
        assert agent.told() == b"READY=1"

    policy = agent.directory / "policy.yaml"
    agent.start()
    assert groups() == ["first"]
    policy.write_text(POLICY.format(name="second"))
    reload()
    assert groups() == ["second"]
    policy.write_text("groups: [{name: third, rules: [{direction: sideways}]}]")
    reload()
    assert groups() == ["second"]
    assert f"{policy}:1" in agent.log.read_text()


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("listen_port = 0", "listen_port = 70000", "listen_port"),
        ("[policy]", "[policy", "Failed to parse"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_78(
    agent: Agent, capsys: pytest.CaptureFixture[str], before: str, after: str, reason: str
) -> None:
    agent.config.write_text(agent.config.read_text().replace(before, after))
    assert main(["--config-file", str(agent.config)]) == os.EX_CONFIG
    complaint = capsys.readouterr().err
    assert complaint.startswith("vnet-agent: ")
    assert complaint.count("\n") == 1
    assert reason in complaint
    assert "LocationInfo" not in complaint


def test_a_configuration_that_is_not_there(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.config.unlink()
    assert main(["--config-file", str(agent.config)]) == os.EX_CONFIG
    assert str(agent.config) in capsys.readouterr().err


def test_the_controller_is_told_where_the_agent_really_listens(agent: Agent) -> None:
    beats: list[dict[str, Any]] = []

    class Controller(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/hosts/h1":
                beats.append(json.loads(body))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Controller) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with agent.config.open("a") as config:
            config.write(f"[controller]\nurl = http://127.0.0.1:{server.server_port}\n")
            config.write("heartbeat_interval = 0.2\n")
        try:
            agent.start()
            url = agent.get("/v1/status")["migration_url"]
            until(lambda: beats and beats[-1]["migration_url"] == url)
            assert not url.endswith(":0")
        finally:
            server.shutdown()
