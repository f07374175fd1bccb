"""The operator's tables once more: every rule is tried, actions are done on bytes."""

import ipaddress
import struct
from dataclasses import dataclass, field
from typing import Any

import twin as t
from twin_classifier import Rule, Search
from twin_parse import Packet, Refused, parse_ip
from twin_sums import locate, seal

TRACKED, NEW, ESTABLISHED, RELATED, REPLY, INVALID = 1, 2, 4, 8, 16, 32
KINDS = {"whole": 0, "first": 1, "later": 2}
#: (name, value) of one action, as the C core's.
Op = tuple[str, Any]


@dataclass(frozen=True)
class TwinRule:
    rule: Rule
    ops: tuple[Op, ...]
    cookie: int = 0


@dataclass
class TwinTable:
    miss: str = "continue"
    rules: list[TwinRule] = field(default_factory=list)

    def find(self, fields: dict[str, int]) -> TwinRule | None:
        search = Search(0)
        for name, item in enumerate(self.rules):
            search.insert(name, item.rule)
        _, best = search.lookup(fields)
        return None if best is None else self.rules[best]


class Done(Exception):
    """What becomes of the frame, other than going on."""


@dataclass
class Walk:
    frame: bytes
    fields: dict[str, int]
    tag: int | None
    out: list[tuple[int, bytes]] = field(default_factory=list)

    def dressed(self) -> bytes:
        if self.tag is None:
            return self.frame
        return self.frame[:12] + struct.pack(">HH", 0x8100, self.tag) + self.frame[12:]


