"""Network namespaces as files in the work directory: nothing appears under /run/netns."""

import subprocess
from collections.abc import Mapping, Sequence

from .errors import LabError
from .process import Process, start_recorded
from .state import State, remove_namespace


class Namespace:
    """A network namespace with `lo` up. Enter it by hand: `nsenter --net=PATH`."""

    def __init__(self, state: State, name: str) -> None:
        self.name = name
        self.path = state.workdir / "netns" / name
        self.directory = state.workdir / name
        self._state = state

    def create(self) -> None:
        with self._state.making():
            self.path.parent.mkdir(exist_ok=True)
            self.directory.mkdir(exist_ok=True)
            self.path.touch()
            subprocess.run(["unshare", f"--net={self.path}", "true"], check=True)
        self.ip("link set lo up")

    def remove(self) -> None:
        """Ends every process in it and lets it go."""
        remove_namespace(self.path)

    @property
    def entry(self) -> list[str]:
        """The command in front of one that shall run in here."""
        return ["nsenter", f"--net={self.path}", "--"]

    def ip(self, *commands: str) -> None:
        """Runs lines of `ip -batch` in the namespace; raises LabError with what was refused."""
        text = "".join(f"{command}\n" for command in commands)
        result = subprocess.run(
            [*self.entry, "ip", "-batch", "-"], input=text, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if result.returncode:
            raise LabError(f"in namespace {self.name}: {text.strip()}: {result.stderr.strip()}")

    def run(
        self, argv: Sequence[str], timeout: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end; the caller looks at returncode, stdout and stderr."""
        return subprocess.run(
            [*self.entry, *argv], capture_output=True, text=True, check=False, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def spawn(
        self, argv: Sequence[str], *, name: str, env: Mapping[str, str] | None = None
    ) -> Process:
        """Starts a command whose output goes to NAME.log in the namespace's directory."""
        log = self.directory / f"{name}.log"
        return start_recorded(self._state, name, [*self.entry, *argv], log, env)
