"""The queue of a tap, read in the place of the QEMU that has it open.

A tap keeps frames for whoever has it open. Once QEMU has paused its guest, it takes at most one
more frame, which it then keeps for a guest that will not run there again, and leaves the others
where they are. With pidfd_getfd(2) the agent has the same open file, and can read those: it is
QEMU's own queue, in its own order, and QEMU need not know of it.
"""

import contextlib
import errno
import fcntl
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

from vnet_agent.datapath import _flowcache as c
from vnet_agent.handover.frame import HEADER, MOST, PLAIN

_TUNGETIFF = 0x800454D2
_TUNGETVNETHDRSZ = 0x800454D7
_IFF_VNET_HDR = 0x4000
_IFREQ = 40
_PROC = Path("/proc")


class TapQueue:
    """One open file of a tap, `theirs` in the process `pid`. Raises OSError."""

    def __init__(self, fd: int, pid: int, theirs: int) -> None:
        self.pid = pid
        self.theirs = theirs
        self._fd = fd
        request = bytearray(_IFREQ)
        fcntl.ioctl(fd, _TUNGETIFF, request)
        if not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK:
            raise OSError(errno.EINVAL, "the tap's reader waits in its reads")
        self._header = 0
        if struct.unpack_from("<H", request, 16)[0] & _IFF_VNET_HDR:
            size = bytearray(4)
            fcntl.ioctl(fd, _TUNGETVNETHDRSZ, size)
            self._header = struct.unpack("=i", size)[0]

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, most: int) -> list[bytes]:
        """At most so many frames of those that are there now; OSError once the tap is gone."""
        frames: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(frames) < most:
                data = os.read(self._fd, MOST)
                header = data[:HEADER] if self._header else PLAIN
                frames.append(header + data[self._header :])
        return frames

    def has_frames(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def reader_sleeps(self) -> bool:
        """Whether QEMU's main loop waits for events, or is gone.

        With frames in the queue, asked for before, that means: it does not wait for this queue.
        """
        try:
            return "poll" in (_PROC / str(self.pid) / "wchan").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True


def borrow(instance: str, tap: str) -> list[TapQueue]:
    """The queues of a VM's tap, as the QEMU of that instance has them open; none without one.

    Raises OSError where the kernel forbids it (CAP_SYS_PTRACE is needed), or the queue cannot be
    read in this way.
    """
    queues: list[TapQueue] = []
    try:
        for pid in _processes_of(instance):
            with _closing(os.pidfd_open(pid)) as pidfd:
                for fd in _descriptors(pid, tap):
                    mine = c.borrow_fd(pidfd, fd)
                    try:
                        queues.append(TapQueue(mine, pid, fd))
                    except OSError:
                        os.close(mine)
                        raise
    except OSError:
        for queue in queues:
            queue.close()
        raise
    return queues


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _processes_of(instance: str) -> Iterator[int]:
    """libvirt starts each QEMU with `-uuid INSTANCE`."""
    wanted = f"\0-uuid\0{instance}\0".encode()
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if wanted in Path(entry.path, "cmdline").read_bytes():
                yield int(entry.name)


def _descriptors(pid: int, tap: str) -> Iterator[int]:
    """Open files of /dev/net/tun say in their fdinfo which interface they are of."""
    wanted = f"\niff:\t{tap}\n"
    for entry in os.scandir(_PROC / str(pid) / "fdinfo"):
        with contextlib.suppress(FileNotFoundError):
            if wanted in Path(entry.path).read_text():
                yield int(entry.name)
