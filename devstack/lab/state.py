"""What a lab has made, written down before it is used, so that any later run can take it away.

The work directory is the record: `state.json` names each process by pid and start time, and each
file in `netns/` is a network namespace. Nothing is ever found by the pattern of a name.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import psutil

from .errors import LabError
from .waiting import wait_until


def process_start_time(pid: int) -> int | None:
    """The kernel's start time of a process in ticks since boot; None when it is no more."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


class State:
    """The record of one lab in `workdir`. Safe to use from several threads."""

    def __init__(self, workdir: pathlib.Path) -> None:
        self.workdir = workdir
        self._file = workdir / "state.json"
        self._lock = threading.RLock()
        self._closed = False
        self._children: list[subprocess.Popen[bytes]] = []
        self._data = _empty_record()
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._data = json.loads(self._file.read_text())

    @property
    def kept(self) -> bool:
        """Whether the lab was left up on purpose, and is still up."""
        return bool(self._data["kept"]) and any(self._living())

    def begin(self, *, temporary: bool) -> None:
        """Sweeps what the directory's earlier lab left, and starts an empty record.

        A `temporary` directory goes with all that is in it when it is swept.
        """
        self.sweep()
        with self._lock:
            # In this order, so that a sweep knows at any moment whose the directory is.
            self._data = {**_empty_record(), "temporary": temporary}
            self.workdir.mkdir(mode=0o700, parents=True, exist_ok=not temporary)
            self._write()
            self._closed = False

    def set_kept(self) -> None:
        with self._lock:
            self._data["kept"] = True
            self._write()

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """Around whatever makes something: a sweep waits for it, or it is refused with LabError.

        So a thread that is still starting things cannot add to what is being taken away.
        """
        with self._lock:
            if self._closed:
                raise LabError("the lab is being taken away")
            yield

    def adopt(self, child: "subprocess.Popen[bytes]") -> None:
        """Has the sweep wait for a child of this process, so that it leaves no zombie."""
        self._children.append(child)

    def record(self, pid: int, name: str) -> None:
        """Has this sweep, and that of any later process, end the process `pid`."""
        with self.making():
            self._data["processes"][str(pid)] = {"start": process_start_time(pid), "name": name}
            self._write()

    def forget(self, pid: int) -> None:
        with self._lock:
            self._data["processes"].pop(str(pid), None)
            self._write()

    def sweep(self) -> None:
        """Ends every recorded process, and removes every namespace, mount point and record."""
        with self._lock:
            self._closed = True
        living = self._living()
        # A host's processes end with its PID 1, but not at once: they are waited for as well.
        family = [child for pid in living for child in find_descendants(pid)]
        for pid in living:
            kill_and_wait(pid)
        for pid, start in family:
            wait_until(
                lambda pid=pid, start=start: not _is_same(pid, start),
                f"process {pid} did not end with its host",
                pause=0.005,
            )
        for path in sorted((self.workdir / "netns").glob("*")):
            remove_namespace(path)
        for name in reversed(self._data["made"]):
            with contextlib.suppress(OSError):  # someone else put something there, or took it
                os.rmdir(name)
        for child in self._children:
            child.wait()
        self._file.unlink(missing_ok=True)
        self._file.with_suffix(".new").unlink(missing_ok=True)
        if self._data["temporary"] and not _has_mounts(self.workdir):
            shutil.rmtree(self.workdir, ignore_errors=True)

    def make_mount_point(self, path: str) -> None:
        """Makes a directory of the machine that is missing, to be removed by the sweep."""
        missing = [
            p for p in (path, *map(str, pathlib.Path(path).parents)) if not os.path.exists(p)
        ]
        with self.making():
            for name in reversed(missing):
                self._data["made"].append(name)
                self._write()
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name)

    def _living(self) -> list[int]:
        if self._data["boot"] != _boot_id():
            return []
        found = self._data["processes"].items()
        return [int(pid) for pid, entry in found if _is_same(int(pid), entry["start"])]

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self._data, indent=1))
        os.replace(new, self._file)


def _empty_record() -> dict[str, Any]:
    return {"boot": _boot_id(), "kept": False, "processes": {}, "made": [], "temporary": False}


def _has_mounts(directory: pathlib.Path) -> bool:
    """Whether something is mounted below: then it is not for us to delete what is in there."""
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4].startswith(f"{directory}/") for line in mounts)


def find_descendants(pid: int) -> list[tuple[int, int | None]]:
    """Each process below `pid`, with its start time."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children(recursive=True)
        return [(child.pid, process_start_time(child.pid)) for child in children]
    return []


def kill_and_wait(pid: int) -> None:
    """SIGKILL, and returns when the process is gone (or a zombie that its parent owns)."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: process_start_time(pid) is None, f"process {pid} did not die", pause=0.005)


def remove_namespace(path: pathlib.Path) -> None:
    """Takes a namespace file away, with every process that still lives in the namespace."""
    if os.path.ismount(path):
        inode = path.stat().st_ino
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{process.pid}/ns/net").st_ino == inode:
                    kill_and_wait(process.pid)
        subprocess.run(["umount", "--lazy", path], check=True)
    path.unlink(missing_ok=True)


def _is_same(pid: int, start: int | None) -> bool:
    return start is not None and process_start_time(pid) == start


def _boot_id() -> str:
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
