"""The blocks of a pcapng stream as `pcapng.Writer` makes them, passed on whole and counted.

Imports nothing of the agent: vnetctl starts fast.
"""

import struct

_HEADER = struct.Struct("<II")
_OPTION = struct.Struct("<HH")
_STATISTICS, _PACKET = 5, 6
#: Options of interface statistics: the comment, and how many frames were lost.
_COMMENT, _DROPPED = 1, 5
#: No block of a capture is longer: a frame of 64 KiB with its options.
MAX_BLOCK = 1 << 18


class NoBlocks(ValueError):
    """The bytes are no pcapng of this kind."""


class BlockReader:
    """`packets` and `lost` count frames; `reasons` says why they were lost, by the stream's words.

    `is_ended` when the statistics have come that stand at the end.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.packets = 0
        self.lost = 0
        self.reasons: dict[str, int] = {}
        self.is_ended = False

    def feed(self, data: bytes) -> bytes:
        """The blocks that are whole by now; the rest waits. Raises NoBlocks."""
        data = self._rest + data
        at = 0
        while len(data) - at >= _HEADER.size:
            kind, size = _HEADER.unpack_from(data, at)
            if not 12 <= size <= MAX_BLOCK or size % 4:
                raise NoBlocks(f"a block of {size} bytes")
            if len(data) - at < size:
                break
            self._count(kind, data[at + _HEADER.size : at + size - 4])
            at += size
        self._rest = data[at:]
        return data[:at]

    def _count(self, kind: int, body: bytes) -> None:
        if kind == _PACKET:
            self.packets += 1
        elif kind == _STATISTICS:
            self.is_ended = True
            self._read_statistics(body)

    def _read_statistics(self, body: bytes) -> None:
        at = 12
        while at + _OPTION.size <= len(body):
            code, size = _OPTION.unpack_from(body, at)
            value = body[at + _OPTION.size : at + _OPTION.size + size]
            if code == 0:
                return
            if code == _DROPPED and size == 8:
                self.lost += int.from_bytes(value, "little")
            elif code == _COMMENT:
                self._read_comment(value.decode(errors="replace"))
            at += _OPTION.size + size + -size % 4

    def _read_comment(self, text: str) -> None:
        for word in text.split():
            name, _, number = word.partition("=")
            if number.isascii() and number.isdecimal() and len(number) < 20:
                self.reasons[name] = self.reasons.get(name, 0) + int(number)
