"""Matches as struct vnet_match: a value and a mask over csrc/core/fields.h, and two ranges."""

import ipaddress
import itertools
import sys
from typing import Any

from vnet_agent.datapath import layout
from vnet_agent.datapath._flowcache import KIND_EGRESS, KIND_FRAGMENT, LAYOUT, VLAN_PRESENT
from vnet_agent.handlers import words
from vnet_agent.handlers.match import ARP_OPS, ETH_TYPES, FRAGMENTS, PROTOCOLS
from vnet_agent.model.handler import Match, Value

_FAMILIES = {"ipv4": 4, "ipv6": 6}
#: Of IPv4 and IPv6 both this bit is set.
_ANY_IP = 4
_ALL_PORTS = (0, 0xFFFF)
_SIZE = len(layout.pack("fields"))

_PROTOCOL_NAMES: dict[int, Value] = {number: name for name, number in PROTOCOLS.items()}
_ARP_NAMES: dict[int, Value] = {number: name for name, number in ARP_OPS.items()}
_TYPE_NAMES: dict[int, Value] = {number: name for name, number in ETH_TYPES.items()}


class _Bits:
    """A value and a mask, field by field."""

    def __init__(self) -> None:
        self.value = bytearray(_SIZE)
        self.mask = bytearray(_SIZE)

    def put(self, field: str, value: int, mask: int | None = None) -> None:
        """Bits of a number; no mask is all of them. What is there already stays."""
        offset, size = LAYOUT["fields"][field]
        mask = (1 << 8 * size) - 1 if mask is None else mask
        self._add(offset, value.to_bytes(size, sys.byteorder), mask.to_bytes(size, sys.byteorder))

    def put_prefix(self, field: str, prefix: str) -> None:
        """IPv4 is mapped into IPv6, and only its half of the words is looked at."""
        network = ipaddress.ip_network(prefix)
        value, mask = network.network_address.packed, network.netmask.packed
        if network.version == 4:
            value, mask = b"\0\0\xff\xff" + value, b"\xff\xff\xff\xff" + mask
        offset, size = LAYOUT["fields"][field]
        self._add(offset + size - len(value), value, mask)

    def put_mac(self, field: str, text: str) -> None:
        mac, _, mask = text.partition("/")
        value, bits = (bytes.fromhex(part.replace(":", "")) for part in (mac, mask or "ff" * 6))
        self._add(LAYOUT["fields"][field][0], value, bits)

    def _add(self, offset: int, value: bytes, mask: bytes) -> None:
        for index, (bits, mask_bits) in enumerate(zip(value, mask, strict=True), offset):
            self.value[index] |= bits
            self.mask[index] |= mask_bits


def compile_match(match: Match, priority: int, in_ports: list[int] | None) -> list[bytes]:
    """For each of the local ids (None: any port) and each pair of port ranges."""
    bits = _Bits()
    _put_link(bits, match)
    _put_network(bits, match)
    _put_transport(bits, match)
    sources, destinations = (
        _ranges(
            next((value for name in names if (value := getattr(match, name)) is not None), None)
        )
        for names in (("tcp_src", "udp_src", "sctp_src"), ("tcp_dst", "udp_dst", "sctp_dst"))
    )
    found = []
    for local_id in [None] if in_ports is None else in_ports:
        if local_id is not None:
            offset, size = LAYOUT["fields"]["in_port"]
            bits.value[offset : offset + size] = layout.u32(local_id)
            bits.mask[offset : offset + size] = layout.u32(0xFFFFFFFF)
        found += [
            layout.pack(
                "match",
                value=bytes(bits.value),
                mask=bytes(bits.mask),
                source_ports=_pack_range(*source),
                destination_ports=_pack_range(*destination),
                priority=priority,
            )
            for source, destination in itertools.product(sources, destinations)
        ]
    return found


def _put_link(bits: _Bits, match: Match) -> None:
    if match.direction is not None:
        bits.put("kind", KIND_EGRESS * (match.direction == "egress"), KIND_EGRESS)
    if match.network is not None:
        bits.put("network", match.network)
    if match.eth_src is not None:
        bits.put_mac("source_mac", match.eth_src)
    if match.eth_dst is not None:
        bits.put_mac("target_mac", match.eth_dst)
    if match.vlan_vid is not None:
        if isinstance(match.vlan_vid, int):
            bits.put("vlan", VLAN_PRESENT | match.vlan_vid, VLAN_PRESENT | 0xFFF)
        else:
            bits.put("vlan", VLAN_PRESENT * (match.vlan_vid == "any"), VLAN_PRESENT)
    if match.vlan_pcp is not None:
        bits.put("vlan", match.vlan_pcp << 13, 0xE000)
    if match.conn_state is not None:
        bits.put("state", *words.parse_flags(match.conn_state, words.CONN_STATES))
    if match.conn_mark is not None:
        bits.put("mark", *words.parse_masked(match.conn_mark, 32))
    if match.metadata is not None:
        bits.put("metadata", *words.parse_masked(match.metadata, 64))


def _put_network(bits: _Bits, match: Match) -> None:
    kind = match.eth_type
    if isinstance(kind, str) and kind in _FAMILIES:
        bits.put("family", _FAMILIES[kind])
    elif kind is not None:
        bits.put("ethertype", ETH_TYPES[kind] if isinstance(kind, str) else kind)
    elif match.ip_proto is not None:
        bits.put("family", _ANY_IP, _ANY_IP)
    for field, prefix in (
        ("source", match.ip_src or match.arp_spa),
        ("destination", match.ip_dst or match.arp_tpa),
    ):
        if prefix is not None:
            bits.put_prefix(field, prefix)
    if match.arp_op is not None:
        bits.put("type", _number(match.arp_op, ARP_OPS))
    if match.ip_dscp is not None:
        bits.put("dscp", match.ip_dscp)
    if match.fragment is not None:
        bits.put("kind", *FRAGMENTS[match.fragment])


