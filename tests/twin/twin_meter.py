"""Limits and marks once more, in plain Python: the oracle of csrc/core/meter.h and mark.h.

A token bucket in exact fractions, which the C core's one word of due time must agree with.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction

SECOND = 1_000_000_000


@dataclass
class TwinBucket:
    """`rate` units a second, `burst` at once; `level` may go below 0 by one frame."""

    rate: int
    burst: Fraction
    level: Fraction
    at: int
    rounded: int = 0

    @classmethod
    def full(cls, rate: int, burst: Fraction, now: int) -> "TwinBucket":
        return cls(rate, burst, burst, now)

    def has_room(self, now: int) -> bool | None:
        """None: too close to say, since the core counts in whole ticks of 1/64 ns."""
        self.level = min(self.burst, self.level + Fraction(self.rate * (now - self.at), SECOND))
        self.at = now
        slack = Fraction(self.rate * (self.rounded + 2), 64 * SECOND)
        slack += (self.burst - self.level) / 10**9
        return None if abs(self.level) <= slack else self.level > 0

    def take(self, units: int) -> None:
        self.level -= units
        self.rounded += 1


def marked(frame: bytes, dscp: int) -> bytes:
    """The frame with the mark, its IPv4 checksum computed anew."""
    if frame[12:14] == b"\x08\x00":
        length = (frame[14] & 15) * 4
        header = bytearray(frame[14 : 14 + length])
        header[1] = dscp << 2 | header[1] & 3
        header[10:12] = bytes(2)
        header[10:12] = _checksum(bytes(header))
        return frame[:14] + bytes(header) + frame[14 + length :]
    if frame[12:14] == b"\x86\xdd":
        (word,) = struct.unpack_from(">I", frame, 14)
        word = word & ~(63 << 22) | dscp << 22
        return frame[:14] + struct.pack(">I", word) + frame[18:]
    return frame


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)
