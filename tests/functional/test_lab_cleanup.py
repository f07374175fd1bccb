"""Nothing of a lab stays: not after its end, an error, a signal, or the death of its runner."""

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

from devstack.lab import Lab, LabError, wait_until
from devstack.lab.cache import REPOSITORY
from devstack.lab.host import PRIVATE
from devstack.lab.lock import LOCK_FILE
from devstack.lab.state import process_start_time

RUNNER = """
import json, sys, time
from devstack.lab import Lab
with Lab() as lab:
    guest = lab.guest("vm", lab.host("a"), ["10.0.0.5/24"])
    guest.start()
    lab.peer("peer", ["10.0.0.9/24"])
    lab.controller.spawn(["sleep", "1000"], name="sleep")
    lab.host("b").spawn(["sleep", "1000"], name="sleep")
    lab.expose(80)
    print(lab.workdir, flush=True)
    order = input()
    if order == "error":
        raise RuntimeError("on purpose")
    if order == "keep":
        lab.keep()
"""


class Runner:
    """A process that runs a lab with something of everything, and what belongs to that lab."""

    def __init__(self) -> None:
        self.there_before = {path: os.path.exists(path) for path in PRIVATE}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER], cwd=REPOSITORY, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout
        self.workdir = pathlib.Path(self.process.stdout.readline().strip())
        self.processes = self._find_processes()

    def _find_processes(self) -> dict[int, int | None]:
        """Every process in one of its namespaces, and every one that the runner started."""
        inodes = {path.stat().st_ino for path in (self.workdir / "netns").iterdir()}
        pids = {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}
        pids |= {pid for pid in psutil.pids() if namespace_of(pid) in inodes}
        return {pid: process_start_time(pid) for pid in pids}

    def end(self, order: str) -> str:
        _, errors = self.process.communicate(order + "\n", timeout=60)
        return errors

    def assert_gone(self) -> None:
        alive = [pid for pid, start in self.processes.items() if process_start_time(pid) == start]
        assert alive == []
        assert not self.workdir.exists()
        assert str(self.workdir) not in pathlib.Path("/proc/self/mountinfo").read_text()
        assert {path: os.path.exists(path) for path in PRIVATE} == self.there_before
        assert str(self.workdir) not in holder()


def sweep(workdir: pathlib.Path) -> None:
    """Takes away this lab if it is still there, and never one that is somebody else's."""
    with contextlib.suppress(LabError):  # the next one runs already, and swept this one first
        Lab.sweep(only=workdir)


def holder() -> str:
    """What the machine's lock file says; empty when there is none."""
    return LOCK_FILE.read_text() if LOCK_FILE.exists() else ""


def namespace_of(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return -1


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner()
    yield made
    made.process.kill()
    made.process.communicate()
    sweep(made.workdir)


def test_it_has_something_to_clean(runner: Runner) -> None:
    commands = []
    for pid in runner.processes:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        commands.append(pathlib.Path(os.fsdecode(command[0])).name)
    assert commands.count("libvirtd") == 2
    assert commands.count("qemu-system-x86_64") == 1
    assert commands.count("sleep") == 2
    assert any(name.startswith("traffic-") for name in commands)


@pytest.mark.parametrize("order", ["end", "error"])
def test_nothing_stays_after_the_block(runner: Runner, order: str) -> None:
    errors = runner.end(order)
    assert ("on purpose" in errors) == (order == "error")
    runner.assert_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_stays_after_a_signal(runner: Runner, number: signal.Signals) -> None:
    runner.process.send_signal(number)
    assert runner.process.wait(60) != 0
    runner.assert_gone()


def test_impatience_does_not_stop_the_cleaning(runner: Runner) -> None:
    for _ in range(20):
        runner.process.send_signal(signal.SIGINT)
    runner.process.wait(60)
    runner.assert_gone()


def test_a_killed_lab_is_swept_by_the_next(runner: Runner) -> None:
    runner.process.kill()
    runner.process.wait()
    assert any(process_start_time(pid) == start for pid, start in runner.processes.items())
    assert json.loads(LOCK_FILE.read_text())["workdir"] == str(runner.workdir)

    with Lab(hosts=["a"]) as lab:
        assert not runner.workdir.exists()
        assert lab.host("a").run(["hostname"]).stdout == "a\n"
    runner.assert_gone()


@pytest.mark.parametrize("wait_for", ["lock", "netns", "a", "a/libvirtd.log"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_lab_that_ends_while_it_starts_is_swept(wait_for: str, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    text = wait_until(
        lambda: (said := holder()).endswith("}") and f'"pid": {process.pid},' in said and said,
        "no lock", timeout=600, pause=0.001,
    )  # fmt: skip
    workdir = pathlib.Path(json.loads(text)["workdir"])
    if wait_for != "lock":
        wait_until((workdir / wait_for).exists, f"no {wait_for}", pause=0.001)
    inodes = {path.stat().st_ino for path in workdir.glob("netns/*") if os.path.ismount(path)}
    process.send_signal(number)
    assert process.wait(60) != 0
    if number == signal.SIGKILL:
        sweep(workdir)

    assert [pid for pid in psutil.pids() if namespace_of(pid) in inodes] == []
    assert str(workdir) not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert not workdir.exists()
    assert str(workdir) not in holder()


def test_a_second_lab_is_refused(runner: Runner) -> None:
    with (
        pytest.raises(LabError, match=f"another lab runs.*process {runner.process.pid}"),
        Lab(wait=0),
    ):
        pytest.fail("two labs at once")
    with pytest.raises(LabError, match="another lab runs"):
        Lab.sweep()
    assert runner.process.poll() is None
    assert all(process_start_time(pid) == start for pid, start in runner.processes.items())


def test_a_kept_lab_stays_until_it_is_taken_down(runner: Runner) -> None:
    runner.end("keep")
    assert runner.process.returncode == 0
    with pytest.raises(LabError, match="was kept up"), Lab(wait=0):
        pytest.fail("two labs at once")
    libvirtd = [pid for pid, start in runner.processes.items() if process_start_time(pid) == start]
    assert len(libvirtd) > 5

    down = [sys.executable, "-m", "devstack.lab", "down"]
    result = subprocess.run(down, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "the lab is gone\n")
    runner.assert_gone()


def test_refusing_leaves_no_directory(tmp_path: pathlib.Path, runner: Runner) -> None:
    with pytest.raises(LabError), Lab(tmp_path / "never", wait=0):
        pytest.fail("two labs at once")
    assert not (tmp_path / "never").exists()
