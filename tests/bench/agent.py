"""A real agent with many ports: its process, libvirt's test driver in place of libvirtd, veths.

Everything is inside the bench's own namespaces. libvirt's test driver reads the VMs, which run as
far as it is concerned, from a file.
"""

import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import Any

from sandbox import BPFFS, RUN, BenchError, command

_CONFIG = """[DEFAULT]
host = bench
state_dir = {directory}/state
api_socket = {directory}/s
[libvirt]
uri = test://{directory}/node.xml
[datapath]
driver = ebpf
pin_dir = {bpffs}/{name}
connection_quota = {quota}
[policy]
file = {directory}/policy.yaml
[migration]
listen_port = 0
"""
_POLICY = """groups:
- name: all
  applies_to: ['*']
  rules: [{direction: egress}, {direction: ingress, protocol: tcp, ports: 7000}]
"""
_DOMAIN = """<domain type='test'><name>vm{number}</name><uuid>{instance}</uuid>
<memory>1024</memory><os><type>hvm</type></os><metadata>
<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>vm</nova:name>
<nova:ports><nova:port uuid='{port}'><nova:ip type='fixed' address='{address}' ipVersion='4'/>
</nova:port></nova:ports></nova:instance></metadata><devices><interface type='ethernet'>
<mac address='{mac}'/><target dev='{tap}' managed='no'/></interface></devices></domain>
"""
_PROGRAM = "import sys; from vnet_agent.cmd.agent import main; sys.exit(main())"
#: Seconds for all ports to be guarded.
_PATIENCE = 180.0


class VirtualMachine:
    """By its number: names of its only port."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.instance = str(uuid.UUID(int=0xA << 124 | 4 << 76 | 8 << 60 | number))
        self.port = str(uuid.UUID(int=0xB << 124 | 4 << 76 | 8 << 60 | number))
        self.tap = f"tap{self.port[:8]}{number}"[:15]
        self.mac = f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}"
        self.address = f"10.9.{number >> 8}.{number & 255}"

    def xml(self) -> str:
        return _DOMAIN.format(**vars(self))


class Agent:
    def __init__(self, process: subprocess.Popen[bytes], directory: pathlib.Path) -> None:
        self.process, self.directory = process, directory
        self.socket = str(directory / "s")

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("agent", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(self.socket)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise BenchError(f"{path}: {answer.status} {text[:200]!r}")
        return json.loads(text)

    def memory(self) -> int:
        """Resident bytes."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise BenchError("the agent's memory is not known")

    def control(self, *words: str) -> str:
        """What vnetctl prints."""
        program = "import sys; from vnet_agent.cli.shell import main; sys.exit(main())"
        return command(sys.executable, "-c", program, "--socket", self.socket, *words)


@contextlib.contextmanager
def running(machines: list[VirtualMachine], *, quota: int) -> Iterator[Agent]:
    """With all ports guarded, by a datapath of its own; BenchError shows the log otherwise."""
    directory = pathlib.Path(tempfile.mkdtemp(dir=RUN))
    lines = "".join(f"link add {vm.tap} type veth peer name p{vm.number}\n" for vm in machines)
    command("ip", "-batch", "-", text=lines)
    node = "".join(vm.xml() for vm in machines)
    (directory / "node.xml").write_text(f"<node>{node}</node>")
    (directory / "policy.yaml").write_text(_POLICY)
    config = _CONFIG.format(directory=directory, bpffs=BPFFS, name=directory.name, quota=quota)
    (directory / "agent.conf").write_text(config)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, "--config-file", str(directory / "agent.conf")],
            stdout=log,
            stderr=log,
            env={name: text for name, text in os.environ.items() if name != "NOTIFY_SOCKET"},
        )
    try:
        agent = Agent(process, directory)
        _wait(agent, len(machines))
        yield agent
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(agent: Agent, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    found = 0
    while found < count:
        if time.monotonic() > deadline or agent.process.poll() is not None:
            tail = (agent.directory / "log").read_text()[-2000:]
            raise BenchError(f"{found} of {count} ports are guarded; the agent's log:\n{tail}")
        time.sleep(0.5)
        with contextlib.suppress(OSError):
            ports = agent.get("/v1/ports")["ports"]
            found = sum(port["local_id"] is not None for port in ports)
