"""A frame made of the few fields that somebody names; checksums are 0, nothing looks at them."""

import ipaddress
import re
import struct
from collections.abc import Sequence

import msgspec

from vnet_agent.datapath.base import PortEntry
from vnet_agent.datapath.sight import read_protocol
from vnet_agent.exceptions import FilterError
from vnet_agent.model.port import MAC
from vnet_agent.model.protocols import NAMES, WITH_PORTS

#: What stands for a router or another host that is not here.
ELSEWHERE = "02:00:00:00:00:01"
_CLIENT = 40000
_BROADCAST = "ff:ff:ff:ff:ff:ff"

#: `[A]` and `[A]:PORT`, or `A:PORT` with an A that has no colons; all else is an address.
_ENDPOINT = re.compile(r"(?:\[([^\]]*)\](?::([0-9]{1,5}))?|([^:\[\]]*):([0-9]{1,5}))\Z")
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
_TCP, _UDP = 6, 17
_ECHO = {4: (1, 8), 6: (58, 128)}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Packet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As an operator names it: the ends are `A`, `A:PORT` or `[A]:PORT`, `local` is the VM's.

    Left out: `local` (or its address, `:PORT`) is the port's first address of the peer's family,
    the source's port 40000; a TCP packet is a SYN, an ICMP one an echo request; the peer's MAC is
    that of the local port with its address. The destination's port is what rules are about, and
    must be named.
    """

    remote: str
    local: str | None = None
    protocol: str = "tcp"
    tcp_flags: tuple[str, ...] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_id: int | None = None
    local_mac: str | None = None
    remote_mac: str | None = None


def build_frame(
    packet: Packet, *, egress: bool, port: PortEntry, neighbours: Sequence[PortEntry]
) -> bytes:
    """Ethernet frame from (`egress`) or to the port. FilterError says which field is wrong."""
    remote, remote_port = _read_endpoint("remote", packet.remote)
    named = packet.local or ""
    if re.fullmatch(r"(:[0-9]*)?", named):
        named = f"[{_own_address(port, remote)}]{named}"
    local, local_port = _read_endpoint("local", named)
    if local.version != remote.version:
        raise FilterError(detail=f"{local} and {remote} are not of one family.")
    ends = [(local, local_port, _mac("local_mac", packet.local_mac, port.mac))]
    found = _find_mac(remote, port, neighbours)
    ends.append((remote, remote_port, _mac("remote_mac", packet.remote_mac, found)))
    (source, source_port, source_mac), (target, target_port, target_mac) = (
        ends if egress else ends[::-1]
    )
    proto = _protocol(packet.protocol, source.version)
    body = _transport(packet, proto, source.version, source_port, target_port)
    return _mac_bytes(target_mac) + _mac_bytes(source_mac) + _ip(source, target, proto, body)


def _own_address(port: PortEntry, remote: Address) -> Address:
    for text in port.addresses:
        address = ipaddress.ip_address(text)
        if address.version == remote.version:
            return address
    raise FilterError(detail=f"The port has no IPv{remote.version} address known: name `local`.")


def _read_endpoint(name: str, text: str) -> tuple[Address, int | None]:
    match = _ENDPOINT.match(text)
    host, digits = (match[1] or match[3], match[2] or match[4]) if match else (text, None)
    try:
        number = int(digits) if digits else None
        if number is None or number <= 65535:
            return ipaddress.ip_address(host), number
    except ValueError:
        pass
    detail = f"{name}: {text[:60]!r} is no address; write A, A:PORT or [A]:PORT."
    raise FilterError(detail=detail)


def _mac(name: str, given: str | None, default: str) -> str:
    mac = default if given is None else given.lower()
    if not MAC.match(mac):
        raise FilterError(detail=f"{name}: {given!r} is no MAC address.")
    return mac


def _mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _find_mac(address: Address, port: PortEntry, neighbours: Sequence[PortEntry]) -> str:
    packed = address.packed
    if address.is_multicast:
        if address.version == 4:
            return bytes([1, 0, 0x5E, packed[1] & 0x7F, packed[2], packed[3]]).hex(":")
        return (b"\x33\x33" + packed[-4:]).hex(":")
    if packed == b"\xff" * 4:
        return _BROADCAST
    for other in neighbours:
        if other.network == port.network and str(address) in other.addresses:
            return other.mac
    return ELSEWHERE


def _protocol(text: str, family: int) -> int:
    number = read_protocol(text)
    return 58 if number == 1 and family == 6 else number


def _transport(
    packet: Packet, proto: int, family: int, source: int | None, target: int | None
) -> bytes:
    if proto != _TCP and packet.tcp_flags is not None:
        raise FilterError(detail="tcp_flags need protocol tcp.")
    if NAMES.get(proto) in WITH_PORTS:
        if target is None:
            raise FilterError(detail=f"Protocol {packet.protocol} needs the destination's port.")
        ports = struct.pack(">HH", _CLIENT if source is None else source, target)
        if proto == _TCP:
            flags = _read_flags(packet.tcp_flags if packet.tcp_flags is not None else ("syn",))
            return ports + struct.pack(">IIBBHHH", 1, 1, 0x50, flags, 65535, 0, 0)
        return ports + struct.pack(">HH", 8, 0) + bytes(0 if proto == _UDP else 8)
    if source is not None or target is not None:
        raise FilterError(detail=f"Protocol {packet.protocol} has no ports.")
    own, echo = _ECHO[family]
    if proto == own:
        kind = echo if packet.icmp_type is None else packet.icmp_type
        return struct.pack(
            ">BBHHH",
            _bounded("icmp_type", kind, 255),
            _bounded("icmp_code", packet.icmp_code or 0, 255),
            0,
            _bounded("icmp_id", 1 if packet.icmp_id is None else packet.icmp_id, 65535),
            0,
        ) + bytes(16)
    return bytes(8)


def _read_flags(names: Sequence[str]) -> int:
    flags = 0
    for name in names:
        if name.lower() not in _FLAGS:
            known = ", ".join(_FLAGS)
            raise FilterError(detail=f"{name[:60]!r} is no TCP flag: {known}.")
        flags |= _FLAGS[name.lower()]
    return flags


def _bounded(name: str, value: int, most: int) -> int:
    if not 0 <= value <= most:
        raise FilterError(detail=f"{name} must be a number from 0 to {most}, not {value}.")
    return value


def _ip(source: Address, target: Address, proto: int, body: bytes) -> bytes:
    if source.version == 4:
        total = 20 + len(body)
        head = struct.pack(">HBBHHHBBH", 0x0800, 0x45, 0, total, 1, 0, 64, proto, 0)
    else:
        # Neighbour discovery is believed only with the highest hop limit (RFC 4861).
        head = struct.pack(">HIHBB", 0x86DD, 0x60000000, len(body), proto, 255)
    return head + source.packed + target.packed + body
