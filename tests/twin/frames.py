"""Frames as bytes, field by field; checksums are left 0, since nothing looks at them."""

import ipaddress
import struct

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
DCCP, UDPLITE = 33, 136
IPV4, IPV6, ARP, RARP, VLAN = 0x0800, 0x86DD, 0x0806, 0x8035, 0x8100


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def ether(source: str, target: str, ethertype: int, payload: bytes) -> bytes:
    return mac(target) + mac(source) + struct.pack(">H", ethertype) + payload


def tagged(frame: bytes, tci: int, proto: int = VLAN) -> bytes:
    """The frame with an 802.1Q (or other) tag of VLAN and priority."""
    return frame[:12] + struct.pack(">HH", proto, tci) + frame[12:]


def ipv4(
    source: str,
    destination: str,
    proto: int,
    payload: bytes,
    *,
    fragment: int = 0,
    more: bool = False,
    ident: int = 0,
    options: bytes = b"",
    total: int | None = None,
) -> bytes:
    """`fragment` is the offset in units of 8 bytes."""
    length = 20 + len(options)
    if total is None:
        total = length + len(payload)
    head = struct.pack(
        ">BBHHHBBH",
        0x40 | length // 4,
        0,
        total,
        ident,
        fragment | 0x2000 * more,
        64,
        proto,
        0,
    )
    return head + address(source) + address(destination) + options + payload


def ipv6(
    source: str,
    destination: str,
    proto: int,
    payload: bytes,
    *,
    hops: int = 64,
    length: int | None = None,
) -> bytes:
    if length is None:
        length = len(payload)
    head = struct.pack(">IHBB", 0x60000000, length, proto, hops)
    return head + address(source) + address(destination) + payload


def fragment6(proto: int, ident: int, offset: int, more: bool, payload: bytes) -> bytes:
    """Payload with a fragment header (44) in front."""
    return struct.pack(">BBHI", proto, 0, offset << 3 | more, ident) + payload


def tcp(
    source: int,
    destination: int,
    flags: int,
    payload: bytes = b"",
    *,
    seq: int = 1,
    ack: int = 1,
    window: int = 9,
    options: bytes = b"",
) -> bytes:
    """`options` are filled up to whole words."""
    options += bytes(-len(options) % 4)
    head = struct.pack(
        ">HHIIBBHHH",
        source,
        destination,
        seq % (1 << 32),
        ack % (1 << 32),
        (20 + len(options)) << 2,
        flags,
        window,
        0,
        0,
    )
    return head + options + payload


def window_scale(shift: int) -> bytes:
    """The TCP option."""
    return bytes([3, 3, shift])


def udp(source: int, destination: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int = 0, ident: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">BBHHH", kind, code, 0, ident, 0) + payload


def arp(sender_mac: str, sender: str, target: str, *, op: int = 1) -> bytes:
    head = struct.pack(">HHBBH", 1, IPV4, 6, 4, op)
    return head + mac(sender_mac) + address(sender) + bytes(6) + address(target)


def discovery(kind: int, target: str, option_mac: str | None = None, option: int = 1) -> bytes:
    """Neighbour solicitation (135) or advertisement (136)."""
    body = struct.pack(">BBHI", kind, 0, 0, 0) + address(target)
    if option_mac is not None:
        body += struct.pack(">BB", option, 1) + mac(option_mac)
    return body
