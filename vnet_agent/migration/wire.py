"""The stream of connection records between two agents, and in files of `vnetctl conn export`.

A stream is a header and frames, all little endian:

    header   8 bytes magic, u16 version, u16 zero
    frame    u32 length, u8 type, u32 sequence, payload of `length` bytes, u32 CRC

The first frame is HELLO with sequence 0, the last one FINAL or ABORT; nothing may follow it. The
CRC-32 runs over all bytes from the header on, CRCs left out: a frame that was changed, lost,
repeated, moved or taken from another stream is found at that frame, before its payload is used.
RECORDS carries a u16 port index (into HELLO's ports) and whole records (csrc/core/record.h), which
only the datapath understands. The other payloads are JSON.
"""

import enum
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from vnet_agent import exceptions

MAGIC = b"\x89VNETCX\n"
#: Versions that this agent speaks, the best first.
VERSIONS = (3, 2, 1)
#: From this one on there are records of translations.
TRANSLATIONS = 2
#: From this one on there is a second stream, of frames; see `Frames`.
HANDOVER = 3
CONTENT_TYPE = "application/vnd.vnet.connections"

HEADER = struct.Struct("<8sHH")
FRAME = struct.Struct("<IBI")
CRC = struct.Struct("<I")
INDEX = struct.Struct("<H")
FRAMES_HEAD = struct.Struct("<HQ")
LENGTH = struct.Struct("<I")

MAX_PORTS = 256
#: Most bytes of frames, and of what stands before each, in one FRAMES.
MAX_FRAMES = 1 << 20
#: Most bytes of records in one frame: a chunk of `Driver.export` with a margin.
MAX_RECORDS = 1 << 20
#: Most bytes of records that `decode_stream` takes in memory: four million of 64 bytes.
MAX_DOCUMENT = 1 << 28


class FrameType(enum.IntEnum):
    HELLO = 1
    RECORDS = 2
    ROUND_END = 3
    FINAL = 4
    ABORT = 5
    KEEPALIVE = 6
    FRAMES = 7
    MARK = 8


_LIMITS = {
    FrameType.HELLO: 1 << 16,
    FrameType.RECORDS: INDEX.size + MAX_RECORDS,
    FrameType.ROUND_END: 1 << 10,
    FrameType.FINAL: 1 << 12,
    FrameType.ABORT: 1 << 12,
    FrameType.KEEPALIVE: 0,
    FrameType.FRAMES: FRAMES_HEAD.size + MAX_FRAMES,
    FrameType.MARK: 1 << 10,
}


class StreamPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port as the sender names it; the receiver finds its own by UUID, else by MAC."""

    uuid: str
    mac: str
    generation: int


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What the stream is. `attempt` counts the streams that one session has opened."""

    session: str
    instance: str
    host: str
    ports: tuple[StreamPort, ...]
    attempt: int = 0


class Records(msgspec.Struct, frozen=True):
    """Whole wire records of the port at index `port` of HELLO."""

    port: int
    data: bytes


class RoundEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that had changed up to here was sent. Round 0 is the full copy.

    `chunks` and `size` (bytes of records) count from the start of the stream.
    """

    round: int
    chunks: int
    size: int


class Final(msgspec.Struct, frozen=True, kw_only=True):
    """The guest has stopped on the sender and this was the rest; totals of the stream.

    `paused_ns` is the sender's wall clock when its guest paused, None if it saw no pause.
    """

    rounds: int
    chunks: int
    size: int
    paused_ns: int | None = None


class Verdict(enum.StrEnum):
    """What an aborted stream means for the session."""

    RETRY = "retry"
    """A new stream may be asked for."""

    KEPT = "kept"
    """The guest stays with the sender: the migration failed."""

    ENDED = "ended"
    """No more will come, wherever the guest runs."""


class Abort(msgspec.Struct, frozen=True, kw_only=True):
    """The sender gives up."""

    reason: str
    verdict: Verdict = Verdict.ENDED


class Keepalive(msgspec.Struct, frozen=True):
    """Nothing to say, still here."""


class Frames(msgspec.Struct, frozen=True):
    """Frames for the VM that came to the sender, of the port at index `port` of HELLO, in order.

    A stream of its own carries them, with MARKs in between, behind the HELLO. `number` is the
    first one's: all that the sender ever sends of a session count, MARKs too, from 0 on.
    """

    port: int
    number: int
    frames: tuple[bytes, ...]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What had come for the port to the sender before `token` was asked for was sent before this.

    `last`: the sender takes no more of what its own host has for it. 0 was asked by nobody.
    """

    number: int
    port: int
    token: int
    last: bool


Frame = Hello | Records | RoundEnd | Final | Abort | Keepalive | Frames | Mark

_JSON: dict[FrameType, type[Hello] | type[RoundEnd] | type[Final] | type[Abort] | type[Mark]] = {
    FrameType.HELLO: Hello,
    FrameType.ROUND_END: RoundEnd,
    FrameType.FINAL: Final,
    FrameType.ABORT: Abort,
    FrameType.MARK: Mark,
}
_TYPES = {struct_type: frame_type for frame_type, struct_type in _JSON.items()}


