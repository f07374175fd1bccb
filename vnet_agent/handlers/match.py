"""Which frames a rule is about: every field, and that the fields agree with one another."""

import ipaddress
from typing import Any

import msgspec

from vnet_agent.handlers import words
from vnet_agent.model.handler import Match, Value
from vnet_agent.policy.fields import mapping, read_name
from vnet_agent.policy.tree import Node

ETH_TYPES = {"ipv4": 0x0800, "ipv6": 0x86DD, "arp": 0x0806}
ARP_OPS = {"request": 1, "reply": 2}
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
#: (value, mask) of enum vnet_fragment_kind.
FRAGMENTS = {"no": (0, 0xF), "first": (1, 0xF), "later": (2, 0xF), "not_later": (0, 2)}
VLAN_WORDS = ("none", "any")

#: Rules of the datapath that masks of transport ports may make of one.
MAX_RANGES = 256

_FAMILY_OF_PROTOCOL = {"icmp": "ipv4", "icmpv6": "ipv6"}
_KEYS = frozenset(Match.__struct_fields__)


def read_match(node: Node | None) -> Match:
    """The match of a rule; no node matches every frame."""
    if node is None:
        return Match()
    fields = mapping(node, _KEYS, "a match")
    values = {name: _read_field(name, child) for name, child in fields.items()}
    match = Match(**values)
    match = _settle_family(match, fields)
    _check_needs(match, fields)
    _check_ranges(match, fields)
    return _drop_empty_prefixes(match)


def _read_field(name: str, node: Node) -> Any:
    match name:
        case "in_port" | "instance":
            return words.read_uuid(node)
        case "group":
            return read_name(node)
        case "direction":
            return words.read_choice(node, "ingress", "egress")
        case "network":
            return words.read_number(node, 0, 0xFFFFFFFF)
        case "eth_src" | "eth_dst":
            return words.read_mac(node)
        case "eth_type":
            return words.read_named(node, ETH_TYPES, 0x0600, 0xFFFF)
        case "vlan_vid":
            return _read_vlan(node)
        case "vlan_pcp":
            return words.read_number(node, 0, 7)
        case "arp_op":
            return words.read_named(node, ARP_OPS, 0, 255)
        case "arp_spa" | "arp_tpa":
            return words.read_prefix(node, 4)
        case "ip_src" | "ip_dst":
            return words.read_prefix(node, 4, 6)
        case "ip_proto":
            return words.read_named(node, PROTOCOLS, 0, 255)
        case "ip_dscp":
            return words.read_number(node, 0, 63)
        case "fragment":
            return words.read_choice(node, *FRAGMENTS)
        case "tcp_flags":
            return words.read_flags(node, words.TCP_FLAGS)
        case "icmp_type" | "icmp_code":
            return words.read_number(node, 0, 255)
        case "conn_state":
            return words.read_flags(node, words.CONN_STATES)
        case "conn_mark":
            return words.spell_masked(*words.read_masked(node, 32), 32)
        case "metadata":
            return words.spell_masked(*words.read_masked(node, 64), 64)
        case _:
            return words.read_ports(node)


def _read_vlan(node: Node) -> str | int:
    """`none` is a frame without a tag, `any` one with whatever tag."""
    if node.value in VLAN_WORDS and isinstance(node.value, str):
        return node.value
    number = words.parse_number(node.value)
    if number is None or not 0 <= number <= 4095:
        raise node.refused(f"{words.show(node)} is no VLAN: 0-4095, none (no tag) or any (a tag)")
    return number


def family_of(prefix: str) -> str:
    return f"ipv{ipaddress.ip_network(prefix).version}"


def _settle_family(match: Match, fields: dict[str, Node]) -> Match:
    """An address or ICMP says which IP it is: that becomes the eth_type, or contradicts it."""
    said: dict[str, Value] = {}
    if match.eth_type is not None:
        said["eth_type"] = match.eth_type
    for name in ("ip_src", "ip_dst"):
        if (prefix := getattr(match, name)) is not None:
            said[name] = family_of(prefix)
    if isinstance(match.ip_proto, str) and match.ip_proto in _FAMILY_OF_PROTOCOL:
        said["ip_proto"] = _FAMILY_OF_PROTOCOL[match.ip_proto]
    if len(set(said.values())) > 1:
        text = ", ".join(f"{name} says {family}" for name, family in said.items())
        raise fields[list(said)[-1]].refused(f"this contradicts itself: {text}")
    if said:
        return msgspec.structs.replace(match, eth_type=next(iter(said.values())))
    return match


def is_ip(match: Match) -> bool:
    """Whether only IP packets match; which family may be open."""
    return match.eth_type in ("ipv4", "ipv6") or match.ip_proto is not None


def _check_needs(match: Match, fields: dict[str, Node]) -> None:
    def need(holds: bool, names: tuple[str, ...], what: str) -> None:
        for name in names:
            if name in fields and not holds:
                raise fields[name].refused(f"{name} needs {what}")

    need(match.vlan_vid not in (None, "none"), ("vlan_pcp",), "a vlan_vid other than none")
    need(match.eth_type == "arp", ("arp_op", "arp_spa", "arp_tpa"), "eth_type: arp")
    need(
        match.eth_type in (None, "ipv4", "ipv6"),
        ("ip_proto",),
        "eth_type ipv4 or ipv6, or none for both",
    )
    need(is_ip(match), ("ip_dscp", "fragment"), "eth_type ipv4 or ipv6, or an ip_proto")
    for proto in ("tcp", "udp", "sctp"):
        names = (f"{proto}_src", f"{proto}_dst", *(("tcp_flags",) if proto == "tcp" else ()))
        need(match.ip_proto == proto, names, f"ip_proto: {proto}")
    need(
        match.ip_proto in _FAMILY_OF_PROTOCOL,
        ("icmp_type", "icmp_code"),
        "ip_proto: icmp or icmpv6",
    )
    need(match.icmp_type is not None, ("icmp_code",), "an icmp_type")


def _check_ranges(match: Match, fields: dict[str, Node]) -> None:
    count = 1
    for proto in ("tcp", "udp", "sctp"):
        for name in (f"{proto}_src", f"{proto}_dst"):
            if (value := getattr(match, name)) is not None:
                count *= len(words.port_ranges(value))
                if count > MAX_RANGES:
                    raise fields[name].refused(
                        f"this mask makes {count} ranges, and {MAX_RANGES} are the most; set "
                        "more of its upper bits"
                    )


def _drop_empty_prefixes(match: Match) -> Match:
    """A prefix of length 0 says the family, which eth_type has by now, and no more."""
    empty = {
        name: None
        for name in ("ip_src", "ip_dst", "arp_spa", "arp_tpa")
        if (getattr(match, name) or "").endswith("/0")
    }
    return msgspec.structs.replace(match, **empty) if empty else match
