"""What the hand-over asks of interfaces: their counts, and one behind which frames wait."""

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from vnet_agent.handover.frame import MOST

_SIOCSIFTXQLEN = 0x8943
_SIOCGIFMTU = 0x8921
_SIOCSIFMTU = 0x8922
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_NAME = 16
_IFREQ = 40

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 2, 0x1000, 0x4000
#: TUN_F_CSUM, TSO4, TSO6, TSO_ECN; and USO4, USO6 where the kernel (6.2) has them.
_OFFLOADS = (0x6F, 0x0F)

_RTM_GETSTATS = 94
_STATS_LINK_64 = 1
_NLMSG = struct.Struct("=IHHII")
_STATS = struct.Struct("=BBHII")
_COUNTS = struct.Struct("=8Q")


class Counts(msgspec.Struct, frozen=True):
    """Of a tap: frames that its reader took, and those that found its queue full."""

    taken: int
    dropped: int


@contextlib.contextmanager
def _control() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made.fileno()


def _request(name: str, value: int = 0, kind: str = "i") -> bytes:
    return struct.pack(f"{_NAME}s{kind}", name.encode(), value).ljust(_IFREQ, b"\0")


def _get(name: str, what: int, kind: str = "i") -> int:
    with _control() as fd:
        answer = fcntl.ioctl(fd, what, _request(name))
    return int(struct.unpack_from(kind, answer, _NAME)[0])


def _set(name: str, what: int, value: int, kind: str = "i") -> None:
    with _control() as fd:
        fcntl.ioctl(fd, what, _request(name, value, kind))


def counts(name: str) -> Counts:
    """Raises OSError. RTM_GETSTATS asks for one interface, and nothing else of it."""
    index = socket.if_nametoindex(name)
    body = _STATS.pack(0, 0, 0, index, _STATS_LINK_64)
    head = _NLMSG.pack(_NLMSG.size + len(body), _RTM_GETSTATS, 1, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(head + body)
        answer = netlink.recv(8192)
    if _NLMSG.unpack_from(answer)[1] == 2:  # NLMSG_ERROR
        code = struct.unpack_from("=i", answer, _NLMSG.size)[0]
        raise OSError(-code, os.strerror(-code), name)
    # rx and tx packets, rx and tx bytes, rx and tx errors, rx and tx dropped
    numbers = _COUNTS.unpack_from(answer, _NLMSG.size + _STATS.size + 4)
    return Counts(taken=numbers[1], dropped=numbers[7])


class WaitingRoom:
    """An interface behind which frames wait until the agent reads them; gone with `close`.

    The host itself sends nothing there: it has no address, and IPv6 is off.
    """

    def __init__(self, like: str, frames: int) -> None:
        """With room for so many frames, each as long as those of `like`. Raises OSError."""
        self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            wanted = _request("vnetwait%d", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR, "H")
            answer = fcntl.ioctl(self._fd, _TUNSETIFF, wanted)
            self.name = answer[:_NAME].rstrip(b"\0").decode()
            self._set_up(like, frames)
        except OSError:
            os.close(self._fd)
            raise
        self.ifindex = socket.if_nametoindex(self.name)

    def _set_up(self, like: str, frames: int) -> None:
        for offloads in _OFFLOADS:
            try:
                fcntl.ioctl(self._fd, _TUNSETOFFLOAD, offloads)
                break
            except OSError:
                continue
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            Path(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6").write_text("1")
        _set(self.name, _SIOCSIFMTU, _get(like, _SIOCGIFMTU))
        _set(self.name, _SIOCSIFTXQLEN, frames)
        flags = _get(self.name, _SIOCGIFFLAGS, "H")
        _set(self.name, _SIOCSIFFLAGS, flags | _IFF_UP, "H")

    def fileno(self) -> int:
        return self._fd

    def read(self, most: int) -> list[bytes]:
        """At most so many of the frames that wait now."""
        frames: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(frames) < most:
                frames.append(os.read(self._fd, MOST))
        return frames

    def dropped(self) -> int:
        """Frames that found no room."""
        return counts(self.name).dropped

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