def negotiate(offered: Sequence[int]) -> int | None:
    """The best version that both sides speak, None if there is none."""
    return next((version for version in VERSIONS if version in offered), None)


class Encoder:
    """Makes the bytes of one stream; counts rounds, chunks and bytes of records."""

    def __init__(self, *, version: int = VERSIONS[0]) -> None:
        self.rounds = self.chunks = self.size = 0
        self._sequence = 0
        self._header = HEADER.pack(MAGIC, version, 0)
        self._crc = zlib.crc32(self._header)

    def hello(self, hello: Hello) -> bytes:
        """Header and HELLO: how every stream begins."""
        return self._header + self._encode(FrameType.HELLO, msgspec.json.encode(hello))

    def records(self, port: int, data: bytes) -> bytes:
        """One chunk of whole records; ValueError if it is empty or above MAX_RECORDS."""
        if not 0 < len(data) <= MAX_RECORDS:
            raise ValueError(f"a chunk of {len(data)} bytes; 1 to {MAX_RECORDS} can be sent")
        self.chunks += 1
        self.size += len(data)
        return self._encode(FrameType.RECORDS, INDEX.pack(port) + data)

    def round_end(self) -> bytes:
        frame = RoundEnd(round=self.rounds, chunks=self.chunks, size=self.size)
        self.rounds += 1
        return self._encode(FrameType.ROUND_END, msgspec.json.encode(frame))

    def final(self, *, paused_ns: int | None = None) -> bytes:
        frame = Final(rounds=self.rounds, chunks=self.chunks, size=self.size, paused_ns=paused_ns)
        return self._encode(FrameType.FINAL, msgspec.json.encode(frame))

    def abort(self, reason: str, *, verdict: Verdict = Verdict.ENDED) -> bytes:
        frame = Abort(reason=reason[:500], verdict=verdict)
        return self._encode(FrameType.ABORT, msgspec.json.encode(frame))

    def keepalive(self) -> bytes:
        return self._encode(FrameType.KEEPALIVE, b"")

    def frames(self, port: int, number: int, frames: Sequence[bytes]) -> bytes:
        """Up to MAX_FRAMES bytes of frames, 4 of them for each; ValueError if there are more."""
        parts = [FRAMES_HEAD.pack(port, number)]
        for frame in frames:
            parts += (LENGTH.pack(len(frame)), frame)
        payload = b"".join(parts)
        if len(payload) > FRAMES_HEAD.size + MAX_FRAMES:
            raise ValueError(f"{len(payload)} bytes of frames; {MAX_FRAMES} can be sent")
        return self._encode(FrameType.FRAMES, payload)

    def mark(self, mark: Mark) -> bytes:
        return self._encode(FrameType.MARK, msgspec.json.encode(mark))

    def _encode(self, kind: FrameType, payload: bytes) -> bytes:
        body = FRAME.pack(len(payload), kind, self._sequence) + payload
        self._sequence += 1
        self._crc = zlib.crc32(body, self._crc)
        return body + CRC.pack(self._crc)


