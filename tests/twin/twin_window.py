"""TCP windows of csrc/core/window.h once more, in plain Python.

`judge` says whether a segment is of the connection ("in"), is left to its receiver ("aside") or
has foreign numbers ("out"), and lets those that are of it move the windows.
"""

from dataclasses import dataclass, field
from typing import Any

from twin_parse import Packet

from vnet_agent.model.policy import Direction

FIN, SYN, RST, ACK = 1, 2, 4, 16
MAX_SCALE = 14


def distance(a: int, b: int) -> int:
    """How far `a` is beyond `b` on the circle of sequence numbers, negative when behind."""
    return (a - b + (1 << 31)) % (1 << 32) - (1 << 31)


def farther(a: int, b: int | None) -> int:
    return a if b is None or distance(a, b) > 0 else b


def plus(a: int, b: int) -> int:
    return (a + b) % (1 << 32)


@dataclass
class Side:
    """One end: what it sent, and what its peer acknowledged (`ack`) and allows (`limit`).

    After a fragmented segment the numbers are old: `old` keeps them for resets.
    """

    end: int | None = None
    ack: int | None = None
    limit: int | None = None
    old: tuple[int | None, int | None] | None = None
    largest: int = 0
    scale: int = 0
    offered: bool = False

    @property
    def untouched(self) -> bool:
        return (self.end, self.ack, self.old, self.offered) == (None, None, None, False)

    @property
    def room(self) -> int:
        return (self.largest << self.scale) + 1


@dataclass
class Windows:
    sides: dict[Direction, Side] = field(
        default_factory=lambda: {Direction.INGRESS: Side(), Direction.EGRESS: Side()}
    )

    def pair(self, direction: Direction) -> tuple[Side, Side]:
        own = self.sides[direction]
        return own, next(side for side in self.sides.values() if side is not own)


def segment_end(packet: Packet) -> int:
    syn, fin = packet.flags & SYN, packet.flags & FIN
    return plus(packet.seq, packet.payload + bool(syn) + bool(fin))


def offered_scale(packet: Packet) -> int | None:
    """Of a SYN's options; the largest when there are more than twelve before it."""
    rest = packet.options
    for _ in range(12):
        if not rest or rest[0] == 0:
            return None
        if rest[0] == 1:
            rest = rest[1:]
            continue
        if len(rest) < 2 or rest[1] < 2:
            return None
        if rest[0] == 3:
            return min(rest[2], MAX_SCALE) if rest[1] == 3 and len(rest) >= 3 else None
        rest = rest[rest[1] :]
    return MAX_SCALE


def begin(windows: Windows, packet: Packet, direction: Direction) -> None:
    own, peer = windows.pair(direction)
    if packet.flags & SYN:
        _open(own, peer, packet)
    elif direction is Direction.EGRESS and packet.kind == "whole":
        _learn(own, peer, packet)


def judge(conn: Any, packet: Packet, direction: Direction) -> str:
    own, peer = conn.windows.pair(direction)
    if packet.flags & RST:
        return _reset(own, peer, packet)
    if packet.flags & SYN:
        return _syn(own, peer, packet, conn.state, reply=direction is not conn.origin)
    return _data(own, peer, packet, direction)


def _open(own: Side, peer: Side, packet: Packet) -> None:
    scale = offered_scale(packet)
    own.end, own.largest, own.old = segment_end(packet), packet.window, None
    own.scale, own.offered = scale or 0, scale is not None
    if packet.flags & ACK:
        if not (own.offered and peer.offered):
            own.scale = peer.scale = 0
        peer.ack, peer.limit = packet.ack, plus(packet.ack, packet.window)


def _learn(own: Side, peer: Side, packet: Packet) -> None:
    if own.untouched and peer.untouched:
        own.scale = peer.scale = MAX_SCALE
        own.offered = peer.offered = True
    own.end = farther(segment_end(packet), own.end)
    peer.end = farther(packet.ack, peer.end)
    own.largest = max(own.largest, packet.window)
    peer.ack, peer.limit = packet.ack, plus(packet.ack, packet.window << own.scale)
    own.old = peer.old = None


def _data(own: Side, peer: Side, packet: Packet, direction: Direction) -> str:
    if None in (own.end, own.ack, peer.end, peer.ack):
        if direction is Direction.EGRESS:
            if packet.kind == "whole":
                _learn(own, peer, packet)
            return "in"
        if own.end is None or peer.end is None:
            return "in"
    end = segment_end(packet)
    fits = (
        own.limit is None or distance(packet.seq, own.limit) <= 0,
        distance(plus(end, peer.room), own.end) >= 0,
        distance(packet.ack, peer.end) <= 0,
        distance(plus(packet.ack, max(own.room, 66000)), peer.end) >= 0,
    )
    if not all(fits):
        return "out"
    own.end = farther(end, own.end)
    peer.ack = farther(packet.ack, peer.ack)
    peer.limit = farther(plus(packet.ack, packet.window << own.scale), peer.limit)
    own.largest = max(own.largest, packet.window)
    if packet.kind != "whole":
        for side in (own, peer):
            side.old = (side.end, side.ack)
            side.end = side.ack = side.limit = None
    return "in"


def _reset(own: Side, peer: Side, packet: Packet) -> str:
    numbers = (own.end, own.ack)
    if own.old is not None:
        numbers = tuple(
            new if new is not None else old for new, old in zip(numbers, own.old, strict=True)
        )
    if numbers == (None, None):
        answers = packet.flags & ACK and packet.ack == peer.end
        return "in" if peer.end is None or answers else "out"
    if packet.seq in numbers:
        return "in"
    if None in (own.end, own.ack, peer.end, peer.ack):
        return "aside"
    fits = (
        distance(packet.seq, own.limit) <= 0,
        distance(plus(packet.seq, peer.room), own.end) >= 0,
    )
    return "aside" if all(fits) else "out"


def _syn(own: Side, peer: Side, packet: Packet, state: str, *, reply: bool) -> str:
    if state not in ("syn-sent", "syn-received"):
        return "aside"
    if state == "syn-received" and own.end is not None:
        return "in" if segment_end(packet) == own.end else "aside"
    if packet.flags & ACK:
        if state == "syn-sent" and not reply:
            return "aside"
        if peer.end is not None and not -66000 <= distance(packet.ack, peer.end) <= 0:
            return "out"
    _open(own, peer, packet)
    return "in"
