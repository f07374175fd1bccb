"""The last frames that went into a tap, as a packet socket sees them.

A ring that the kernel fills and the agent only empties from behind, many times a second: what is
in it costs nobody a system call for each frame. See Documentation/networking/packet_mmap.rst,
TPACKET_V3.
"""

import ctypes
import mmap
import socket
import struct
from collections.abc import Iterator

from vnet_agent.handover.frame import HEADER

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_PACKET_VNET_HDR = 15
_TPACKET_V3 = 2
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_OUTGOING = 4

#: Bytes of a block; the longest frame fits.
_BLOCK = 1 << 17
#: Blocks: 16 MiB. With few frames each block ends by time, and the ring holds two seconds of them:
#: where processors are busy frames wait that long for QEMU, and the first of them must be found.
_BLOCKS = 128
#: Blocks that `trim` leaves empty at least, since the agent may have to wait too, and at most.
_EMPTY = (32, 64)
#: Milliseconds after which a block that is not full is shown.
_RETIRE = 16
_KERNEL, _USER = 0, 1
_BLOCK_HEAD = struct.Struct("=IIIIIIQ")  # version, private, status, packets, first, length, number
_STATUS = 8
#: next, seconds, nanoseconds, captured, length, status, MAC's offset
_FRAME_HEAD = struct.Struct("=IIIIIIH")
_STATISTICS = struct.Struct("=III")  # packets, of those dropped; how often the ring was full


class Mirror:
    """Of one tap, from its making on. Raises OSError."""

    def __init__(self, interface: str) -> None:
        self.missed = 0
        """Frames that found the ring full, lately: since the last `trim` but one."""
        self._received = 0
        self._trimmed = 0
        self._newest = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._open(interface)
        except OSError:
            self._socket.close()
            raise

    def _open(self, interface: str) -> None:
        option = self._socket.setsockopt
        option(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        option(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        _attach_filter(self._socket)
        ring = struct.pack("=7I", _BLOCK, _BLOCKS, 2048, _BLOCK // 2048 * _BLOCKS, _RETIRE, 0, 0)
        option(_SOL_PACKET, _PACKET_RX_RING, ring)
        self._ring = mmap.mmap(self._socket.fileno(), _BLOCK * _BLOCKS)
        self._socket.bind((interface, _ETH_P_ALL))

    def close(self) -> None:
        self._ring.close()
        self._socket.close()

    def trim(self) -> None:
        """Make room for twice what came since the last time; the newest are kept. Often enough,
        and nothing is missed."""
        self.missed = 0
        self._count()
        held = self._shown()
        least, most = _EMPTY
        came = sum(number > self._newest for number, _ in held)
        self._newest = max((number for number, _ in held), default=self._newest)
        for _, start in held[: -(_BLOCKS - min(max(least, 2 * came), most))]:
            self._trimmed += self._packets(start)
            struct.pack_into("=I", self._ring, start + _STATUS, _KERNEL)

    def received(self) -> int:
        """Frames that are in the ring, or were: also of a block that is not shown yet."""
        self._count()
        return self._received

    def shown(self) -> int:
        """Of `received`, those that `frames` can tell, or could before they were trimmed."""
        return self._trimmed + sum(self._packets(start) for _, start in self._shown())

    def _count(self) -> None:
        """The kernel counts from one question to the next."""
        answer = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        packets, dropped, _ = _STATISTICS.unpack(answer)
        self._received += packets - dropped
        self.missed += dropped

    def frames(self, least: int) -> list[tuple[int, bytes]]:
        """(time in ns since 1970, frame) of the last that came, in order: at least so many, if
        they are there."""
        found: list[tuple[int, bytes]] = []
        for _, start in reversed(self._shown()):
            found[:0] = self._block(start)
            if len(found) >= least:
                break
        return found

    def _shown(self) -> list[tuple[int, int]]:
        """(number, place) of each block that is the agent's, in order."""
        found = []
        for start in range(0, _BLOCK * _BLOCKS, _BLOCK):
            head = _BLOCK_HEAD.unpack_from(self._ring, start)
            if head[2] & _USER:
                found.append((head[6], start))
        return sorted(found)

    def _packets(self, start: int) -> int:
        return int(_BLOCK_HEAD.unpack_from(self._ring, start)[3])

    def _block(self, start: int) -> Iterator[tuple[int, bytes]]:
        _, _, _, packets, place, _, _ = _BLOCK_HEAD.unpack_from(self._ring, start)
        place += start
        for _ in range(packets):
            onward, seconds, nanoseconds, captured, _, _, mac = _FRAME_HEAD.unpack_from(
                self._ring, place
            )
            begin = place + mac
            frame = self._ring[begin - HEADER : begin + captured]
            yield seconds * 1_000_000_000 + nanoseconds, frame
            place += onward


def _attach_filter(packets: socket.socket) -> None:
    """Only what goes out of the host's stack, which on a tap is what goes to the VM."""
    program = struct.pack(
        "=" + "HBBI" * 4,
        *(0x28, 0, 0, 0xFFFFF004),  # ldh [SKF_AD_OFF + SKF_AD_PKTTYPE]
        *(0x15, 0, 1, _OUTGOING),  # jeq PACKET_OUTGOING
        *(0x06, 0, 0, 0xFFFFFFFF),  # ret all
        *(0x06, 0, 0, 0),  # ret nothing
    )
    held = mmap.mmap(-1, len(program))
    held.write(program)
    address = _address_of(held)
    packets.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, address)
    )


def _address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
