"""Captured frames as pcapng (draft-ietf-opsawg-pcapng), which Wireshark and tshark open.

All in little-endian order. An interface stands for a port and is named after its tap; a packet's
comment says whose it is and what the datapath did with it, as in
`instance=UUID port=UUID direction=egress verdict=drop action=drop reason=ip-spoof`.
"""

import os
import struct
from collections.abc import Sequence

import msgspec

from vnet_agent.capture.offload import is_checksum_unfinished
from vnet_agent.datapath.captured import CaptureCounts, CapturedFrame
from vnet_agent.version import version

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6

_ETHERNET = 1
_COMMENT = 1
_SHB_OS, _SHB_APPLICATION = 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL = 2, 3, 9
_EPB_FLAGS, _EPB_VERDICT = 2, 7
_ISB_START, _ISB_END, _ISB_RECEIVED, _ISB_DROPPED, _ISB_DELIVERED = 2, 3, 4, 5, 8

_HEADER = struct.Struct("<II")
_OPTION = struct.Struct("<HH")
_SECTION = struct.Struct("<IHHq")
_INTERFACE = struct.Struct("<HHI")
_PACKET = struct.Struct("<IIIII")
_STATISTICS = struct.Struct("<III")
_U32, _U64, _TIME = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<II")
#: Kind of a verdict, TC in eBPF, and TC_ACT_*.
_VERDICT = struct.Struct("<Bq")

_NANOSECONDS = b"\x09"
#: Seen from the tap: what the VM sends comes in.
_INBOUND, _OUTBOUND = 1, 2
#: TC_ACT_UNSPEC, SHOT, STOLEN and REDIRECT of <linux/pkt_cls.h>.
_TC = {"deliver": -1, "bridge": -1, "drop": 2, "flood": 4, "forward": 7, "answer": 7}


class TaggedPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port as a capture names it."""

    uuid: str
    instance: str
    tap: str
    mac: str

    @property
    def tags(self) -> str:
        return f"instance={self.instance} port={self.uuid}"


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    value = value[:65535]
    return _OPTION.pack(code, len(value)) + _pad(value)


def _block(kind: int, body: bytes, options: Sequence[tuple[int, bytes]] = ()) -> bytes:
    if options:
        body += b"".join(_option(code, value) for code, value in options) + _OPTION.pack(0, 0)
    size = len(body) + 12
    return _HEADER.pack(kind, size) + body + _U32.pack(size)


def _split_time(time_ns: int) -> tuple[int, int]:
    return time_ns >> 32, time_ns & 0xFFFFFFFF


class Writer:
    """The blocks of one capture of `ports`; `snap` is the most bytes kept of a frame."""

    def __init__(self, ports: Sequence[TaggedPort], *, host: str, snap: int) -> None:
        self._ports = list(ports)
        self._host = host
        self._snap = snap
        self._numbers = {port.uuid: number for number, port in enumerate(self._ports)}
        self._tags = [port.tags for port in self._ports]

    def header(self) -> bytes:
        """What stands before the first packet: the section, and an interface for each port."""
        name = os.uname()
        section = _block(
            SECTION,
            _SECTION.pack(0x1A2B3C4D, 1, 0, -1),
            (
                (_COMMENT, f"host={self._host}".encode()),
                (_SHB_OS, f"{name.sysname} {name.release}".encode()),
                (_SHB_APPLICATION, f"vnet-agent {version()}".encode()),
            ),
        )
        return section + b"".join(map(self._interface, self._ports))

    def _interface(self, port: TaggedPort) -> bytes:
        return _block(
            INTERFACE,
            _INTERFACE.pack(_ETHERNET, 0, self._snap),
            (
                (_IF_NAME, port.tap.encode()),
                (_IF_DESCRIPTION, f"vnet {port.tags} mac={port.mac}".encode()),
                (_IF_TSRESOL, _NANOSECONDS),
            ),
        )

    def packet(self, frame: CapturedFrame) -> bytes:
        number = self._numbers[frame.port]
        body = _PACKET.pack(
            number,
            *_split_time(frame.time_ns),
            len(frame.data),
            max(frame.length, len(frame.data)),
        )
        return _block(
            PACKET,
            body + _pad(frame.data),
            (
                (_COMMENT, f"{self._tags[number]} {describe(frame)}".encode()),
                (_EPB_FLAGS, _U32.pack(_INBOUND if frame.egress else _OUTBOUND)),
                (_EPB_VERDICT, _VERDICT.pack(1, _TC[frame.verdict])),
            ),
        )

    def statistics(
        self,
        counts: dict[str, CaptureCounts],
        delivered: dict[str, int],
        *,
        start_ns: int,
        end_ns: int,
    ) -> bytes:
        """What became of each port's frames; `delivered` is how many were written, by port."""
        return b"".join(
            self._statistics(
                number,
                counts.get(port.uuid, CaptureCounts()),
                delivered.get(port.uuid, 0),
                start_ns,
                end_ns,
            )
            for number, port in enumerate(self._ports)
        )

    @staticmethod
    def _statistics(
        number: int, counts: CaptureCounts, delivered: int, start_ns: int, end_ns: int
    ) -> bytes:
        return _block(
            STATISTICS,
            _STATISTICS.pack(number, *_split_time(end_ns)),
            (
                (_COMMENT, f"lost over-rate={counts.over} slow-reader={counts.full}".encode()),
                (_ISB_START, _TIME.pack(*_split_time(start_ns))),
                (_ISB_END, _TIME.pack(*_split_time(end_ns))),
                (_ISB_RECEIVED, _U64.pack(counts.matched)),
                (_ISB_DROPPED, _U64.pack(counts.over + counts.full)),
                (_ISB_DELIVERED, _U64.pack(delivered)),
            ),
        )


def describe(frame: CapturedFrame) -> str:
    """What the datapath did with the frame, and what is still to be done to it."""
    words = [
        f"direction={'egress' if frame.egress else 'ingress'}",
        f"verdict={'drop' if frame.verdict == 'drop' else 'pass'}",
        f"action={frame.verdict}",
    ]
    if frame.reason is not None:
        words.append(f"reason={frame.reason}")
    if frame.gso_size:
        words.append(f"gso={frame.gso_size}")
    if is_checksum_unfinished(frame.data):
        words.append("checksum=unfinished")
    return " ".join(words)
