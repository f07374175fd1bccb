"""The answers of csrc/core/neighbour.h once more, in plain Python and from the RFCs."""

import ipaddress
import struct
from collections.abc import Callable

#: MAC of who has the address, and whether that one is a router; None: nobody is known.
Find = Callable[[ipaddress.IPv4Address | ipaddress.IPv6Address], tuple[bytes, bool] | None]

ALL_NODES = ipaddress.IPv6Address("ff02::1")
SOLICITED = int(ipaddress.IPv6Address("ff02::1:ff00:0"))


def answer(frame: bytes, own: bytes, find: Find) -> bytes | None:
    """What the VM with the MAC `own` is told; None where everybody is asked."""
    if not frame[0] & 1:
        return None
    make = {b"\x08\x06": _arp, b"\x86\xdd": _discovery}.get(frame[12:14])
    return make(frame, own, find) if make else None


def _arp(frame: bytes, own: bytes, find: Find) -> bytes | None:
    head, op, sender, source, _, target = struct.unpack_from(">6sH6s4s6s4s", frame, 14)
    found = find(ipaddress.IPv4Address(target))
    if op != 1 or target == source or found is None or found[0] == own:
        return None
    mac = found[0]
    reply = struct.pack(">6s6s2s", frame[6:12], mac, frame[12:14])
    reply += struct.pack(">6sH6s4s6s4s", head, 2, mac, target, sender, source)
    return reply.ljust(60, b"\0")


def _discovery(frame: bytes, own: bytes, find: Find) -> bytes | None:
    length = int.from_bytes(frame[18:20], "big") or len(frame)
    packet = frame[14 : 54 + length]
    source, destination = (ipaddress.IPv6Address(packet[at : at + 16]) for at in (8, 24))
    body = packet[40:]
    if packet[6] != 58 or body[:2] != b"\x87\0" or len(body) < 24:
        return None
    target = ipaddress.IPv6Address(body[8:24])
    found = find(target)
    if int(destination) != SOLICITED | int(target) & 0xFFFFFF or found is None or found[0] == own:
        return None
    mac, router = found
    unknown = int(source) == 0
    receiver = ALL_NODES if unknown else source
    flags = 0x80 * router | 0x40 * (not unknown) | 0x20
    advert = bytes([136, 0, 0, 0, flags, 0, 0, 0]) + target.packed + b"\2\1" + mac
    pseudo = target.packed + receiver.packed + struct.pack(">II", len(advert), 58)
    advert = advert[:2] + checksum(pseudo + advert) + advert[4:]
    ip = struct.pack(">IHBB", 6 << 28, len(advert), 58, 255) + target.packed + receiver.packed
    to = bytes.fromhex("333300000001") if unknown else frame[6:12]
    return to + mac + b"\x86\xdd" + ip + advert


def checksum(data: bytes) -> bytes:
    """RFC 1071, over an even number of bytes."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)