def _put_transport(bits: _Bits, match: Match) -> None:
    if match.ip_proto is not None:
        bits.put("proto", _number(match.ip_proto, PROTOCOLS))
    if match.tcp_flags is not None:
        bits.put("tcp_flags", *words.parse_flags(match.tcp_flags, words.TCP_FLAGS))
    if match.icmp_type is not None:
        bits.put("type", match.icmp_type)
    if match.icmp_code is not None:
        bits.put("code", match.icmp_code)


def _number(value: str | int, names: dict[str, int]) -> int:
    return value if isinstance(value, int) else names[value]


def _ranges(value: Value) -> list[tuple[int, int]]:
    return [_ALL_PORTS] if value is None else words.port_ranges(value)


def _pack_range(low: int, high: int) -> bytes:
    return low.to_bytes(2, sys.byteorder) + high.to_bytes(2, sys.byteorder)


# -- and back


class _Read:
    """Fields of a struct vnet_match."""

    def __init__(self, data: bytes) -> None:
        self._value = layout.raw("match", "value", data)
        self._mask = layout.raw("match", "mask", data)

    def bits(self, field: str) -> tuple[int, int]:
        return (
            layout.number("fields", field, self._value),
            layout.number("fields", field, self._mask),
        )

    def exact(self, field: str) -> int | None:
        """None where any value does."""
        value, mask = self.bits(field)
        return value if mask else None

    def raw(self, field: str) -> tuple[bytes, bytes]:
        return layout.raw("fields", field, self._value), layout.raw("fields", field, self._mask)


def decompile_match(data: bytes, ports: dict[int, str]) -> tuple[int, Match]:
    """Priority and match. Raises ValueError for bytes that no document makes."""
    read = _Read(data)
    fields = _decompile_link(read, ports) | _decompile_network(read)
    for name, field in (("src", "source_ports"), ("dst", "destination_ports")):
        packed = layout.raw("match", field, data)
        low, high = (int.from_bytes(packed[at : at + 2], sys.byteorder) for at in (0, 2))
        if (low, high) != _ALL_PORTS:
            fields[f"{fields['ip_proto']}_{name}"] = words.spell_range(low, high)
    try:
        return layout.number("match", "priority", data), Match(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _decompile_link(read: _Read, ports: dict[int, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"network": read.exact("network")}
    if (in_port := read.exact("in_port")) is not None:
        fields["in_port"] = ports[in_port]
    kind, kind_mask = read.bits("kind")
    if kind_mask & KIND_EGRESS:
        fields["direction"] = "egress" if kind & KIND_EGRESS else "ingress"
    for name, field in (("eth_src", "source_mac"), ("eth_dst", "target_mac")):
        mac, mac_mask = (part.hex(":") for part in read.raw(field))
        if mac_mask == "ff:ff:ff:ff:ff:ff":
            fields[name] = mac
        elif mac_mask != "00:00:00:00:00:00":
            fields[name] = f"{mac}/{mac_mask}"
    tag, tag_mask = read.bits("vlan")
    if tag_mask & 0xFFF:
        fields["vlan_vid"] = tag & 0xFFF
    elif tag_mask & VLAN_PRESENT:
        fields["vlan_vid"] = "any" if tag & VLAN_PRESENT else "none"
    if tag_mask & 0xE000:
        fields["vlan_pcp"] = tag >> 13
    value, mask_bits = read.bits("state")
    fields["conn_state"] = words.spell_flags(value, mask_bits, words.CONN_STATES) or None
    for name, field, size in (("conn_mark", "mark", 32), ("metadata", "metadata", 64)):
        value, mask_bits = read.bits(field)
        fields[name] = words.spell_masked(value, mask_bits, size) if mask_bits else None
    return fields


def _decompile_network(read: _Read) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    family, family_mask = read.bits("family")
    if family_mask == 0xFF:
        fields["eth_type"] = f"ipv{family}"
    elif (ethertype := read.exact("ethertype")) is not None:
        fields["eth_type"] = _TYPE_NAMES.get(ethertype, ethertype)
    is_arp = fields.get("eth_type") == "arp"
    for field, name in (("source", "arp_spa" if is_arp else "ip_src"),
                        ("destination", "arp_tpa" if is_arp else "ip_dst")):  # fmt: skip
        value, mask = read.raw(field)
        if any(mask):
            is_wide = fields.get("eth_type") == "ipv6"
            fields[name] = words.spell_prefix(
                *((value, mask) if is_wide else (value[12:], mask[12:]))
            )
    if (proto := read.exact("proto")) is not None:
        fields["ip_proto"] = _PROTOCOL_NAMES.get(proto, proto)
    fields["ip_dscp"] = read.exact("dscp")
    kind, kind_mask = read.bits("kind")
    fragment = kind & KIND_FRAGMENT, kind_mask & KIND_FRAGMENT
    if fragment[1]:
        fields["fragment"] = {bits: name for name, bits in FRAGMENTS.items()}[fragment]
    value_bits, mask_bits = read.bits("tcp_flags")
    fields["tcp_flags"] = words.spell_flags(value_bits, mask_bits, words.TCP_FLAGS) or None
    if (number := read.exact("type")) is not None:
        fields["arp_op" if is_arp else "icmp_type"] = (
            _ARP_NAMES.get(number, number) if is_arp else number
        )
    fields["icmp_code"] = read.exact("code")
    return fields
