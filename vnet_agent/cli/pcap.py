"""One Ethernet frame out of a capture file: pcap and pcapng, of either byte order."""

import struct
from collections.abc import Iterator

from vnet_agent.cli.client import Refused

#: Bytes of a file that are read, and of a frame that are taken.
MAX_FILE = 64 << 20
MAX_FRAME = 1 << 18

_PCAP = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<"}
_PCAP |= {magic[::-1]: ">" for magic in _PCAP}
_SECTION = b"\x0a\x0d\x0d\x0a"
_INTERFACE, _SIMPLE, _ENHANCED = 1, 3, 6
_ETHERNET = 1


def read_frame(data: bytes, number: int, *, name: str) -> bytes:
    """Frame `number`, counted from 1; what the capture cut off is zeros again.

    Raises Refused: no such frame, no capture file, no Ethernet.
    """
    if data[:4] in _PCAP:
        frames = _pcap(data, _PCAP[data[:4]])
    elif data[:4] == _SECTION:
        frames = _pcapng(data)
    else:
        raise Refused(detail=f"{name} is neither pcap nor pcapng")
    count = 0
    try:
        for count, (link, frame, length) in enumerate(frames, 1):
            if count < number:
                continue
            if link != _ETHERNET:
                raise Refused(detail=f"Frame {number} of {name} is no Ethernet frame")
            if max(length, len(frame)) > MAX_FRAME:
                raise Refused(detail=f"Frame {number} of {name} is longer than {MAX_FRAME} bytes")
            return frame.ljust(length, b"\0")
    except struct.error:
        raise Refused(detail=f"{name} is cut short behind frame {count}") from None
    raise Refused(detail=f"{name} has {count} frames, and no frame {number}")


#: Link type, captured bytes, length on the wire.
_Frame = tuple[int, bytes, int]


def _pcap(data: bytes, order: str) -> Iterator[_Frame]:
    (link,) = struct.unpack_from(order + "I", data, 20)
    at = 24
    while at < len(data):
        captured, length = struct.unpack_from(order + "II", data, at + 8)
        yield link & 0xFFFF, _take(data, at + 16, captured), length
        at += 16 + captured


def _pcapng(data: bytes) -> Iterator[_Frame]:
    order, links, at = "<", list[int](), 0
    while at < len(data):
        if data[at : at + 4] == _SECTION:
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        kind, size = struct.unpack_from(order + "II", data, at)
        if size < 12 or size % 4:
            raise struct.error("block size")
        body = _take(data, at + 8, size - 12)
        if kind == _INTERFACE:
            links.append(struct.unpack_from(order + "H", body)[0])
        elif kind == _ENHANCED:
            interface, _, _, captured, length = struct.unpack_from(order + "IIIII", body)
            link = links[interface] if interface < len(links) else -1
            yield link, _take(body, 20, captured), length
        elif kind == _SIMPLE:
            (length,) = struct.unpack_from(order + "I", body)
            yield links[0] if links else -1, body[4 : 4 + length], length
        at += size


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise struct.error("cut short")
    return data[at : at + size]
