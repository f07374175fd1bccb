"""Tables of handlers and frames that meet each other: all values come from small pools.

Bulk, so drawn from random.Random and not by hypothesis; a seed gives the same again.
"""

import random
from typing import Any

import frames as f
from datapath_bench import PORT, VM

from vnet_agent.handlers.document import table_from_json
from vnet_agent.model.handler import TABLES, TableDocument

OTHERS = ("6ba7b811-9dad-11d1-80b4-00c04fd430c8", "6ba7b812-9dad-11d1-80b4-00c04fd430c8")

_MACS = ("52:54:00:00:00:02", "52:54:00:00:00:03", "52:54:00:00:01:02")
_MAC_MATCHES = (
    *_MACS,
    VM,
    "52:54:00:00:00:00/ff:ff:ff:ff:00:00",
    "00:00:00:00:00:02/00:00:00:00:00:ff",
)
_V4 = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.7")
_V4_MATCHES = (*_V4, "10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/8", "192.0.2.0/25", "10.0.0.2/31")
_V6 = ("fd00::1", "fd00::2", "fd00:0:0:1::1", "2001:db8::7")
_V6_MATCHES = (*_V6, "fd00::/64", "fd00::/16", "2001:db8::/32", "fd00::2/127")
_PORTS = (22, 53, 80, 443, 1000, 1024, 40000, 65535, 0)
_PORT_MATCHES = (
    22,
    53,
    80,
    "1-1023",
    "1000-1024",
    "0-65535",
    "400-40000",
    "0x50/0xfff0",
    "0x0/0xfff1",
)
_FLAGS = (f.SYN, f.ACK, f.PSH | f.ACK, f.FIN | f.ACK, f.SYN | f.ACK, f.RST)
_FLAG_MATCHES = ("+syn-ack", "+ack", "-rst", "+fin", "+syn", "+psh+ack")
_ICMP4, _ICMP6 = ((8, 0), (0, 0), (3, 1), (11, 0)), ((128, 0), (129, 0), (1, 4), (3, 0))
_METADATA = ("0x1", "0x2", "0x100000000")
_METADATA_MATCHES = (*_METADATA, "0x0", "0x1/0x3", "0x0/0xffffffff")
_DSCP = (0, 10, 46)
_FRAGMENTS = ("no", "first", "not_later", "later")
_PORT_FIELDS = {
    *(f"{proto}_{end}" for proto in ("tcp", "udp", "sctp") for end in ("src", "dst")),
    *("tcp_flags", "icmp_type", "icmp_code"),
}


def random_tables(rng: random.Random) -> dict[int, TableDocument]:
    """At least one table; each is what a document says."""
    numbers = sorted(rng.sample(range(TABLES), rng.randint(1, 5)))
    return {
        number: table_from_json(_table(rng, number, [n for n in numbers if n > number]), number)
        for number in numbers
    }


def _table(rng: random.Random, number: int, later: list[int]) -> dict[str, Any]:
    count = rng.randint(0, 12)
    seen = []
    rules = []
    for priority in rng.sample(range(1, 0x10000), count):
        match = _match(rng)
        if match not in seen:
            seen.append(match)
            actions = _actions(rng, match, number, later)
            rules.append({"priority": priority, "match": match, "actions": actions})
    miss = rng.choices(("continue", "drop", "controller"), (6, 1, 1))[0]
    return {"rules": rules, "miss": miss}


def _match(rng: random.Random) -> dict[str, Any]:
    match: dict[str, Any] = {}

    def maybe(name: str, values: tuple[Any, ...], chance: float = 0.35) -> None:
        if rng.random() < chance:
            match[name] = rng.choice(values)

    maybe("in_port", (PORT, PORT, PORT, OTHERS[0]), 0.1)
    maybe("eth_dst", _MAC_MATCHES, 0.15)
    maybe("eth_src", (VM, *_MAC_MATCHES), 0.1)
    maybe("metadata", _METADATA_MATCHES, 0.25)
    kind = rng.choices(("any", "arp", "ipv4", "ipv6", "ip"), (2, 1, 5, 4, 3))[0]
    if kind == "any":
        return match
    if kind == "arp":
        match["eth_type"] = "arp"
        maybe("arp_op", ("request", "reply", 1))
        maybe("arp_spa", _V4_MATCHES)
        maybe("arp_tpa", _V4_MATCHES)
        return match
    if kind != "ip":
        match["eth_type"] = kind
        addresses = _V4_MATCHES if kind == "ipv4" else _V6_MATCHES
        maybe("ip_src", addresses)
        maybe("ip_dst", addresses)
    _match_transport(rng, match, kind, maybe)
    return match


