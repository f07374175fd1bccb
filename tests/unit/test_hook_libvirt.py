"""The hook as libvirt runs it: a program of its own, with whatever agent there is or is not."""

import ast
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vnet_agent.hooks import libvirt_hook

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "etc/libvirt/hooks/qemu.d/vnet"
XML = "<domain type='qemu'><name>vm</name>é</domain>"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Agent:
    """A server that takes one request at a time and behaves as `respond` says."""

    def __init__(self, path: Path, respond: Callable[[socket.socket], None]) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._respond = respond
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                line = file.readline().decode()
                length = 0
                while (header := file.readline()) != b"\r\n":
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                self.requests.append((line, json.loads(file.read(length))))
                self._respond(connection)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.conf"
    path.write_text(
        f"[DEFAULT]\n# a comment\napi_socket = {tmp_path}/s\n[hook]\ntimeout_ms=2000\n"
    )
    return path


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    server = Agent(tmp_path / "s", lambda connection: connection.sendall(OK))
    yield server
    server.close()


def run(config: Path | str, *arguments: str, xml: bytes = XML.encode(), **options: object):
    options.setdefault("input", xml)
    return subprocess.run(
        [HOOK, *(arguments or ("vm", "start", "begin", "-"))],
        capture_output=True,
        env={"VNET_AGENT_CONF": str(config), "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        timeout=30,
        **options,
    )


def test_hands_operation_and_xml_to_the_agent(config: Path, agent: Agent) -> None:
    result = run(config, "vm", "migrate", "begin", "-")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    line, fields = agent.requests[0]
    assert line == "POST /v1/hook HTTP/1.1\r\n"
    assert fields == {"domain": "vm", "operation": "migrate", "suboperation": "begin", "xml": XML}


def test_works_as_a_copied_file(config: Path, agent: Agent, tmp_path: Path) -> None:
    copy = tmp_path / "copied"
    copy.write_bytes(HOOK.read_bytes())
    result = subprocess.run(
        [sys.executable, "-IS", copy, "vm", "release", "end", "-"],
        input=XML.encode(),
        capture_output=True,
        env={"VNET_AGENT_CONF": str(config)},
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert agent.requests[0][1]["operation"] == "release"


def assert_quiet_failure(result: "subprocess.CompletedProcess[bytes]", reason: bytes) -> None:
    assert result.returncode == 0
    assert result.stdout == b""
    assert result.stderr.count(b"\n") == 1
    assert reason in result.stderr


def test_agent_down(config: Path) -> None:
    assert_quiet_failure(run(config), b"No such file or directory")


def test_no_configuration(tmp_path: Path) -> None:
    assert_quiet_failure(run(tmp_path / "none"), b"agent at /run/vnet/agent.sock")


def test_agent_that_never_answers(config: Path, tmp_path: Path) -> None:
    text = config.read_text().replace("2000", "100")
    config.write_text(text)
    end = threading.Event()
    server = Agent(tmp_path / "s", lambda connection: end.wait(20) and None)
    assert_quiet_failure(run(config), b"timed out")
    end.set()
    server.close()


def test_deadline_is_for_the_whole_not_for_each_byte(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("2000", "100"))
    end = threading.Event()
    sent = []

    def trickle(connection: socket.socket) -> None:
        try:
            while not end.wait(0.02) and len(sent) < 500:
                connection.sendall(b"x")
                sent.append(1)
        except OSError:
            end.set()

    server = Agent(tmp_path / "s", trickle)
    assert_quiet_failure(run(config), b"agent not told")
    assert len(sent) < 500
    end.set()
    server.close()


def test_agent_that_refuses(config: Path, tmp_path: Path) -> None:
    server = Agent(
        tmp_path / "s", lambda connection: connection.sendall(b"HTTP/1.1 500 Oops\r\n\r\n")
    )
    assert_quiet_failure(run(config), b"answered HTTP/1.1 500 Oops")
    server.close()


def test_agent_that_hangs_up(config: Path, tmp_path: Path) -> None:
    server = Agent(tmp_path / "s", lambda connection: None)
    assert_quiet_failure(run(config), b"hung up")
    server.close()


def test_xml_that_is_too_long_is_left_to_libvirt(config: Path, agent: Agent) -> None:
    result = run(config, xml=b"x" * (libvirt_hook.MAX_XML + 1))
    assert (result.returncode, result.stderr) == (0, b"")
    assert agent.requests[0][1]["xml"] == ""


def test_xml_that_is_no_text(config: Path, agent: Agent) -> None:
    assert run(config, xml=b'<a>\xff\x00"\\</a>').stderr == b""
    assert agent.requests[0][1]["xml"] == '<a>�\x00"\\</a>'


def test_input_that_never_comes(config: Path, agent: Agent) -> None:
    config.write_text(config.read_text().replace("2000", "50"))
    reader, writer = os.pipe()
    try:
        result = run(config, input=None, stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert_quiet_failure(result, b"no XML in time")


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-", ">&-", "2>&-"])
def test_closed_descriptors(config: Path, agent: Agent, closed: str) -> None:
    command = f"exec {HOOK} vm reconnect begin - {closed}"
    result = subprocess.run(
        ["/bin/sh", "-c", command], input=b"", env={"VNET_AGENT_CONF": str(config)}
    )
    assert result.returncode == 0
    assert agent.requests[0][1]["operation"] == "reconnect"


@pytest.mark.parametrize(
    "text",
    [
        "api_socket",
        "[hook]\ntimeout_ms=soon\n",
        "[hook\n=\n==\n:\n[]\n",
        "[DEFAULT]\napi_socket = " + "x" * 5000,
        "\x00\x01",
    ],
)
def test_bad_configuration(config: Path, text: str) -> None:
    config.write_text(text)
    assert_quiet_failure(run(config), b"agent not told")


def test_configuration_that_is_a_directory(tmp_path: Path) -> None:
    assert_quiet_failure(run(tmp_path), b"agent not told")


@pytest.mark.parametrize("arguments", [("vm",), ("a", "b", "c", "d", "e", "f")])
def test_any_number_of_arguments(config: Path, agent: Agent, arguments: tuple[str, ...]) -> None:
    assert run(config, *arguments).stderr == b""
    assert agent.requests[0][1]["domain"] == arguments[0]


def test_nothing_that_prints_reaches_libvirt(config: Path) -> None:
    """Its standard output replaces the XML of a migrating domain."""
    code = (
        "import os; from vnet_agent.hooks import libvirt_hook as hook\n"
        "hook.tell_agent = lambda *_: (print('printed', flush=True), os.write(1, b'written'))\n"
        "hook.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_name_with_line_breaks_stays_one_line(config: Path) -> None:
    assert_quiet_failure(run(config, "a\nb", "start", "begin", "-"), rb"a\nb start begin")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("/run/vnet/agent.sock", 0.2)),
        ("[DEFAULT]\napi_socket: /a=b\n", ("/a=b", 0.2)),
        ("api_socket = '/q'\n[hook]\ntimeout_ms = 99999\n", ("/q", 5.0)),
        ("[hook]\ntimeout_ms=1\napi_socket=/wrong\n", ("/run/vnet/agent.sock", 0.01)),
    ],
)
def test_reads_configuration(config: Path, text: str, expected: tuple[str, float]) -> None:
    config.write_text(text)
    assert libvirt_hook.read_config(str(config)) == expected


def test_time_counts_from_the_start_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    start = ticks / os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(libvirt_hook, "clock_gettime", lambda clock: start + 3.5)
    assert libvirt_hook.process_age() == pytest.approx(3.5)


def test_defaults_are_those_of_the_agent() -> None:
    from vnet_agent import config

    options = {option.name: option.default for option in config.GLOBAL + config.HOOK}
    assert options["api_socket"] == libvirt_hook.SOCKET
    assert options["timeout_ms"] == libvirt_hook.TIMEOUT_MS
    assert config.DEFAULT_FILE == libvirt_hook.CONFIG


def test_imports_only_the_standard_library() -> None:
    tree = ast.parse(HOOK.read_text())
    names = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert {name.split(".")[0] for name in names if name} <= set(sys.stdlib_module_names) | {
        "_socket",
        "_json",
    }
