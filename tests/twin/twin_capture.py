"""A capture of one port once more, in plain Python: the oracle of csrc/core/capture.h."""

import ipaddress
import struct
from dataclasses import dataclass, field
from typing import Any

SECOND = 1_000_000_000
#: Bytes of a record before the frame's.
RECORD = 32
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}


@dataclass
class TwinCapture:
    """`room` is what the ring holds in bytes. `frames` are (egress, reason, length, bytes)."""

    request: Any
    room: int
    frames: list[tuple] = field(default_factory=list)
    matched: int = 0
    over: int = 0
    full: int = 0
    due: int = 0

    def process(self, egress: bool, frame: bytes, reason: str, now: int) -> None:
        """A frame that was dropped for `reason`, or passed ("none"), at `now` ns."""
        if not frame or not self._wants(egress, frame, reason):
            return
        self.matched += 1
        self.due = max(self.due, now)
        if self.due - now > SECOND // 4:
            self.over += 1
            return
        self.due += SECOND // self.request.rate
        kept = frame[: self.request.snap]
        if RECORD + len(kept) > self.room:
            self.full += 1
            return
        self.room -= RECORD + len(kept)
        self.frames.append((egress, None if reason == "none" else reason, len(frame), kept))

    def take(self) -> list[tuple]:
        """All that has come; the ring is empty again."""
        taken, self.frames = self.frames, []
        self.room += sum(RECORD + len(kept) for *_, kept in taken)
        return taken

    def _wants(self, egress: bool, frame: bytes, reason: str) -> bool:
        request = self.request
        if request.direction not in (None, "egress" if egress else "ingress"):
            return False
        if request.drops_only and reason == "none":
            return False
        if request.protocol is None and request.remote is None:
            return True
        return self._matches(egress, frame)

    def _matches(self, egress: bool, frame: bytes) -> bool:
        packet = frame[14:]
        if frame[12:14] == b"\x08\x00":
            proto, remote = packet[9:10], packet[16:20] if egress else packet[12:16]
        elif frame[12:14] == b"\x86\xdd":
            proto, remote = packet[6:7], packet[24:40] if egress else packet[8:24]
        else:
            return False
        if not proto:
            return False
        number = proto[0] if frame[12] == 8 else behind_extensions(proto[0], packet)
        wanted = self.request.protocol
        if wanted is not None and number != PROTOCOLS[wanted]:
            return False
        if self.request.remote is None:
            return True
        network = ipaddress.ip_network(self.request.remote, strict=False)
        if (network.version == 4) != (frame[12] == 8):
            return False
        # What the frame lacks counts only where the prefix asks for it, four bytes at a time.
        needed = -(-network.prefixlen // 32) * 4
        if len(remote) < needed:
            return False
        size = 4 if network.version == 4 else 16
        return ipaddress.ip_address(remote[:needed].ljust(size, b"\0")) in network


def behind_extensions(proto: int, packet: bytes) -> int:
    """The protocol behind IPv6 extension headers, six at most, or the first that is cut short."""
    at = 40
    for _ in range(6):
        if proto not in (0, 43, 44, 51, 60) or len(packet) < at + 4:
            return proto
        following, length, offset = struct.unpack_from(">BBH", packet, at)
        if proto == 44:
            if offset & 0xFFF8:
                return following
            at += 8
        else:
            at += (length + 2) * 4 if proto == 51 else (length + 1) * 8
        proto = following
    return proto
