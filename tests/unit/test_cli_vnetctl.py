"""vnetctl against a real local API: what it prints, and how it fails."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from api_fakes import CONNECTION, PORT, REPORT, VM, Driver, Inventory, Migrations, handler_services

from vnet_agent import config
from vnet_agent.api.server import LocalApi
from vnet_agent.api.services import Services
from vnet_agent.bus import Bus
from vnet_agent.cli import client, shell
from vnet_agent.events.log import EventLog
from vnet_agent.exceptions import DatapathError
from vnet_agent.model.event import Cause, Type
from vnet_agent.policy.store import PolicyStore


class Agent:
    """The local API in a thread of its own, as vnetctl finds it: in another process."""

    def __init__(self, directory):
        self.conf = config.load([], state_dir=str(directory / "state"))
        self.conf.set_override("host", "h1")
        self.socket = str(directory / "agent.sock")
        self.conf.set_override("api_socket", self.socket)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def start(self):
        self.thread.start()
        self.run(self._start())

    async def _start(self):
        self.driver, self.events = Driver(), EventLog(self.conf)
        self.policy = PolicyStore(self.conf)
        await self.events.start()
        self.api = LocalApi(
            Services(
                conf=self.conf,
                inventory=Inventory(),
                driver=self.driver,
                policy=self.policy,
                **handler_services(self.conf, self.driver, Inventory()),
                events=self.events,
                migrations=Migrations(),
                bus=Bus(),
                status=lambda: {"policy_revision": 3, "journal": {"epoch": 1}},
            )
        )
        await self.api.start()

    async def _stop(self):
        await self.api.close()
        await self.events.close()

    def stop(self):
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def emit(self, kind, subject, **how):
        return self.run(self.events.emit(kind, subject, {"name": "vm1"}, **how))


@pytest.fixture
def agent(tmp_path):
    agent = Agent(tmp_path)
    agent.start()
    yield agent
    agent.stop()


@pytest.fixture
def vnetctl(agent, capsys):
    """Runs a command; returns its exit status, stdout and stderr."""

    def run(*words):
        status = shell.main(["--socket", agent.socket, *words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def as_json(vnetctl):
    def run(*words):
        status, out, err = vnetctl(*words, "-f", "json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return run


def test_status(as_json):
    status = as_json("status")
    assert status["host"] == "h1"
    assert status["policy_revision"] == 3
    assert status["events_pending"] == 0
    assert status["journal"] == {"epoch": 1}


def test_port_list(as_json, vnetctl):
    assert as_json("port", "list") == [
        {
            "vm": "vm1",
            "instance": VM,
            "port": PORT.uuid,
            "tap": "tap1",
            "mac": PORT.mac,
            "addresses": ["10.0.0.5"],
            "role": "active",
            "tag": True,
        }
    ]
    _, out, _ = vnetctl("port", "list")
    row = [cell.strip() for cell in out.splitlines()[3].split("|")[1:-1]]
    assert row == ["vm1", VM, PORT.uuid, "tap1", PORT.mac, "10.0.0.5", "active", "yes"]


def test_port_show(as_json, vnetctl, agent):
    shown = as_json("port", "show", "tap1")
    assert shown["drops"] == {"policy": 6}
    assert shown["rx_frames"] == 1
    assert shown["project"] == "acme"
    assert "policy=6" in vnetctl("port", "show", "tap1")[1]
    agent.driver.error = DatapathError(operation="counters", detail="no map")
    shown = as_json("port", "show", "tap1")
    assert (shown["drops"], shown["tap"]) == ({}, "tap1")
    assert "no map" in shown["error"]


def test_conn_list(as_json, vnetctl):
    rows = as_json("conn", "list", "tap1")
    assert len(rows) == 5
    status, out, err = vnetctl("conn", "list", "tap1", "--limit", "3", "-f", "json")
    assert (status, json.loads(out)) == (0, rows[:3])
    assert err == f"There may be more: go on with --cursor {PORT.uuid}/3\n"
    assert rows[0] == {name: getattr(CONNECTION, name) for name in rows[0]}
    assert rows[0]["remote_port"] == 4000


def test_conn_export_import(as_json, agent, tmp_path):
    path = tmp_path / "saved"
    path.write_text("old")
    shown = as_json("conn", "export", "tap1", str(path))
    assert shown == {"port": "tap1", "file": str(path), "record_bytes": 6}
    assert as_json("conn", "import", "tap1", str(path)) == {"moved": 4, "refused": {"policy": 2}}
    assert agent.driver.imported == [(PORT.uuid, b"one"), (PORT.uuid, b"two")]


def test_an_export_that_fails_leaves_the_file(vnetctl, agent, tmp_path):
    path = tmp_path / "saved"
    path.write_text("old")
    agent.driver.error = DatapathError(operation="export", detail="map is gone")
    status, out, err = vnetctl("conn", "export", "tap1", str(path))
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "map is gone" in err
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if "saved" in p.name] == ["saved"]


def test_rules(as_json, vnetctl, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "groups:\n- name: web\n  applies_to: ['*', project:a]\n  rules:\n"
        "  - {direction: ingress, protocol: tcp, ports: 80-443}\n- name: none\n"
    )
    assert as_json("rule", "load", str(path)) == {"groups": 2, "rules": 1}
    web, none = as_json("rule", "list")
    assert (web["group"], web["ports"], web["applies_to"]) == ("web", "80-443", ["*", "project:a"])
    assert (none["group"], none["direction"]) == ("none", None)
    path.write_text("groups:\n- name: web\n  rules: [{direction: up}]\n")
    status, _, err = vnetctl("rule", "load", str(path))
    assert status == 1
    assert err.count("\n") == 1
    assert f"{path}:3: 'up' is not one of ingress, egress" in err
    assert as_json("rule", "list") == [web, none]


def test_a_truth_is_yes_or_no(vnetctl, agent):
    agent.emit(Type.STARTED, "a")
    agent.emit(Type.STARTED, "b", inferred=True)
    _, out, _ = vnetctl("event", "list", "-c", "inferred")
    assert [line.strip("| ") for line in out.splitlines()[3:5]] == ["no", "yes"]


def test_event_list(as_json, agent):
    ids = [agent.emit(Type.STARTED, str(n), cause=Cause.HOST).id for n in range(5)]
    rows = as_json("event", "list", "--limit", "2")
    assert [row["id"] for row in rows] == ids[3:]
    assert rows[0]["data"] == {"name": "vm1"}
    assert (rows[0]["cause"], rows[0]["inferred"]) == ("host", False)
    assert [r["id"] for r in as_json("event", "list", "--after", ids[0], "--limit", "2")] == ids[
        1:3
    ]
    assert len(as_json("event", "list", "--instance", "3")) == 1
    assert as_json("event", "list", "--type", "vnet.instance.stopped") == []


def test_migrations(as_json, vnetctl):
    assert as_json("migration", "list")[0]["phase"] == "done"
    shown = as_json("migration", "show", "m1")
    assert shown["connections_moved"] is None
    assert shown["generation"] == REPORT.generation
    status, _, err = vnetctl("migration", "show", "m2")
    assert (status, err.count("\n")) == (1, 1)
    assert "unknown on this host" in err


@pytest.mark.parametrize(
    "words",
    [
        ("port", "show", "nope/../x"),
        ("conn", "list", "tap1", "--limit", "0"),
        ("conn", "export", "tap1", "/nowhere/file"),
        ("conn", "import", "tap1", "/nowhere/file"),
        ("conn", "import", "tap1", "/dev/null"),
        ("rule", "load", "/nowhere/file"),
        ("event", "list", "--type", "x"),
        ("event", "watch", "--after", "x"),
    ],
)
def test_what_is_wrong_is_one_line(vnetctl, words):
    status, out, err = vnetctl(*words)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_long_file_that_is_refused_at_its_beginning_is_named(vnetctl, tmp_path):
    path = tmp_path / "big"
    path.write_bytes(b"no connections at all" * 1_000_000)
    status, _, err = vnetctl("conn", "import", "tap1", str(path))
    assert (status, err.count("\n")) == (1, 1)
    assert "no stream of connections" in err


@pytest.fixture
def environment(agent):
    environment = {**os.environ, "VNET_API_SOCKET": agent.socket}
    environment.pop("PYTHONWARNINGS", None)
    return environment


def command(*words):
    """vnetctl as the installed script runs it."""
    code = "import sys; from vnet_agent.cli.shell import main; sys.exit(main())"
    return [sys.executable, "-c", code, *words]


def test_watching(agent, environment):
    first = agent.emit(Type.STARTED, VM)
    agent.emit(Type.REBOOTED, VM)
    words = command("event", "watch", "-f", "json", "--after", first.id)
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, text=True) as child:
        try:
            assert json.loads(child.stdout.readline())["type"] == "vnet.instance.rebooted"
            emitted = agent.emit(Type.CRASHED, VM, cause=Cause.GUEST)
            assert json.loads(child.stdout.readline())["id"] == emitted.id
        finally:
            child.terminate()


def test_the_end_of_the_agent_ends_the_watch_with_one_line(agent, environment):
    first = agent.emit(Type.STARTED, VM)
    words = command("event", "watch", "--after", first.id)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=environment, text=True, **pipes) as child:
        agent.emit(Type.CRASHED, VM, cause=Cause.GUEST, inferred=True)
        line = child.stdout.readline()
        assert f"vnet.instance.crashed  {VM}  guest  inferred  vm1" in line
        agent.run(agent.api.close())
        _, err = child.communicate(timeout=20)
    assert child.returncode == 1
    assert err.count("\n") == 1
    assert "does not answer" in err


def test_a_reader_that_leaves_is_no_error(agent, environment):
    words = command("port", "list", "-f", "json")
    done = subprocess.run(
        ["sh", "-c", '"$@" | true', "sh", *words], env=environment, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("left", ["nothing", "stale socket", "file"])
def test_an_agent_that_is_down_is_one_line_and_status_1(tmp_path, left):
    path = tmp_path / "none.sock"
    if left == "stale socket":
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    elif left == "file":
        path.write_text("")
    for words in (["port", "list", "-f", "json"], ["status"], ["event", "watch"]):
        done = subprocess.run(
            command("--socket", str(path), *words), capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert str(path) in done.stderr
        assert "is vnet-agent running?" in done.stderr


def test_a_server_that_speaks_no_http_is_one_line(tmp_path, capsys):
    path = str(tmp_path / "odd.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def answer():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-no\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert shell.main(["--socket", path, "status"]) == 1
        thread.join()
    assert capsys.readouterr().err.count("\n") == 1


def test_where_the_socket_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("VNET_API_SOCKET", raising=False)
    path = tmp_path / "agent.conf"
    monkeypatch.setattr(client, "CONFIG", str(path))
    assert client.find_socket() == "/run/vnet/agent.sock"
    path.write_text("[DEFAULT]\nhost = a%b\napi_socket = /x/y.sock\n[libvirt]\nuri = u\n")
    assert client.find_socket() == "/x/y.sock"
    path.write_text("no configuration = at all\n")
    assert client.find_socket() == "/run/vnet/agent.sock"
    monkeypatch.setenv("VNET_API_SOCKET", "/from/env")
    assert client.find_socket() == "/from/env"


def test_no_command_is_help(capsys):
    assert shell.main([]) == 0
    assert "port list" in capsys.readouterr().out
    assert shell.main(["--socket", "/x"]) == 1
    assert "usage: vnetctl" in capsys.readouterr().err


def test_it_starts_without_the_heavy_rooms():
    code = (
        "import sys; from vnet_agent.cli import shell, port, conn, event, rule, status, migration;"
        "print([m for m in ('aiohttp', 'asyncio', 'oslo_config', 'sqlite3', 'msgspec', 'yaml') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
