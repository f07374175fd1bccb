"""A userspace Open vSwitch with dummy ports, which is asked what becomes of a packet.

It forwards nothing: `ofproto/trace` walks its tables for one packet and tells every rule and the
verdict. Flows and questions go over its sockets, so that a question takes some 60 microseconds.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
BRIDGE = "br0"
#: A daemon that does not answer by then is broken.
PATIENCE_S = 20.0


class Traced(NamedTuple):
    """`path` is (table, priority) of each rule in turn. `fields` are those of the packet as it is
    at the end, as OVS spells them; `actions` those of its datapath. `text` is all that it said."""

    path: tuple[tuple[int, int], ...]
    fields: dict[str, str]
    actions: str
    text: str


class Switch:
    """What runs in a directory; see running()."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._socket = socket.socket(socket.AF_UNIX)

    def connect(self) -> None:
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(self._directory / "switch.ctl"))

    def close(self) -> None:
        self._socket.close()

    def replace(self, flows: Sequence[str]) -> None:
        """All flows of all tables, each as ovs-ofctl(8) has it."""
        self.command("ovs-ofctl", "--bundle", "replace-flows", "MANAGEMENT", "-", lines=flows)

    def command(self, *argv: str, lines: Sequence[str] = ()) -> None:
        management = f"unix:{self._directory}/{BRIDGE}.mgmt"
        done = subprocess.run(
            [
                argv[0],
                "-OOpenFlow15",
                *(management if word == "MANAGEMENT" else word for word in argv[1:]),
            ],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr[:500]}")

    def trace(self, frame: bytes, port: int, **metadata: str) -> Traced:
        """What becomes of a frame on OpenFlow port `port`; ct_state and the like by name."""
        given = "".join(f",{name}={value}" for name, value in metadata.items())
        text = self._ask("ofproto/trace", BRIDGE, f"in_port={port}{given}", frame.hex())
        return _read_trace(text)

    def parse(self, frame: bytes, port: int) -> dict[str, str]:
        """What the switch reads in a frame, spelled as in Traced.fields."""
        text = self._ask("ofproto/trace", BRIDGE, f"in_port={port}", frame.hex())
        return _read_fields(dict(_LINE.findall(text))["Flow"])

    def _ask(self, method: str, *params: str) -> str:
        request = {"id": 0, "method": method, "params": params}
        self._socket.sendall(json.dumps(request).encode())
        received = b""
        while True:
            part = self._socket.recv(1 << 16)
            if not part:
                raise RuntimeError("the switch has closed its control socket")
            received += part
            with contextlib.suppress(ValueError):
                answer = json.loads(received)
                break
        if answer["error"]:
            raise RuntimeError(f"{method} {' '.join(params)}: {answer['error']}")
        return str(answer["result"])


_RULE = re.compile(r"^ *(\d+)\. .*?(?:, )?priority (\d+)", re.MULTILINE)
_LINE = re.compile(r"^(Flow|Final flow|Datapath actions): (.*)$", re.MULTILINE)


def _read_trace(text: str) -> Traced:
    lines = dict(_LINE.findall(text))
    final = lines["Final flow"]
    return Traced(
        path=tuple((int(table), int(priority)) for table, priority in _RULE.findall(text)),
        fields=_read_fields(lines["Flow"] if final == "unchanged" else final),
        actions=lines["Datapath actions"],
        text=text,
    )


def _read_fields(text: str) -> dict[str, str]:
    """A name without a value is that of a protocol."""
    return {name: value for name, _, value in (item.partition("=") for item in text.split(","))}


@contextlib.contextmanager
def running(directory: pathlib.Path, ports: Sequence[int]) -> Iterator[Switch]:
    """A switch with these OpenFlow ports, in an empty directory, until the block ends."""
    environment = os.environ | {
        name: str(directory)
        for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
    }
    database = f"unix:{directory}/db.sock"

    def run(*argv: str) -> None:
        subprocess.run(argv, env=environment, check=True, capture_output=True)

    def start(ready: str, *argv: str) -> subprocess.Popen[bytes]:
        with (directory / "log").open("ab") as log:
            process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
        ending.callback(_end, process)
        _wait_for(directory / ready, process)
        return process

    with contextlib.ExitStack() as ending:
        run("ovsdb-tool", "create", f"{directory}/conf.db", SCHEMA)
        start(
            "db.sock",
            *("ovsdb-server", f"{directory}/conf.db", f"--remote=p{database}"),
            f"--unixctl={directory}/database.ctl",
        )
        run("ovs-vsctl", f"--db={database}", "--no-wait", "init")
        start(
            "switch.ctl",
            *("ovs-vswitchd", database, "--enable-dummy=override", "--disable-system"),
            *("--disable-system-route", f"--unixctl={directory}/switch.ctl"),
        )
        words = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath-type=dummy"]
        words += ["fail-mode=secure", "protocols=OpenFlow15"]
        for port in ports:
            words += ["--", "add-port", BRIDGE, f"p{port}", "--", "set", "interface", f"p{port}"]
            words += ["type=dummy", f"ofport_request={port}"]
        run("ovs-vsctl", f"--db={database}", *words)
        switch = Switch(directory)
        ending.callback(switch.close)
        switch.connect()
        # Fragments match as their kind says, and a first one by its ports.
        switch.command("ovs-ofctl", "set-frags", "MANAGEMENT", "nx-match")
        yield switch


def _wait_for(path: pathlib.Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args!r} does not make {path}")
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
