"""Checksums from scratch (RFC 1071), which the C core never makes: it only keeps them right."""

import struct

from twin_parse import Packet, Refused, parse_ip

#: Where a transport's checksum is in its header.
SUM_AT = {6: 16, 17: 6, 33: 6, 136: 6}


def ones(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def locate(frame: bytes) -> tuple[Packet, int] | None:
    """The packet of an untagged frame and the offset of its transport; None: it has none."""
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype not in (0x0800, 0x86DD):
        return None
    try:
        packet = parse_ip(ethertype, frame[14:])
    except Refused:
        return None
    data = frame[14:]
    if packet.family == 4:
        total = int.from_bytes(data[2:4], "big") or len(data)
    else:
        total = 40 + int.from_bytes(data[4:6], "big")
        total = len(data) if total == 40 else total
    return packet, 14 + total - len(packet.body)


def seal(frame: bytes) -> bytes:
    """The frame with right checksums; a UDP checksum that is 0, none, becomes one."""
    found = locate(frame)
    if found is None:
        return frame
    packet, at = found
    result = bytearray(frame)
    if packet.family == 4:
        size = (frame[14] & 15) * 4
        result[24:26] = b"\0\0"
        result[24:26] = (~ones(bytes(result[14 : 14 + size])) & 0xFFFF).to_bytes(2, "big")
    where = SUM_AT.get(packet.proto, 2 if packet.icmp else None)
    if packet.kind == "later" or where is None:
        return bytes(result)
    body = bytearray(packet.body)
    body[where : where + 2] = b"\0\0"
    pseudo = b""
    if packet.proto != 1:
        pseudo = packet.source.packed + packet.destination.packed
        pseudo += struct.pack(">II", len(body), packet.proto)
    total = ~ones(pseudo + bytes(body)) & 0xFFFF
    if packet.proto == 17 and total == 0:
        total = 0xFFFF
    result[at + where : at + where + 2] = total.to_bytes(2, "big")
    return bytes(result)