class Decoder:
    """Takes a stream in pieces of any size; holds at most one unfinished frame.

    Every error is a RecordError with `offset`, the position of the frame in the stream; the
    decoder gives the same error for ever after.
    """

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.ended = False
        self._buffer = bytearray()
        self._offset = 0
        self._sequence = 0
        self._crc: int | None = None
        self._rounds = self._chunks = self._size = 0
        self._error: exceptions.RecordError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with `data`, each of them verified."""
        if self._error is not None:
            raise self._error
        self._buffer += data
        frames: list[Frame] = []
        if self._crc is None and not self._take_header():
            return frames
        while (frame := self._take_frame()) is not None:
            frames.append(frame)
        return frames

    def finish(self) -> None:
        """No more bytes come: RecordError unless FINAL or ABORT was the last frame."""
        if self._error is not None:
            raise self._error
        if not self.ended:
            raise self._fail("the stream ends before its FINAL frame")

    def _fail(self, detail: str) -> exceptions.RecordError:
        self._buffer.clear()
        self._error = exceptions.RecordError(
            detail=f"byte {self._offset}: {detail}", offset=self._offset
        )
        return self._error

    def _consume(self, size: int) -> None:
        del self._buffer[:size]
        self._offset += size

    def _take_header(self) -> bool:
        if not MAGIC.startswith(self._buffer[: len(MAGIC)]):
            raise self._fail("this is no stream of connections")
        if len(self._buffer) < HEADER.size:
            return False
        header = bytes(self._buffer[: HEADER.size])
        _, version, zero = HEADER.unpack(header)
        if version not in VERSIONS or zero:
            known = ", ".join(map(str, VERSIONS))
            raise self._fail(f"version {version} is not known; this agent speaks {known}")
        self._crc = zlib.crc32(header)
        self._consume(HEADER.size)
        return True

    def _take_frame(self) -> Frame | None:
        if self.ended and self._buffer:
            raise self._fail("bytes after the last frame")
        if len(self._buffer) < FRAME.size:
            return None
        length, number, sequence = FRAME.unpack_from(self._buffer)
        kind = self._check_head(length, number, sequence)
        whole = FRAME.size + length + CRC.size
        if len(self._buffer) < whole:
            return None
        with memoryview(self._buffer) as view:
            crc = zlib.crc32(view[: FRAME.size + length], self._crc or 0)
            payload = bytes(view[FRAME.size : FRAME.size + length])
        if crc != CRC.unpack_from(self._buffer, FRAME.size + length)[0]:
            raise self._fail(f"the CRC of the {kind.name} frame does not match")
        frame = self._decode(kind, payload)
        self._crc = crc
        self._sequence += 1
        self._consume(whole)
        return frame

    def _check_head(self, length: int, number: int, sequence: int) -> FrameType:
        try:
            kind = FrameType(number)
        except ValueError:
            raise self._fail(f"frame type {number} is not known") from None
        if length > _LIMITS[kind]:
            raise self._fail(f"a {kind.name} frame of {length} bytes is too long")
        if sequence != self._sequence:
            raise self._fail(f"frame {sequence} where {self._sequence} was due")
        if (kind is FrameType.HELLO) is not (self.hello is None):
            raise self._fail(f"{kind.name} is not due here")
        return kind

    def _decode(self, kind: FrameType, payload: bytes) -> Frame:
        if kind is FrameType.KEEPALIVE:
            return Keepalive()
        if kind is FrameType.RECORDS:
            return self._decode_records(payload)
        if kind is FrameType.FRAMES:
            return self._decode_frames(payload)
        try:
            frame = msgspec.json.decode(payload, type=_JSON[kind])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise self._fail(f"{kind.name}: {error}") from error
        self._check(frame)
        return frame

    def _decode_frames(self, payload: bytes) -> Frames:
        if len(payload) < FRAMES_HEAD.size:
            raise self._fail("a FRAMES frame without its head")
        port, number = FRAMES_HEAD.unpack_from(payload)
        self._check_port(port)
        frames: list[bytes] = []
        place = FRAMES_HEAD.size
        while place < len(payload):
            begin = place + LENGTH.size
            length = LENGTH.unpack_from(payload, place)[0] if begin <= len(payload) else -1
            if not 0 <= length <= len(payload) - begin:
                raise self._fail(f"frame {len(frames)} of a FRAMES frame is longer than that")
            frames.append(payload[begin : begin + length])
            place = begin + length
        return Frames(port, number, tuple(frames))

    def _check_port(self, port: int) -> None:
        assert self.hello is not None
        if not 0 <= port < len(self.hello.ports):
            raise self._fail(f"port index {port} of {len(self.hello.ports)} ports")

    def _decode_records(self, payload: bytes) -> Records:
        if len(payload) <= INDEX.size:
            raise self._fail("a RECORDS frame without records")
        (port,) = INDEX.unpack_from(payload)
        self._check_port(port)
        self._chunks += 1
        self._size += len(payload) - INDEX.size
        return Records(port, payload[INDEX.size :])

    def _check(self, frame: Hello | RoundEnd | Final | Abort | Mark) -> None:
        if isinstance(frame, Mark):
            self._check_port(frame.port)
            return
        if isinstance(frame, Hello):
            if not len(frame.ports) <= MAX_PORTS:
                raise self._fail(f"{len(frame.ports)} ports; {MAX_PORTS} are allowed")
            self.hello = frame
            return
        if isinstance(frame, Abort):
            self.ended = True
            return
        if (frame.chunks, frame.size) != (self._chunks, self._size):
            raise self._fail(
                f"{frame.chunks} chunks of {frame.size} bytes were sent, "
                f"{self._chunks} of {self._size} came"
            )
        number = frame.round if isinstance(frame, RoundEnd) else frame.rounds
        if number != self._rounds:
            raise self._fail(f"round {number} where {self._rounds} was due")
        if isinstance(frame, RoundEnd):
            self._rounds += 1
        else:
            self.ended = True


def encode_stream(chunks: Iterable[bytes], hello: Hello) -> Iterator[bytes]:
    """A whole stream of one port's records (chunks of `Driver.export`), piece by piece."""
    encoder = Encoder(version=TRANSLATIONS)
    yield encoder.hello(hello)
    for chunk in chunks:
        if chunk:
            yield encoder.records(0, chunk)
    yield encoder.round_end() + encoder.final()


def decode_stream(data: bytes | Iterable[bytes]) -> tuple[Hello, list[Records]]:
    """What `encode_stream` made, all of it verified; RecordError if anything is wrong with it."""
    decoder = Decoder()
    records: list[Records] = []
    size = 0
    for piece in [data] if isinstance(data, bytes) else data:
        for frame in decoder.feed(piece):
            if isinstance(frame, Records):
                records.append(frame)
                size += len(frame.data)
            elif isinstance(frame, Abort):
                raise exceptions.RecordError(detail=f"the sender gave up: {frame.reason}")
        if size > MAX_DOCUMENT:
            raise exceptions.RecordError(detail=f"more than {MAX_DOCUMENT} bytes of records")
    decoder.finish()
    assert decoder.hello is not None
    return decoder.hello, records
