"""The stream of connection records: what goes in comes out, and nothing else does."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet_agent import exceptions
from vnet_agent.migration import wire

PORTS = (
    wire.StreamPort(uuid="9d7c2f52-0001", mac="fa:16:3e:00:00:01", generation=3),
    wire.StreamPort(uuid="9d7c2f52-0002", mac="fa:16:3e:00:00:02", generation=3),
)
HELLO = wire.Hello(session="s", instance="i", host="a", ports=PORTS, attempt=2)


def frames_of_stream(session: str = "s") -> list[bytes]:
    encoder = wire.Encoder()
    hello = wire.Hello(session=session, instance="i", host="a", ports=PORTS)
    return [
        encoder.hello(hello),
        encoder.records(0, b"a" * 64),
        encoder.records(1, b"b" * 64),
        encoder.round_end(),
        encoder.keepalive(),
        encoder.records(0, b"c" * 32),
        encoder.round_end(),
        encoder.final(paused_ns=17),
    ]


def decode(data: bytes) -> list[wire.Frame]:
    decoder = wire.Decoder()
    frames = decoder.feed(data)
    decoder.finish()
    return frames


def test_round_trip() -> None:
    frames = decode(b"".join(frames_of_stream()))
    assert frames[1:] == [
        wire.Records(0, b"a" * 64),
        wire.Records(1, b"b" * 64),
        wire.RoundEnd(round=0, chunks=2, size=128),
        wire.Keepalive(),
        wire.Records(0, b"c" * 32),
        wire.RoundEnd(round=1, chunks=3, size=160),
        wire.Final(rounds=2, chunks=3, size=160, paused_ns=17),
    ]
    assert isinstance(frames[0], wire.Hello)
    assert frames[0].ports == PORTS


def stream_of_frames() -> bytes:
    encoder = wire.Encoder(version=wire.HANDOVER)
    return b"".join(
        (
            encoder.hello(HELLO),
            encoder.frames(1, 0, [b"one", b"", b"three" * 300]),
            encoder.mark(wire.Mark(number=3, port=1, token=5, last=False)),
            encoder.frames(0, 4, []),
            encoder.mark(wire.Mark(number=4, port=0, token=0, last=True)),
            encoder.final(),
        )
    )


def test_frames_and_marks() -> None:
    assert decode(stream_of_frames())[1:] == [
        wire.Frames(1, 0, (b"one", b"", b"three" * 300)),
        wire.Mark(number=3, port=1, token=5, last=False),
        wire.Frames(0, 4, ()),
        wire.Mark(number=4, port=0, token=0, last=True),
        wire.Final(rounds=0, chunks=0, size=0),
    ]
    with pytest.raises(ValueError, match="can be sent"):
        wire.Encoder().frames(0, 0, [bytes(wire.MAX_FRAMES)])


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"\0" * 9, "without its head"),
        (wire.FRAMES_HEAD.pack(2, 0), "port index 2 of 2"),
        (wire.FRAMES_HEAD.pack(0, 0) + b"\x01\0\0", "frame 0 of a FRAMES frame is longer"),
        (wire.FRAMES_HEAD.pack(0, 0) + b"\x02\0\0\0x", "frame 0 of a FRAMES frame is longer"),
        (wire.FRAMES_HEAD.pack(0, 0) + b"\0\0\0\0" + b"\xff" * 4, "frame 1 of a FRAMES"),
    ],
)
def test_frames_that_are_none(payload: bytes, said: str) -> None:
    encoder = wire.Encoder()
    data = encoder.hello(HELLO) + encoder._encode(wire.FrameType.FRAMES, payload)
    with pytest.raises(exceptions.RecordError, match=said):
        decode(data)


@given(st.lists(st.integers(0, 1200), max_size=30))
def test_pieces_of_any_size(cuts: list[int]) -> None:
    data = b"".join(frames_of_stream())
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    decoder = wire.Decoder()
    frames: list[wire.Frame] = []
    for low, high in itertools.pairwise(edges):
        frames += decoder.feed(data[low:high])
    decoder.finish()
    assert frames == decode(data)


def test_truncated_anywhere() -> None:
    data = b"".join(frames_of_stream())
    for length in range(len(data)):
        with pytest.raises(exceptions.RecordError):
            decode(data[:length])


def test_any_flipped_bit_is_found() -> None:
    data = b"".join(frames_of_stream())
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with pytest.raises(exceptions.RecordError):
            decode(bytes(changed))


@given(st.data())
def test_frames_reordered_dropped_or_repeated(data: st.DataObject) -> None:
    frames = frames_of_stream()
    order = data.draw(
        st.lists(st.integers(0, len(frames) - 1), max_size=12).filter(
            lambda chosen: chosen != list(range(len(frames)))
        )
    )
    with pytest.raises(exceptions.RecordError):
        decode(b"".join(frames[index] for index in order))


def test_frame_of_another_session_is_refused() -> None:
    mine, other = frames_of_stream(), frames_of_stream("t")
    mine[1] = other[1]
    with pytest.raises(exceptions.RecordError, match="CRC"):
        decode(b"".join(mine))


def test_nothing_of_a_bad_frame_comes_out() -> None:
    """Records are given only once their own frame is verified."""
    frames = frames_of_stream()
    bad = bytearray(frames[2])
    bad[20] ^= 1
    decoder = wire.Decoder()
    assert len(decoder.feed(frames[0] + frames[1])) == 2
    with pytest.raises(exceptions.RecordError) as caught:
        decoder.feed(bytes(bad))
    assert caught.value.offset == len(frames[0] + frames[1])
    with pytest.raises(exceptions.RecordError):
        decoder.feed(frames[3])


def test_bytes_after_the_end() -> None:
    with pytest.raises(exceptions.RecordError, match="after the last"):
        decode(b"".join(frames_of_stream()) + b"\0")


def head(kind: int, length: int, sequence: int = 0) -> bytes:
    return wire.HEADER.pack(wire.MAGIC, 1, 0) + wire.FRAME.pack(length, kind, sequence)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\n", "no stream"),
        (wire.HEADER.pack(wire.MAGIC, 4, 0), "version 4"),
        (head(1, 1 << 17), "too long"),
        (head(77, 4), "type 77"),
        (head(2, 4), "not due"),
        (head(1, 4, sequence=1), "frame 1 where 0"),
    ],
)
def test_refused_before_the_payload_is_read(data: bytes, said: str) -> None:
    with pytest.raises(exceptions.RecordError, match=said):
        wire.Decoder().feed(data)


def test_wrong_counts_and_ports() -> None:
    encoder = wire.Encoder()
    start = encoder.hello(HELLO)
    encoder.chunks = 5
    with pytest.raises(exceptions.RecordError, match="5 chunks"):
        decode(start + encoder.round_end())
    encoder = wire.Encoder()
    with pytest.raises(exceptions.RecordError, match="port index 2 of 2"):
        decode(encoder.hello(HELLO) + encoder.records(2, b"x"))
    encoder = wire.Encoder()
    many = wire.Hello(session="s", instance="i", host="a", ports=PORTS * 129)
    with pytest.raises(exceptions.RecordError, match="258 ports"):
        decode(encoder.hello(many))


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes(noise: bytes, with_start: bool) -> None:
    start = wire.Encoder().hello(HELLO) if with_start else b""
    with pytest.raises(exceptions.RecordError):
        decode(start + noise)


def test_chunk_bounds() -> None:
    encoder = wire.Encoder()
    encoder.hello(HELLO)
    for size in (0, wire.MAX_RECORDS + 1):
        with pytest.raises(ValueError, match="chunk of"):
            encoder.records(0, b"x" * size)


def test_negotiate() -> None:
    assert wire.negotiate([7, 1]) == 1
    assert wire.negotiate([1, 2]) == 2
    assert wire.negotiate([4, 5]) is None


def test_document_of_one_port() -> None:
    pieces = list(wire.encode_stream(iter([b"one", b"", b"two"]), HELLO))
    hello, records = wire.decode_stream(pieces)
    assert hello == HELLO
    assert b"".join(each.data for each in records) == b"onetwo"
    assert wire.decode_stream(b"".join(pieces)) == (hello, records)
    with pytest.raises(exceptions.RecordError):
        wire.decode_stream(pieces[:-1])


def test_document_that_its_sender_gave_up() -> None:
    encoder = wire.Encoder()
    data = encoder.hello(HELLO) + encoder.abort("no more")
    with pytest.raises(exceptions.RecordError, match="no more"):
        wire.decode_stream(data)
