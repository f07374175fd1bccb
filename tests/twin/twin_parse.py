"""The parser of csrc/core/parse.h once more, in plain Python and from the RFCs."""

import ipaddress
import struct
from dataclasses import dataclass

EXTENSIONS = {0, 43, 44, 51, 60}


class Refused(Exception):
    """The frame is dropped for this reason."""

    @property
    def reason(self) -> str:
        return str(self.args[0])


@dataclass
class Packet:
    source: ipaddress.IPv4Address | ipaddress.IPv6Address
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address
    family: int
    proto: int
    hops: int = 0
    body: bytes = b""  # from the transport header to the end of the IP packet
    kind: str = "whole"  # or first, later
    ident: int = 0
    fragment_proto: int = 0
    sport: int = 0
    dport: int = 0
    flags: int = 0
    type: int = 0
    code: int = 0
    seq: int = 0
    ack: int = 0
    window: int = 0
    payload: int = 0  # octets of TCP
    options: bytes = b""  # of TCP
    mac: bytes | None = None  # that it came from

    @property
    def icmp(self) -> bool:
        return self.proto == (1 if self.family == 4 else 58)


def parse_ip(ethertype: int, data: bytes) -> Packet:
    packet = _ipv4(data) if ethertype == 0x0800 else _ipv6(data)
    if packet.kind != "later":
        _transport(packet)
    return packet


def _need(condition: bool, reason: str = "malformed") -> None:
    if not condition:
        raise Refused(reason)


def _ipv4(data: bytes) -> Packet:
    _need(len(data) >= 20)
    version, length = data[0] >> 4, (data[0] & 15) * 4
    total = int.from_bytes(data[2:4], "big") or len(data)
    _need(version == 4 and length >= 20 and total >= length)
    packet = Packet(
        ipaddress.IPv4Address(data[12:16]),
        ipaddress.IPv4Address(data[16:20]),
        4,
        data[9],
        fragment_proto=data[9],
    )
    word = int.from_bytes(data[6:8], "big")
    offset, more = word & 0x1FFF, bool(word & 0x2000)
    if offset or more:
        packet.kind = "later" if offset else "first"
        packet.ident = int.from_bytes(data[4:6], "big")
        _need(not (offset == 1 and packet.proto == 6), "fragment")
        _need(offset * 8 + total <= 65535)
    _need(total <= len(data))
    packet.body = data[length:total]
    return packet


def _ipv6(data: bytes) -> Packet:
    _need(len(data) >= 40 and data[0] >> 4 == 6)
    total = 40 + int.from_bytes(data[4:6], "big")
    if total == 40:
        total = len(data)
    packet = Packet(
        ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40]), 6, data[6]
    )
    packet.hops = data[7]
    # Headers are read as far as both the frame and the packet's length reach.
    at = 40
    for _ in range(6):
        if packet.proto not in EXTENSIONS or packet.kind == "later":
            break
        _need(at + 8 <= min(total, len(data)))
        at += _extension(packet, data[at : at + 8], total - at - 8)
    else:
        _need(packet.proto not in EXTENSIONS or packet.kind == "later", "extension")
    _need(total <= len(data))
    packet.body = data[at:total]
    return packet


def _extension(packet: Packet, head: bytes, behind: int) -> int:
    proto, packet.proto = packet.proto, head[0]
    if proto == 51:
        return (head[1] + 2) * 4
    if proto != 44:
        return (head[1] + 1) * 8
    word, ident = struct.unpack(">HI", head[2:8])
    if word >> 3 or word & 1:
        _need(packet.kind == "whole")
        packet.kind = "later" if word >> 3 else "first"
        packet.ident, packet.fragment_proto = ident, head[0]
        _need((word >> 3) * 8 + behind <= 65535)
    return 8


def _transport(packet: Packet) -> None:
    body = packet.body
    if packet.proto == 6:
        _need(len(body) >= 20 and body[12] >> 4 >= 5)
        packet.flags = body[13]
        packet.seq, packet.ack = struct.unpack(">II", body[4:12])
        packet.window = int.from_bytes(body[14:16], "big")
        header = (body[12] >> 4) * 4
        packet.payload = max(len(body) - header, 0)
        packet.options = body[20:header]
    elif packet.proto in (17, 33, 132, 136) or packet.icmp:
        _need(len(body) >= 8)
    else:
        return
    if packet.icmp:
        packet.type, packet.code = body[0], body[1]
        packet.sport = packet.dport = int.from_bytes(body[4:6], "big")
    else:
        packet.sport, packet.dport = struct.unpack(">HH", body[:4])
