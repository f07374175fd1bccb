"""The demo that is interrupted leaves nothing behind, and two at once are refused."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from devstack.lab import wait_until
from devstack.lab.cache import REPOSITORY
from devstack.lab.lock import LOCK_FILE

DEMO = [sys.executable, "-m", "devstack.demo"]


@pytest.fixture
def demo(tmp_path: pathlib.Path) -> Iterator["Demo"]:
    demo = Demo(tmp_path / "log")
    yield demo
    demo.process.kill()
    demo.process.wait()


class Demo:
    """A demo in a process group of its own, as a terminal would have it."""

    def __init__(self, log: pathlib.Path) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                DEMO, cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True
            )

    def wait_step(self, number: int) -> None:
        """Returns when this step has been done."""

        def done() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return f"✓ {number}/" in self.log.read_text()

        wait_until(done, f"the demo did not come past step {number}", timeout=120)


def namespaces_of_lab() -> set[int]:
    """Inodes of the network namespaces of the lab that is up: all of its processes are in them."""
    workdir = pathlib.Path(json.loads(LOCK_FILE.read_text())["workdir"])
    return {path.stat().st_ino for path in (workdir / "netns").iterdir()}


def processes_in(namespaces: set[int]) -> set[str]:
    """Names of the living processes in one of these namespaces."""
    found = set()
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{process.pid}/ns/net").st_ino in namespaces:
                found.add(process.info["name"])
    return found


def state_of_the_machine() -> set[tuple[str, str]]:
    """What else a demo could leave: mounts, links, pins, files."""
    return {
        (kind, str(name))
        for kind, names in (
            ("mount", pathlib.Path("/proc/self/mounts").read_text().splitlines()),
            ("link", os.listdir("/sys/class/net")),
            ("pin", pathlib.Path("/sys/fs/bpf").glob("*")),
            ("lab", pathlib.Path("/tmp").glob("vnet-lab-*")),
            ("lock", LOCK_FILE.parent.glob(LOCK_FILE.name)),
        )
        for name in names
    }


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGINT), (4, signal.SIGINT), (2, 15)])
def test_interrupted_demo_leaves_nothing(
    tmp_path: pathlib.Path, step: int, number: signal.Signals
) -> None:
    before = state_of_the_machine()
    demo = Demo(tmp_path / "log")
    demo.wait_step(step)
    namespaces = namespaces_of_lab()
    assert {"libvirtd", "vnet-controller"} <= processes_in(namespaces)
    os.killpg(demo.process.pid, number)
    assert demo.process.wait(60) != 0, demo.log.read_text()
    assert processes_in(namespaces) == set()
    assert state_of_the_machine() - before == set()


def test_second_demo_is_refused(demo: Demo) -> None:
    demo.wait_step(1)
    second = subprocess.run(DEMO, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "another lab runs on this machine" in second.stdout + second.stderr
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.process.wait(60) == 130
