"""What a thread's read(2) calls of one descriptor returned, the last of them.

perf_event_open(2) on the tracepoints of the system call's begin and end, for one thread; in a ring
that the kernel writes backwards, so that the newest stay (include/uapi/linux/perf_event.h).
"""

import errno
import fcntl
import mmap
import os
import struct
from pathlib import Path

from vnet_agent.datapath import _flowcache as c

_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_BEGIN = "events/syscalls/sys_enter_read/id"
_END = "events/syscalls/sys_exit_read/id"
#: Frames are longer. Counters of events, which are read all the time too, are shorter.
_SHORTEST = 26
_PAGES = 16
_SET_OUTPUT = 0x2405
_PAUSE_OUTPUT = 0x40042409
_DATA_HEAD = 1024
_HEAD = struct.Struct("=IHH")
_SAMPLE = 9
#: A record begins with its size, the tracepoint's number, flags, thread and call; then an end has
#: what was returned.
_RAW = struct.Struct("=IHBBiiiq")


class Reads:
    """From its making on. Raises OSError where the kernel gives no such traces (CAP_PERFMON)."""

    def __init__(self, tid: int, fd: int) -> None:
        self._fds: list[int] = []
        try:
            self._end = _number(_END)
            frames = f"ret == -{errno.EAGAIN} || ret >= {_SHORTEST}"
            self._fds.append(c.trace_thread(tid, self._end, frames))
            size = (1 + _PAGES) * mmap.PAGESIZE
            self._ring = mmap.mmap(self._fds[0], size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._fds.append(c.trace_thread(tid, _number(_BEGIN), f"fd == {fd}"))
            fcntl.ioctl(self._fds[1], _SET_OUTPUT, self._fds[0])
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def last(self, most: int) -> list[int]:
        """Lengths of frames, and -EAGAIN where there was none; the newest first.

        Nothing is recorded any more after it.
        """
        fcntl.ioctl(self._fds[0], _PAUSE_OUTPUT, 1)
        found: list[int] = []
        returned: int | None = None
        for number, value in self._records():
            if number == self._end:
                returned = value
            elif returned is not None:
                found.append(returned)
                returned = None
            if len(found) == most:
                break
        return found

    def _records(self) -> list[tuple[int, int]]:
        """(tracepoint, what was returned), the newest first."""
        size = _PAGES * mmap.PAGESIZE
        (head,) = struct.unpack_from("=Q", self._ring, _DATA_HEAD)
        begin = head % size
        data = self._ring[mmap.PAGESIZE :]
        data = data[begin:] + data[:begin]
        records: list[tuple[int, int]] = []
        place = 0
        while place + _HEAD.size + _RAW.size <= size:
            kind, _, length = _HEAD.unpack_from(data, place)
            if length < _HEAD.size:
                break
            if kind == _SAMPLE:
                _, number, _, _, _, _, _, value = _RAW.unpack_from(data, place + _HEAD.size)
                records.append((number, value))
            place += length
        return records


def _number(tracepoint: str) -> int:
    for tracefs in _TRACEFS:
        try:
            return int((tracefs / tracepoint).read_text())
        except FileNotFoundError:
            continue
    raise FileNotFoundError(errno.ENOENT, "no tracefs", str(_TRACEFS[0]))
