"""A frame out of a capture file, which anybody may have written."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet_agent.cli import pcap
from vnet_agent.cli.client import Refused

FRAMES = [b"a" * 60, b"b" * 61]


def classic(frames, order="<", *, link=1, length=None):
    head = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    return head + b"".join(
        struct.pack(order + "IIII", 0, 0, len(item), length or len(item)) + item for item in frames
    )


def block(order, kind, body):
    body = body.ljust(-(-len(body) // 4) * 4, b"\0")
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def modern(frames, order="<", *, link=1, simple=False):
    parts = [
        block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(order, 1, struct.pack(order + "HHI", link, 0, 0)),
        block(order, 5, b"statistics"),
    ]
    for item in frames:
        size = len(item)
        head = (order + "I", size) if simple else (order + "IIIII", 0, 0, 0, size, size)
        parts.append(block(order, 3 if simple else 6, struct.pack(*head) + item))
    return b"".join(parts)


FILES = [classic(FRAMES, order) for order in "<>"]
FILES += [modern(FRAMES, order, simple=simple) for order in "<>" for simple in (False, True)]


@pytest.mark.parametrize("data", FILES)
def test_every_form(data):
    for number, frame in enumerate(FRAMES, 1):
        assert pcap.read_frame(data, number, name="x") == frame
    with pytest.raises(Refused, match="x has 2 frames, and no frame 3"):
        pcap.read_frame(data, 3, name="x")


def test_what_was_cut_off_is_zeros():
    assert pcap.read_frame(classic([b"a" * 20], length=30), 1, name="x") == b"a" * 20 + bytes(10)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "neither"),
        (classic(FRAMES, link=113), "no Ethernet"),
        (modern(FRAMES, link=113), "no Ethernet"),
        (classic(FRAMES)[:90], "cut short behind frame 0"),
        (classic(FRAMES)[:20], "cut short"),
        (classic(FRAMES, length=1 << 30), "longer than"),
    ],
)
def test_what_is_no_frame(data, says):
    with pytest.raises(Refused, match=says):
        pcap.read_frame(data, 1, name="x")


@given(
    data=st.sampled_from(FILES), at=st.integers(0, 300), junk=st.binary(max_size=9),
    number=st.integers(-1, 3),
)  # fmt: skip
def test_any_bytes_are_a_frame_or_one_refusal(data, at, junk, number):
    try:
        frame = pcap.read_frame(data[:at] + junk + data[at + len(junk) :], number, name="x")
    except Refused:
        return
    assert len(frame) <= pcap.MAX_FRAME
