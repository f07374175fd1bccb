"""Frames of hosts and guests that leave work to the device: checksums that are not made yet."""

import struct

_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_TAGS = (b"\x81\x00", b"\x88\xa8")
#: Where the checksum stands in the transport header, by protocol.
_CHECKSUM_AT = {6: 16, 17: 6}


def is_checksum_unfinished(frame: bytes) -> bool:
    """Whether the TCP or UDP checksum is the sum of the pseudo-header only.

    So the kernel leaves it (CHECKSUM_PARTIAL) for the device, and Wireshark calls it wrong. A
    right checksum looks the same once in 65536 frames. Fragments and IPv6 extension headers are
    not followed. Any bytes will do; what is cut short is not unfinished.
    """
    return _find_unfinished(frame) is not None


def finish_checksum(frame: bytes) -> bytes:
    """The frame with the checksum made that its sender left to the device, if it did.

    It must be whole. A right checksum that looks unfinished stays as it is.
    """
    found = _find_unfinished(frame)
    if found is None:
        return frame
    place, transport, length = found
    data = frame[transport : transport + length]
    if len(data) < length:
        return frame
    # What stands there is the pseudo-header's part of the sum.
    words = struct.unpack(f"!{(length + 1) // 2}H", data + b"\0" * (length & 1))
    checksum = ~_fold(sum(words)) & 0xFFFF
    is_udp = place == transport + _CHECKSUM_AT[17]
    packed = (0xFFFF if is_udp and checksum == 0 else checksum).to_bytes(2, "big")
    return frame[:place] + packed + frame[place + 2 :]


def _find_unfinished(frame: bytes) -> tuple[int, int, int] | None:
    """Where the checksum stands, and where the transport's part begins and how long it is."""
    at = 12
    while frame[at : at + 2] in _TAGS:
        at += 4
    kind, at = frame[at : at + 2], at + 2
    found = None
    if kind == _IPV4:
        found = _read_ipv4(frame, at)
    elif kind == _IPV6:
        found = _read_ipv6(frame, at)
    if found is None:
        return None
    addresses, protocol, length, transport = found
    place = transport + _CHECKSUM_AT.get(protocol, len(frame))
    if place + 2 > len(frame) or length < 0:
        return None
    (checksum,) = struct.unpack_from("!H", frame, place)
    expected = _fold(sum(addresses) + protocol + (length >> 16) + (length & 0xFFFF))
    return (place, transport, length) if checksum == expected else None


#: Words of the addresses, protocol, length of the transport's part, and where it begins.
_Found = tuple[tuple[int, ...], int, int, int]


def _read_ipv4(frame: bytes, at: int) -> _Found | None:
    if len(frame) < at + 20:
        return None
    header = (frame[at] & 15) * 4
    length, _, fragment = struct.unpack_from("!HHH", frame, at + 2)
    if header < 20 or fragment & 0x3FFF:
        return None
    if length == 0:  # a GSO frame beyond 64 KiB
        return None
    words = struct.unpack_from("!4H", frame, at + 12)
    return words, frame[at + 9], length - header, at + header


def _read_ipv6(frame: bytes, at: int) -> _Found | None:
    if len(frame) < at + 40:
        return None
    (length,) = struct.unpack_from("!H", frame, at + 4)
    return struct.unpack_from("!16H", frame, at + 8), frame[at + 6], length, at + 40


def _fold(value: int) -> int:
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value
