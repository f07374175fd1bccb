"""One lab at a time on a machine, and what an earlier one left is taken away first."""

import contextlib
import fcntl
import json
import os
import pathlib
import time
from typing import Any

from .errors import LabError
from .state import State, process_start_time

LOCK_FILE = pathlib.Path("/run/vnet-lab.lock")


class LabLock:
    """The machine's lock; it is free as soon as its holder's process ends, however it ends.

    The file names the work directory of the lab, and stays behind when the lab is kept up or its
    runner was killed, so that the next one finds what to sweep.
    """

    def __init__(self, path: pathlib.Path = LOCK_FILE) -> None:
        self._path = path
        self._fd = -1

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def acquire(self, workdir: pathlib.Path, *, wait: float = 0) -> None:
        """Waits up to `wait` seconds for another lab to end, then sweeps what is left of one.

        Raises LabError when another lab runs, or when one was kept up.
        """
        deadline = time.monotonic() + wait
        while not self._try_patiently():
            if time.monotonic() >= deadline:
                raise LabError(self._describe_holder())
            time.sleep(0.2)
        try:
            self._sweep_previous(take_down=False)
        except BaseException:
            self._close()
            raise
        self._write({"pid": os.getpid(), "workdir": str(workdir)})

    def take_down(self, only: pathlib.Path | None = None) -> None:
        """Sweeps a lab that was kept up or killed; with `only`, none but the one in there.

        Raises LabError when a lab runs.
        """
        if not self._try_patiently():
            raise LabError(self._describe_holder())
        previous = self._read().get("workdir")
        done = previous is None
        try:
            if only is None or previous == str(only):
                self._sweep_previous(take_down=True)
                done = True
        finally:
            self.release(keep=not done)

    def release(self, *, keep: bool = False) -> None:
        """Lets the next one in; with `keep` the file goes on naming the lab that stays up."""
        if self._fd < 0:
            return
        if not keep:
            self._path.unlink(missing_ok=True)
        self._close()

    def _try_patiently(self) -> bool:
        """A runner that is killed while it starts a command leaves a child that is not yet that
        command, and holds the lock for a moment longer."""
        for _ in range(100):
            if self._try():
                return True
            pid = self._read().get("pid")
            if pid and process_start_time(pid) is not None:
                return False
            time.sleep(0.01)
        return False

    def _try(self) -> bool:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder that just ended may have unlinked the file that was opened.
            if os.fstat(fd).st_ino == os.stat(self._path).st_ino:
                self._fd, fd = fd, -1
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            if fd >= 0:
                os.close(fd)
        return False

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(self._path.read_text()))
        return {}

    def _write(self, content: dict[str, Any]) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(content).encode(), 0)

    def _describe_holder(self) -> str:
        holder = self._read()
        return (
            f"another lab runs on this machine (process {holder.get('pid', '?')}, "
            f"in {holder.get('workdir', '?')}); only one can. Wait for it to end."
        )

    def _sweep_previous(self, *, take_down: bool) -> None:
        previous = self._read().get("workdir")
        if not previous:
            return
        state = State(pathlib.Path(previous))
        if state.kept and not take_down:
            raise LabError(
                f"a lab was kept up in {previous}: take it away first with `make demo-down`, "
                "or `python -m devstack.lab down`"
            )
        state.sweep()
        with contextlib.suppress(OSError):  # empty when its runner died before it wrote anything
            os.rmdir(previous)
