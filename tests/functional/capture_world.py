"""Two VMs on real taps, the local API over the kernel's datapath, vnetctl and tshark to look."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from datapath_bench import INSTANCE, VM, VM4, VM6
from datapath_taps import Tap
from datapath_world import eventually
from sight_agent import Agent

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import Role

A, B = "11111111-0000-4000-8000-00000000000a", "11111111-0000-4000-8000-00000000000b"
MAC_B, B4 = "52:54:00:00:00:02", "10.0.0.2"

VNETCTL = "import sys; from vnet_agent.cli.shell import main; sys.exit(main())"
#: Of a packet, as `tshark -T fields` gives them, tabs between them.
FIELDS = ("frame.interface_name", "frame.len", "frame.cap_len", "frame.comment")


class Taps:
    """VMs a and b, on the taps that the agent calls tap1 and tap2."""

    def __init__(self, bpffs: str) -> None:
        self.a, self.b = Tap("tap1"), Tap("tap2")
        self.pin_dir = os.path.join(bpffs, "vnet")
        self.driver = EbpfDriver(pin_dir=self.pin_dir, max_ports=8)
        self.driver.open()
        self.set_up()

    def set_up(self) -> None:
        for port, mac, addresses, tap in (
            (A, VM, (VM4, VM6), self.a),
            (B, MAC_B, (B4,), self.b),
        ):
            self.driver.set_port(
                port,
                instance=INSTANCE,
                mac=mac,
                addresses=addresses,
                network=0,
                bridged=False,
                role=Role.ACTIVE,
                generation=1,
                quota=1000,
            )
            self.driver.set_policy(port, ALLOW_ALL)
            self.driver.attach(port, tap.ifindex)


class CaptureWorld:
    """`ctl` is vnetctl in a process; its capture goes to a file, or to a pipe."""

    def __init__(self, bpffs: str, **options: int) -> None:
        self.taps = Taps(bpffs)
        self.directory = Path(bpffs).parent
        self.agent = Agent(self.directory, None, self.taps)
        for name, value in options.items():
            self.agent.conf.set_override(name, value, group="capture")

    def ctl(self, *words: str, **how: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", VNETCTL, "--socket", self.agent.socket, *words]
        return subprocess.Popen(command, stderr=subprocess.PIPE, **how)

    def begin(self, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
        """A capture into a file, once it runs."""
        path = self.directory / f"{len(list(self.directory.iterdir()))}.pcapng"
        process = self.ctl("capture", "-w", str(path), *words)
        self.wait_running()
        return process, path

    def wait_running(self) -> None:
        """The last of what a capture sets up is a flag of each of its ports."""
        kernel = self.taps.driver.kernel

        def is_running() -> bool:
            ports = len(kernel.table_items(c.TABLE_CAPTURES))
            return 0 < ports == self._flagged()

        eventually(is_running, "the capture runs")

    def is_quiet(self) -> bool:
        """Nothing of a capture is left."""
        return not self.taps.driver.kernel.table_items(c.TABLE_CAPTURES) and not self._flagged()

    def _flagged(self) -> int:
        flags = [layout.number("port", "flags", data) for data in self.taps.driver.kernel.ports()]
        return sum(bool(each & c.PORT_CAPTURED) for each in flags)

    def stop(self) -> None:
        self.agent.stop()
        self.taps.driver.destroy()


def finish(process: subprocess.Popen[bytes]) -> str:
    """Its standard error; the process has ended well."""
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    return errors.decode()


def dissect(path: Path, *options: str, fields: tuple[str, ...] = FIELDS) -> list[list[str]]:
    """What tshark reads, a list of fields for each packet; it must not complain."""
    told = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", *options]
        + [word for field in fields for word in ("-e", field)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr
    assert "malformed" not in told.stderr.lower(), told.stderr
    assert "cut short" not in told.stderr.lower(), told.stderr
    return [line.split("\t") for line in told.stdout.splitlines()]


def words(comment: str) -> dict[str, str]:
    return dict(word.split("=") for word in comment.split())