class TwinTables:
    """Of a port with `local_id` that `twin` judges; `taps` are ifindexes by local id, 0 the
    uplink's."""

    def __init__(self, twin: t.Twin, local_id: int, network: int, taps: dict[int, int]) -> None:
        self.twin = twin
        self.local_id = local_id
        self.network = network
        self.taps = taps
        self.tables = {number: TwinTable() for number in range(16)}

    def process(self, direction: t.Direction, frame: bytes, now: int) -> tuple[Any, ...]:
        """("normal", the frame, copies), ("drop", reason, copies), ("leave", copies) with the
        frame itself as the last one, or ("controller", table, why, cookie, the frame, copies)."""
        walk = Walk(frame, {}, None)
        try:
            self._begin(walk, direction, now)
            return self._walk(walk)
        except Refused as refused:
            return "drop", refused.reason, walk.out
        except Done as done:
            return (*done.args, walk.out)

    def _walk(self, walk: Walk) -> tuple[Any, ...]:
        number = 0
        while number < 16:
            table = self.tables[number]
            found = table.find(walk.fields)
            if found is not None:
                number = self._do(walk, number, found)
            elif table.miss == "drop":
                raise Refused("handler")
            elif table.miss == "controller":
                raise Done("controller", number, "miss", 0, walk.dressed())
            else:
                number += 1
        return "normal", walk.dressed(), walk.out

    # -- what a frame is

    def _begin(self, walk: Walk, direction: t.Direction, now: int) -> None:
        frame = walk.frame
        if len(frame) < 14:
            raise Refused("malformed")
        if frame[12:14] in (b"\x81\0", b"\x88\xa8"):
            if frame[12] == 0x88 or len(frame) < 16:
                raise Refused("vlan")
            walk.tag = int.from_bytes(frame[14:16], "big")
            frame = walk.frame = frame[:12] + frame[16:]
            if len(frame) < 14:
                raise Refused("malformed")
            if frame[12:14] in (b"\x81\0", b"\x88\xa8"):
                raise Refused("vlan")
        ethertype = int.from_bytes(frame[12:14], "big")
        packet = None
        if ethertype in (0x0800, 0x86DD):
            packet = parse_ip(ethertype, frame[14:])
        if direction is t.EGRESS:
            self._guard(frame, ethertype, packet)
        fields = walk.fields
        fields["source_mac"] = int.from_bytes(frame[6:12], "big")
        fields["target_mac"] = int.from_bytes(frame[:6], "big")
        fields["ethertype"] = ethertype
        fields["in_port"], fields["network"] = self.local_id, self.network
        fields["kind"] = 0x10 * (direction is t.EGRESS)
        if walk.tag is not None:
            fields["vlan"] = walk.tag & 0xEFFF | 0x1000
        if packet is not None:
            self._ip(fields, frame, packet)
            fields["state"] = self._state(direction, frame, packet, now)
        arp = frame[14:42]
        if ethertype == 0x0806 and len(arp) == 28 and arp[:7] == b"\0\1\x08\0\6\4\0":
            fields["type"] = arp[7]
            for name, at in (("source", 14), ("destination", 24)):
                fields[name] = 0xFFFF << 32 | int.from_bytes(arp[at : at + 4], "big")

    def _guard(self, frame: bytes, ethertype: int, packet: Packet | None) -> None:
        source = frame[6:12]
        if source != self.twin.mac and not self.twin.pairs:
            raise Refused("mac-spoof")
        if ethertype in (0x0806, 0x8035):
            self.twin._arp(source, frame[14:])
            self.twin._learn(source)
            return
        if source != self.twin.mac and (
            packet is None or not self.twin._owns(packet.source, source)
        ):
            raise Refused("mac-spoof")
        self.twin._learn(source)
        if packet is None:
            return
        packet.mac = source
        self.twin._guard_source(packet)
        if self.twin._dhcp(packet) == "answer":
            raise Refused("dhcp-server")
        is_icmp6 = packet.family == 6 and packet.icmp and packet.kind != "later"
        if is_icmp6 and packet.type in range(133, 138):
            self.twin._discovery(packet)

    @staticmethod
    def _ip(fields: dict[str, int], frame: bytes, packet: Packet) -> None:
        mapped = 0xFFFF << 32 if packet.family == 4 else 0
        fields["source"] = mapped | int(packet.source)
        fields["destination"] = mapped | int(packet.destination)
        fields["family"], fields["proto"] = packet.family, packet.proto
        fields["kind"] |= KINDS[packet.kind]
        word = int.from_bytes(frame[14:16], "big")
        fields["dscp"] = (word >> 2 if packet.family == 4 else word >> 6) & 63
        if packet.proto in (6, 17, 33, 132, 136):
            fields["source_port"], fields["destination_port"] = packet.sport, packet.dport
        fields["tcp_flags"], fields["type"], fields["code"] = (
            packet.flags,
            packet.type,
            packet.code,
        )

    def _state(self, direction: t.Direction, frame: bytes, packet: Packet, now: int) -> int:
        errors = (3, 4, 11, 12) if packet.family == 4 else (1, 2, 3, 4)
        if packet.icmp and packet.kind != "later" and packet.type in errors:
            if packet.kind != "whole":
                return 0
            conn = self.twin._find(self.twin._quoted(direction, packet), now)
            return TRACKED | RELATED if conn is not None else 0
        if packet.kind == "later":
            name = (packet.source, packet.destination, packet.ident, packet.fragment_proto)
            expires, first = self.twin.fragments.get(name, (0, packet))
            if expires <= now:
                return TRACKED | INVALID
            packet.proto, packet.type, packet.code = first.proto, first.type, first.code
            packet.sport, packet.dport = first.sport, first.dport
        echo = packet.icmp and packet.type in ((8, 0) if packet.family == 4 else (128, 129))
        group = frame[0] & 1 or packet.destination.is_multicast
        if group or packet.destination == ipaddress.IPv4Address("255.255.255.255"):
            return 0
        if packet.icmp and not echo:
            return 0
        answers = echo and packet.type in (0, 129)
        flags = packet.flags & 0x17 if packet.proto == 6 and packet.kind != "later" else None
        if flags is not None and flags not in (2, 18, 4, 20, 17, 16):
            return TRACKED | INVALID
        conn = self.twin._find(self.twin._key(direction, packet), now)
        if conn is not None and conn.state in ("time-wait", "close") and flags == 2:
            conn = None
        if conn is not None and echo and answers == (direction is conn.origin):
            conn = None
        if conn is None:
            return TRACKED | (INVALID if answers or flags == 18 else NEW)
        if direction is not conn.origin:
            return TRACKED | REPLY | ESTABLISHED
        return TRACKED | (ESTABLISHED if conn.replied else NEW)

    # -- what is done

    def _do(self, walk: Walk, number: int, found: TwinRule) -> int:
        for name, value in found.ops:
            match name:
                case "normal":
                    return 16
                case "drop":
                    raise Refused("handler")
                case "goto":
                    return int(value)
                case "controller":
                    raise Done("controller", number, "rule", found.cookie, walk.dressed())
                case "output":
                    walk.out.append((self._tap(value), walk.dressed()))
                    raise Done("leave")
                case "mirror" | "copy":
                    if value in self.taps and value != self.local_id:
                        walk.out.append((self.taps[value], walk.dressed()))
                case "push_vlan":
                    if walk.tag is not None:
                        raise Refused("vlan")
                    walk.tag = value
                    walk.fields["vlan"] = value & 0xEFFF | 0x1000
                case "pop_vlan":
                    walk.tag = None
                    walk.fields["vlan"] = 0
                case _:
                    self._set(walk, name, value)
        return 16

    def _tap(self, local_id: int) -> int:
        if local_id == self.local_id or local_id not in self.taps:
            raise Refused("no-destination")
        return self.taps[local_id]

    def _set(self, walk: Walk, name: str, value: Any) -> None:
        frame, fields = bytearray(walk.frame), walk.fields
        found = locate(walk.frame)
        packet, at = found or (None, 0)
        match name:
            case "metadata":
                fields["metadata"] = value
            case "source_mac" | "target_mac":
                start = 6 if name == "source_mac" else 0
                frame[start : start + 6] = value.to_bytes(6, "big")
                fields[name] = value
            case "source" | "destination":
                address = ipaddress.ip_address(value)
                if packet is not None and packet.family == address.version:
                    size = len(address.packed)
                    start = {4: 26, 6: 22}[packet.family] + size * (name == "destination")
                    frame[start : start + size] = address.packed
                    fields[name] = (0xFFFF << 32 if size == 4 else 0) | int(address)
            case "source_port" | "destination_port":
                if packet is not None and packet.proto in (6, 17) and packet.kind != "later":
                    start = at + 2 * (name == "destination_port")
                    frame[start : start + 2] = value.to_bytes(2, "big")
                    fields[name] = value
            case "dscp":
                if packet is not None:
                    shift, mask = (2, 0xFF03) if packet.family == 4 else (6, 0xF03F)
                    word = int.from_bytes(frame[14:16], "big") & mask | value << shift
                    frame[14:16] = word.to_bytes(2, "big")
                    fields["dscp"] = value
            case "hops":
                if packet is not None:
                    frame[22 if packet.family == 4 else 21] = value
        walk.frame = seal(bytes(frame))