def _match_transport(rng: random.Random, match: dict[str, Any], kind: str, maybe: Any) -> None:
    protocols: tuple[Any, ...] = ("tcp", "udp", "sctp", 47)
    if kind != "ip":
        protocols += ("icmp" if kind == "ipv4" else "icmpv6",)
    if kind == "ip" or rng.random() < 0.7:
        match["ip_proto"] = proto = rng.choice(protocols)
        if proto in ("tcp", "udp", "sctp"):
            maybe(f"{proto}_src", _PORT_MATCHES, 0.3)
            maybe(f"{proto}_dst", _PORT_MATCHES, 0.5)
        if proto == "tcp":
            maybe("tcp_flags", _FLAG_MATCHES, 0.3)
        if proto in ("icmp", "icmpv6") and rng.random() < 0.6:
            match["icmp_type"], code = rng.choice(_ICMP4 if proto == "icmp" else _ICMP6)
            maybe("icmp_code", (code, 1), 0.5)
    maybe("ip_dscp", _DSCP, 0.15)
    # OVS takes no ports for what has none.
    maybe("fragment", _FRAGMENTS if not _PORT_FIELDS & match.keys() else _FRAGMENTS[:3], 0.15)


def _actions(
    rng: random.Random, match: dict[str, Any], number: int, later: list[int]
) -> list[Any]:
    actions = [
        {"set": dict([rng.choice(_settable(rng, match))])} for _ in range(rng.choice((0, 0, 1, 2)))
    ]
    ends: list[Any] = ["normal", "drop", "controller", *({"output": port} for port in OTHERS)]
    ends += [{"goto": later[0]}, {"goto": rng.choice(later)}] * 2 if later else []
    return [*actions, rng.choice(ends)]


def _settable(rng: random.Random, match: dict[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [
        ("metadata", rng.choice(_METADATA)),
        ("eth_dst", rng.choice(_MACS)),
        ("eth_src", rng.choice(_MACS)),
    ]
    family, proto = match.get("eth_type"), match.get("ip_proto")
    if family in ("ipv4", "ipv6"):
        addresses = _V4 if family == "ipv4" else _V6
        found += [(name, rng.choice(addresses)) for name in ("ip_src", "ip_dst")]
    if family in ("ipv4", "ipv6") or proto is not None:
        found += [("ip_dscp", rng.choice(_DSCP)), ("ip_ttl", rng.choice((1, 64, 255)))]
    if proto in ("tcp", "udp") and match.get("fragment") != "later":
        found += [(f"{proto}_{end}", rng.choice(_PORTS)) for end in ("src", "dst")]
    return found


def random_frame(rng: random.Random) -> bytes:
    """A sound frame of the VM."""
    kind = rng.choices(("ipv4", "ipv6", "arp"), (5, 4, 1))[0]
    target = rng.choice(_MACS)
    if kind == "arp":
        body = f.arp(VM, rng.choice(_V4), rng.choice(_V4), op=rng.choice((1, 2)))
        return f.ether(VM, target, f.ARP, body)
    proto, payload = _transport(rng, kind)
    fragment, more = rng.choices(((0, False), (0, True), (5, True), (5, False)), (8, 1, 1, 1))[0]
    if kind == "ipv4":
        packet = f.ipv4(
            *(rng.choice(_V4), rng.choice(_V4), proto, payload),
            fragment=fragment,
            more=more,
            ident=7,
            options=rng.choices((b"", b"\x01" * 8), (9, 1))[0],
        )
        packet = packet[:1] + bytes([rng.choice(_DSCP) << 2 | rng.choice((0, 1))]) + packet[2:]
        packet = packet[:10] + _sum(packet[: (packet[0] & 15) * 4]) + packet[12:]
        return f.ether(VM, target, f.IPV4, packet)
    # A later fragment of IPv6 has protocol 44 with OVS, and its packet's here.
    if more and not fragment:
        payload, proto = f.fragment6(proto, 7, fragment, more, payload), 44
    packet = f.ipv6(rng.choice(_V6), rng.choice(_V6), proto, payload)
    traffic_class = rng.choice(_DSCP) << 2
    packet = bytes([0x60 | traffic_class >> 4, (traffic_class & 15) << 4]) + packet[2:]
    return f.ether(VM, target, f.IPV6, packet)


def _transport(rng: random.Random, kind: str) -> tuple[int, bytes]:
    proto = rng.choice((f.TCP, f.TCP, f.UDP, f.UDP, f.SCTP, f.ICMP, 47))
    source, destination = rng.choice(_PORTS), rng.choice(_PORTS)
    if proto == f.TCP:
        return proto, f.tcp(source, destination, rng.choice(_FLAGS), b"8 octets")
    if proto == f.UDP:
        return proto, f.udp(source, destination, b"8 octets")
    if proto == f.SCTP:
        return proto, source.to_bytes(2) + destination.to_bytes(2) + bytes(12)
    if proto == f.ICMP:
        number, code = rng.choice(_ICMP4 if kind == "ipv4" else _ICMP6)
        quoted = bytes(48)
        return f.ICMP if kind == "ipv4" else f.ICMPV6, f.icmp(number, code, 9, quoted)
    return proto, bytes(16)


def _sum(data: bytes) -> bytes:
    """RFC 1071, of a header whose own sum is 0."""
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2)
