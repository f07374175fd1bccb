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
_PACKET_VERSION = 10
_PACKET_VNET_HDR = 15
_TPACKET_V3 = 2
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_OUTGOING = 4

#: Bytes of a block; the longest frame fits.
_BLOCK = 1 << 17
#: Blocks: 8 MiB.
_BLOCKS = 64
#: Milliseconds after which a block that is not full is shown.
RETIRE = 4
_KERNEL, _USER = 0, 1
_BLOCK_HEAD = struct.Struct("=IIIIIIQ")  # version, private, status, packets, first, length, number
_STATUS = 8
#: next, seconds, nanoseconds, captured, length, status, MAC's offset
_FRAME_HEAD = struct.Struct("=IIIIIIH")


class Mirror:
    """Of one tap, from its making on. Raises OSError."""

    def __init__(self, interface: str) -> None:
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
        ring = struct.pack("=7I", _BLOCK, _BLOCKS, 2048, _BLOCK // 2048 * _BLOCKS, RETIRE, 0, 0)
        option(_SOL_PACKET, _PACKET_RX_RING, ring)
        self._ring = mmap.mmap(self._socket.fileno(), _BLOCK * _BLOCKS)
        self._socket.bind((interface, _ETH_P_ALL))

    def close(self) -> None:
        self._ring.close()
        self._socket.close()

    def trim(self) -> None:
        """Make room: the newest half of the ring is kept. Often enough, and nothing is missed."""
        held = self._shown()
        for _, start in held[: -_BLOCKS // 2]:
            struct.pack_into("=I", self._ring, start + _STATUS, _KERNEL)

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
