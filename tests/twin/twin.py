"""The datapath of one port once more, in plain Python: the oracle of the C core.

Written from the rules, not from their compiled form; slow and simple. `Twin.process` says why a
frame is dropped ("none": it passes) and keeps connections as the C core should.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import twin_window
from twin_parse import Packet, Refused, parse_ip

from vnet_agent.model.policy import Direction, Established, Policy, Rule
from vnet_agent.model.port import AddressPair

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
FIN, SYN, RST, ACK = 1, 2, 4, 16
SECOND = 1_000_000_000
LIFE = {
    "syn-sent": 120,
    "syn-received": 60,
    "established": 432000,
    "fin-wait": 120,
    "close-wait": 60,
    "last-ack": 30,
    "time-wait": 120,
    "close": 10,
    "unreplied": 30,
    "replied": 180,
}
NAMES = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "icmpv6": 58, "sctp": 132, "udplite": 136}


def other(direction: Direction) -> Direction:
    return INGRESS if direction is EGRESS else EGRESS


@dataclass
class Conn:
    origin: Direction
    state: str
    policy: Policy
    expires: int = 0
    replied: bool = False
    assured: bool = False
    fins: set[Direction] = field(default_factory=set)
    windows: twin_window.Windows = field(default_factory=twin_window.Windows)
    packets: dict[Direction, int] = field(default_factory=lambda: {INGRESS: 0, EGRESS: 0})


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class Twin:
    def __init__(
        self,
        mac: str,
        addresses: tuple[str, ...],
        policy: Policy,
        members: dict[str, list[str]] | None = None,
        *,
        strict: bool = False,
        life: dict[str, int] = LIFE,
        pairs: tuple[AddressPair, ...] = (),
    ) -> None:
        self.members = members or {}
        self.pairs = [
            (ipaddress.ip_network(pair.ip_address), _octets(pair.mac_address)) for pair in pairs
        ]
        #: MACs of pairs that have spoken: frames for them are the port's.
        self.spoke: set[bytes] = set()
        self.open = False
        self.strict = strict
        self.life = life
        self.mac = _octets(mac)
        self.addresses = {ipaddress.ip_address(item) for item in addresses}
        self.policy = policy
        self.fresh: set[int] = set()
        self.conns: dict[tuple, Conn] = {}
        self.fragments: dict[tuple, tuple[int, Packet]] = {}

    def set_policy(self, policy: Policy) -> None:
        self.policy = policy
        self.fresh = set()

    def set_members(self, group: str, members: list[str]) -> None:
        """Whoever owes a verdict to one who left has it made again; so may everybody."""
        self.members = {**self.members, group: members}
        self.set_policy(Policy(rules=self.policy.rules, established=self.policy.established))

    def process(self, direction: Direction, frame: bytes, now: int) -> str:
        try:
            self._frame(direction, frame, now)
        except Refused as refused:
            return refused.reason
        own = direction is EGRESS and frame[0:6] == self.mac
        return "no-destination" if own else "none"

    # -- Ethernet, ARP

    def _frame(self, direction: Direction, frame: bytes, now: int) -> None:
        if len(frame) < 14:
            raise Refused("malformed")
        ethertype = int.from_bytes(frame[12:14], "big")
        if ethertype in (0x8100, 0x88A8):
            raise Refused("vlan")
        if self.open:
            return
        source = frame[6:12]
        if direction is EGRESS and source != self.mac and not self.pairs:
            raise Refused("mac-spoof")
        own = {self.mac, *self.spoke}
        if direction is INGRESS and not frame[0] & 1 and frame[0:6] not in own:
            raise Refused("other-mac")
        if ethertype in (0x0806, 0x8035):
            if direction is EGRESS:
                self._arp(source, frame[14:])
                self._learn(source)
            return
        if ethertype not in (0x0800, 0x86DD):
            raise Refused("ethertype")
        packet = parse_ip(ethertype, frame[14:])
        packet.mac = source
        if direction is EGRESS and source != self.mac:
            if not self._owns(packet.source, source):
                raise Refused("mac-spoof")
            self._learn(source)
        self._ip(direction, packet, bool(frame[0] & 1), now)

    def _learn(self, source: bytes) -> None:
        if source != self.mac:
            self.spoke.add(source)

    def _arp(self, source: bytes, data: bytes) -> None:
        if len(data) < 28 or data[0:6] != b"\0\1\x08\0\6\4":
            raise Refused("malformed")
        if data[8:14] != source:
            raise Refused("arp-spoof")
        sender = ipaddress.IPv4Address(data[14:18])
        if not int(sender):
            if source == self.mac:
                return
            sender = ipaddress.IPv4Address(data[24:28])
        if not self._owns(sender, source):
            raise Refused("arp-spoof")

    def _owns(self, address: Any, mac: bytes | None = None) -> bool:
        """With any of its MACs, or with this one."""
        if mac in (None, self.mac):
            if not self.addresses or address in self.addresses:
                return True
            eui = bytes([self.mac[0] ^ 2, *self.mac[1:3], 0xFF, 0xFE, *self.mac[3:]])
            if address.packed == b"\xfe\x80" + bytes(6) + eui:
                return True
        return any(
            network.version == address.version and address in network and mac in (None, owner)
            for network, owner in self.pairs
        )

    # -- IP

    def _ip(self, direction: Direction, packet: Packet, group_mac: bool, now: int) -> None:
        name = (packet.source, packet.destination, packet.ident, packet.fragment_proto)
        if packet.kind == "later":
            expires, first = self.fragments.get(name, (0, packet))
            if expires <= now:
                raise Refused("fragment")
            packet.proto, packet.type, packet.code = first.proto, first.type, first.code
            packet.sport, packet.dport = first.sport, first.dport
        group = group_mac or packet.destination.is_multicast
        group = group or packet.destination == ipaddress.IPv4Address("255.255.255.255")
        echo = packet.icmp and packet.type in ((8, 0) if packet.family == 4 else (128, 129))
        if not group and (echo or not packet.icmp):
            self._connected(direction, packet, now)
        else:
            self._special(direction, packet)
            self._stateless(direction, packet, now)
        if packet.kind == "first":
            self.fragments[name] = (now + 30 * SECOND, packet)

    def _special(self, direction: Direction, packet: Packet) -> None:
        """Source address, and DHCP, whose frames go no further: they raise nothing or refuse."""
        if direction is EGRESS:
            self._guard_source(packet)

    def _guard_source(self, packet: Packet) -> None:
        if not self.addresses:
            return
        if int(packet.source) == 0:
            if packet.family == 4:
                broadcast = int(packet.destination) == 0xFFFFFFFF
                allowed = self._dhcp(packet) == "request" and broadcast
            else:
                discovery = packet.icmp and packet.kind != "later"
                allowed = discovery and packet.type in (130, 131, 132, 143, *range(133, 138))
        else:
            allowed = self._owns(packet.source, packet.mac)
        if not allowed:
            raise Refused("ip-spoof")

    @staticmethod
    def _dhcp(packet: Packet) -> str:
        if packet.proto != 17 or packet.kind == "later":
            return ""
        client, server = (68, 67) if packet.family == 4 else (546, 547)
        ports = (packet.sport, packet.dport)
        return {(client, server): "request", (server, client): "answer"}.get(ports, "")

    def _needs_no_rule(self, direction: Direction, packet: Packet) -> bool:
        dhcp = self._dhcp(packet)
        if dhcp == "answer" and direction is EGRESS:
            raise Refused("dhcp-server")
        return dhcp == "answer" or (dhcp == "request" and direction is EGRESS)

    def _stateless(self, direction: Direction, packet: Packet, now: int) -> None:
        if self._needs_no_rule(direction, packet):
            return
        if packet.family == 6 and packet.icmp and packet.kind != "later":
            if packet.type in range(133, 138):
                if direction is EGRESS:
                    self._discovery(packet)
                return
            if packet.type in (130, 131, 132, 143):
                return
        errors = (3, 4, 11, 12) if packet.family == 4 else (1, 2, 3, 4)
        if packet.icmp and packet.type in errors and packet.kind == "whole":
            key = self._quoted(direction, packet)
            conn = self._find(key, now)
            if conn is not None and self._still_admitted(key, conn):
                return
        if not self._admits(direction, packet):
            reply = 0 if packet.family == 4 else 129
            lost = packet.icmp and packet.type == reply
            raise Refused("no-connection" if lost else "policy")

    def _discovery(self, packet: Packet) -> None:
        if packet.type in (134, 137):
            raise Refused("router-advert")
        if packet.hops != 255 or packet.code or packet.kind != "whole":
            raise Refused("malformed")
        if not self.addresses:
            return
        options = packet.body[8:]
        if packet.type != 133:
            if len(options) < 16:
                raise Refused("malformed")
            target, options = ipaddress.IPv6Address(options[:16]), options[16:]
            claims = packet.type == 136 or int(packet.source) == 0
            if claims and not self._owns(target, packet.mac):
                raise Refused("nd-spoof")
        for _ in range(4):
            if not options:
                return
            if len(options) < 8 or options[1] == 0:
                raise Refused("malformed")
            if options[0] in (1, 2) and options[2:8] != packet.mac:
                raise Refused("nd-spoof")
            options = options[options[1] * 8 :]
        if options:
            raise Refused("nd-spoof")

    # -- policy

    def _admits(self, direction: Direction, packet: Packet) -> bool:
        remote = packet.destination if direction is EGRESS else packet.source
        dport = packet.type << 8 | packet.code if packet.icmp else packet.dport
        return self._allowed(direction, packet.proto, remote, dport)

    def _allowed(self, direction: Direction, proto: int, remote: Any, dport: int) -> bool:
        return any(
            self._matches(rule, direction, proto, remote, dport)
            and (not rule.remote_group or self._is_member(rule.remote_group, remote))
            for rule in self.policy.rules
        )

    def _is_member(self, group: str, address: Any) -> bool:
        networks = [ipaddress.ip_network(item) for item in self.members.get(group, ())]
        return any(address in network for network in networks)

    @staticmethod
    def _matches(rule: Rule, direction: Direction, proto: int, remote: Any, dport: int) -> bool:
        if rule.direction is not direction:
            return False
        if rule.ethertype and rule.ethertype != f"ipv{remote.version}":
            return False
        if rule.remote:
            network = ipaddress.ip_network(rule.remote)
            if network.version != remote.version or remote not in network:
                return False
        if rule.protocol is not None:
            wanted = NAMES.get(rule.protocol) or int(rule.protocol)
            if wanted != proto or (wanted in (1, 58) and remote.version != {1: 4, 58: 6}[wanted]):
                return False
        if rule.ports and not rule.ports[0] <= dport <= rule.ports[1]:
            return False
        if rule.icmp_type is not None and dport >> 8 != rule.icmp_type:
            return False
        return rule.icmp_code is None or dport & 255 == rule.icmp_code

    def _admits_conn(self, key: tuple, origin: Direction) -> bool:
        family, proto, _, remote, local_port, remote_port = key
        dport = local_port if origin is INGRESS else remote_port
        if proto == (1 if family == 4 else 58):
            dport = (8 if family == 4 else 128) << 8
        return self._allowed(origin, proto, remote, dport)

    # -- connections

    @staticmethod
    def _key(direction: Direction, packet: Packet) -> tuple:
        ends = (packet.source, packet.sport), (packet.destination, packet.dport)
        local, remote = ends if direction is EGRESS else ends[::-1]
        port = 0 if packet.icmp else remote[1]
        return packet.family, packet.proto, local[0], remote[0], local[1], port

    def _find(self, key: tuple | None, now: int) -> Conn | None:
        conn = self.conns.get(key) if key else None
        return conn if conn is not None and conn.expires > now else None

    def _still_admitted(self, key: tuple, conn: Conn) -> bool:
        """The policy is compared as an object: each change of it makes verdicts stale."""
        if conn.policy is self.policy:
            return True
        keep = self.policy.established is Established.KEEP and conn.assured
        if not self._admits_conn(key, conn.origin) and not keep:
            del self.conns[key]
            return False
        conn.policy = self.policy
        return True

    def _connected(self, direction: Direction, packet: Packet, now: int) -> None:
        flags = packet.flags & (FIN | SYN | RST | ACK)
        tcp = packet.proto == 6 and packet.kind != "later"
        valid = (SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, ACK)
        if tcp and flags not in valid:
            raise Refused("tcp-flags")
        key = self._key(direction, packet)
        conn = self._find(key, now)
        over = conn is not None and conn.state in ("time-wait", "close")
        if over and tcp and flags & (SYN | ACK) == SYN:
            conn = None
        answer = packet.icmp and packet.type in (0, 129)
        crossed = conn is not None and packet.icmp and answer == (direction is conn.origin)
        if crossed:
            conn = None
        if conn is not None and conn.policy is self.policy:
            self._advance(conn, direction, packet, now)
            return
        if direction is EGRESS:
            self._guard_source(packet)
        if conn is not None and self._still_admitted(key, conn):
            self._advance(conn, direction, packet, now)
            return
        if self._needs_no_rule(direction, packet):
            return
        if answer or crossed:
            self._stateless(direction, packet, now)
            return
        self._begin(direction, packet, key, flags if tcp else None, now)

    def _begin(
        self, direction: Direction, packet: Packet, key: tuple, flags: int | None, now: int
    ) -> None:
        if packet.kind == "later":
            raise Refused("fragment")
        if flags == SYN | ACK:
            raise Refused("no-connection")
        if direction is INGRESS and not self._owns(packet.destination):
            raise Refused("other-address")
        if flags is None or flags == SYN:
            if not self._admits_conn(key, direction):
                raise Refused("policy")
            state = "unreplied" if flags is None else "syn-sent"
        elif not self._admits_conn(key, direction):
            raise Refused("no-connection")
        elif flags & (RST | FIN):
            return self._ending(key, direction)
        elif self._admits_conn(key, other(direction)):
            state = "established"
        else:
            raise Refused("no-connection")
        conn = Conn(direction, state, self.policy, now + self.life[state] * SECOND)
        conn.packets[direction] = 1
        if packet.proto == 6:
            twin_window.begin(conn.windows, packet, direction)
        self.conns[key] = conn
        return None

    def _ending(self, key: tuple, direction: Direction) -> None:
        """A last segment of something forgotten: harmless where its direction is allowed."""

    def _advance(self, conn: Conn, direction: Direction, packet: Packet, now: int) -> None:
        if packet.proto == 6:
            later = packet.kind == "later"
            fit = "aside" if later else twin_window.judge(conn, packet, direction)
            if fit == "out" and self.strict:
                raise Refused("tcp-window")
            if fit != "in":
                conn.packets[direction] += 1
                return
        conn.replied |= direction is not conn.origin
        if packet.proto != 6:
            conn.state = "replied" if conn.replied else "unreplied"
        else:
            conn.state = next_state(conn, packet.flags, direction)
        conn.assured |= conn.replied and conn.state in ("established", "replied")
        conn.expires = now + self.life[conn.state] * SECOND
        conn.packets[direction] += 1

    def _quoted(self, direction: Direction, packet: Packet) -> tuple | None:
        data = packet.body[8:]
        size = 20 if packet.family == 4 else 40
        if len(data) < size or data[0] >> 4 != packet.family:
            return None
        if packet.family == 4:
            size = (data[0] & 15) * 4
            if size < 20 or int.from_bytes(data[6:8], "big") & 0x1FFF:
                return None
            proto, ends = data[9], (data[12:16], data[16:20])
        else:
            proto, ends = data[6], (data[8:24], data[24:40])
        transport = data[size : size + 8]
        if len(transport) < 8:
            return None
        addresses = [ipaddress.ip_address(item) for item in ends]
        ports = [int.from_bytes(transport[:2], "big"), int.from_bytes(transport[2:4], "big")]
        if addresses[0] != packet.destination:  # not told to who sent it
            return None
        if direction is EGRESS:  # it quotes what came to the VM
            addresses.reverse()
            ports.reverse()
        if proto == (1 if packet.family == 4 else 58):
            ports = [int.from_bytes(transport[4:6], "big"), 0]
        elif proto not in (6, 17, 33, 132, 136):
            ports = [0, 0]
        return packet.family, proto, *addresses, *ports


def next_state(conn: Conn, flags: int, direction: Direction) -> str:
    """RFC 793 as a table of what each kind of segment does to each state."""
    state, reply = conn.state, direction is not conn.origin
    if flags & RST or state == "close":
        return "close"
    if flags & SYN:
        return "syn-received" if state == "syn-sent" and reply else state
    if flags & FIN:
        if direction in conn.fins:
            return state
        conn.fins.add(direction)
        return "last-ack" if len(conn.fins) == 2 else "fin-wait"
    table = {
        ("syn-received", True): not reply and "established",
        ("fin-wait", True): other(direction) in conn.fins and "close-wait",
        ("last-ack", True): "time-wait",
    }
    return table.get((state, True)) or state
