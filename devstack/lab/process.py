"""Processes of the lab: started behind a gate, logged to a file, ended by pid."""

import os
import pathlib
import signal
import subprocess
from collections.abc import Mapping, Sequence

import psutil

from .errors import LabError
from .state import State
from .waiting import wait_until

#: Waits for a line before it becomes the command, so that its pid is on record first. A starter
#: that dies in between closes the pipe, and the command never runs.
_GATE = ("sh", "-c", 'read -r go && exec "$@" </dev/null', "gate")


class Process:
    """A running command. `pid` is its pid as seen from outside of every namespace."""

    def __init__(
        self, name: str, popen: "subprocess.Popen[bytes]", pid: int, log: pathlib.Path
    ) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self._popen = popen

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for a signal, as in subprocess."""
        return self._popen.poll()

    @property
    def alive(self) -> bool:
        return self.returncode is None

    def signal(self, number: int) -> None:
        """Sends a signal, or does nothing when the process has ended."""
        if self.alive:
            os.kill(self.pid, number)
            if number in (signal.SIGCONT, signal.SIGKILL):
                # nsenter stopped with what it runs, and would not see its end.
                self._popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self.signal(signal.SIGKILL)
        self._popen.wait()

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after `timeout` seconds; returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._popen.wait()

    def wait(self, timeout: float = 30.0) -> int:
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} still runs after {timeout:g} s; see {self.log}") from None

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def start_recorded(
    state: State, name: str, argv: Sequence[str], log: pathlib.Path,
    env: Mapping[str, str] | None = None,
) -> Process:  # fmt: skip
    """Starts a command that outlives nobody: it is on record before it runs."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        popen = subprocess.Popen(
            [*_GATE, *argv], stdin=subprocess.PIPE, stdout=output, stderr=output, cwd="/",
            env=dict(env) if env is not None else None, start_new_session=True,
        )  # fmt: skip
    state.adopt(popen)
    assert popen.stdin
    with popen.stdin:
        state.record(popen.pid, name)
        popen.stdin.write(b"go\n")
    return Process(name, popen, popen.pid, log)


def start_inside(
    state: State, entry: Sequence[str], name: str, argv: Sequence[str], log: pathlib.Path,
    env: Mapping[str, str] | None = None,
) -> Process:  # fmt: skip
    """Starts a command through `entry`, an nsenter into a host's pid namespace.

    It needs no record, since it dies with the host. The process that matters is nsenter's child.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        popen = subprocess.Popen(
            [*entry, *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/",
            env=dict(env) if env is not None else None, start_new_session=True,
        )  # fmt: skip

    state.adopt(popen)

    def find_child() -> int | None:
        if popen.poll() is not None:
            return popen.pid  # it ended already; its status tells how
        try:
            children = psutil.Process(popen.pid).children()
        except psutil.NoSuchProcess:
            return None
        return children[0].pid if children else None

    pid: int = wait_until(
        lambda: find_child() or 0, f"{name} did not start", timeout=10, pause=0.002
    )
    return Process(name, popen, pid, log)


def end_recorded(state: State, process: Process) -> None:
    """Kills a recorded process and strikes it off."""
    process.kill()
    state.forget(process.pid)
