"""Policies and frames drawn in bulk, of the same few values as frame_strategies.py.

Hypothesis takes a thousand times as long for each: it is for finding the smallest example, this is
for a million of them. A difference found here is told with its seed.
"""

import random

import frames as f
from frame_strategies import GROUPS, LINK_LOCAL, OWN4, OWN6, PEER, VM
from twin import EGRESS, INGRESS

from vnet_agent.model.policy import Direction, Established, Policy, Rule

LOCALS = {4: [OWN4] * 6 + ["10.0.0.9", "0.0.0.0", "255.255.255.255"]}
LOCALS[6] = [OWN6] * 6 + [LINK_LOCAL, "fe80::1", "::"]
PEERS = {4: ["10.0.0.2"] * 8 + ["10.0.0.3", "192.0.2.7", "224.0.0.1"]}
PEERS[6] = ["2001:db8::2"] * 8 + ["2001:db8:1::3", "ff02::1", "fe80::1"]
PORTS = [80] * 6 + [4000] * 6 + [22, 53, 67, 68, 546, 547]
FLAGS = [
    *(f.SYN, f.SYN | f.ACK, f.ACK, f.ACK, f.ACK | f.PSH, f.FIN | f.ACK, f.RST, f.RST | f.ACK),
    *(0, f.FIN, f.SYN | f.FIN),
]
#: Of sequences: about where they begin, at edges of windows, and far away.
NUMBERS = [0, 1, 2, 10, 11, 12, 31, 65537, 66001, 1 << 20, 1 << 31, (1 << 32) - 1]
PROTOCOLS = [f.TCP] * 3 + [f.UDP] * 2 + [f.SCTP, f.DCCP, f.UDPLITE, 47, f.ICMP, f.ICMPV6]
ICMP_TYPES = {
    f.ICMP: [8, 8, 0, 0, 3, 11, 13],
    f.ICMPV6: [128, 128, 129, 129, 1, 2, 3, 130, 133, 134, 137, 143] + [135, 136] * 4,
}
MEMBERS = ["10.0.0.2", "10.0.0.3", "10.0.0.0/30", "0.0.0.0/1", "2001:db8::2", "2001:db8::/32"]
MATCHES: list[dict] = [
    *({}, {}, {"ethertype": "ipv4"}, {"ethertype": "ipv6"}, {"protocol": "tcp"}),
    {"protocol": "tcp", "ports": (80, 80)},
    {"protocol": "tcp", "ports": (22, 1000)},
    {"protocol": "udp", "ports": (53, 68)},
    {"protocol": "udp"},
    {"protocol": "udplite", "ports": (80, 80)},
    {"protocol": "dccp", "ports": (1, 79)},
    {"protocol": "47"},
    {"protocol": "icmp"},
    {"protocol": "icmpv6"},
    {"protocol": "icmp", "icmp_type": 8},
    {"protocol": "icmp", "icmp_type": 3, "icmp_code": 4},
    {"protocol": "icmpv6", "icmp_type": 128},
    *(
        {"remote": item}
        for item in ("10.0.0.0/8", "10.0.0.2/32", "0.0.0.0/0", "::/0", "2001:db8::2/128")
    ),
    *({"remote_group": group} for group in GROUPS * 3),
    {"remote_group": "near", "protocol": "tcp", "ports": (80, 80)},
    {"remote_group": "far", "ethertype": "ipv6"},
]


def random_policy(rng: random.Random) -> Policy:
    rules = tuple(
        Rule(direction=rng.choice(list(Direction)), **rng.choice(MATCHES))
        for _ in range(rng.randrange(7))
    )
    return Policy(rules=rules, established=rng.choice(list(Established)))


def random_members(rng: random.Random) -> list[str]:
    return rng.sample(MEMBERS, rng.randrange(4))


def _segment(rng: random.Random) -> bytes:
    """Half of them are where their peer expects them."""
    seq, ack = (1, 1) if rng.randrange(2) else (rng.choice(NUMBERS), rng.choice(NUMBERS))
    options = f.window_scale(rng.choice((0, 4, 15))) if rng.randrange(4) == 0 else b""
    return f.tcp(
        rng.choice(PORTS),
        rng.choice(PORTS),
        rng.choice(FLAGS),
        bytes(rng.choice((0, 0, 1, 30))),
        seq=seq,
        ack=ack,
        window=rng.choice((0, 9, 9, 65535)),
        options=options,
    )


def _transport(rng: random.Random, family: int, *, quoted: bool = False) -> tuple[int, bytes]:
    proto = rng.choice((f.UDP, f.TCP)) if quoted else rng.choice(PROTOCOLS)
    if proto == f.TCP:
        return proto, _segment(rng)
    if proto in (f.UDP, f.SCTP, f.DCCP, f.UDPLITE):
        return proto, f.udp(rng.choice(PORTS), rng.choice(PORTS))
    if proto == 47:
        return proto, bytes(8)
    kind = rng.choice(ICMP_TYPES[proto])
    if kind in (135, 136):
        target = rng.choice((OWN6, "2001:db8::2"))
        return proto, f.discovery(
            kind, target, rng.choice((VM, VM, PEER, None)), rng.choice((1, 2, 14))
        )
    payload = b""
    if kind in (1, 2, 3, 11) and rng.randrange(4):
        payload = _packet(rng, family, rng.choice((EGRESS, INGRESS)), quoted=True)
    return proto, f.icmp(kind, rng.choice((0, 0, 4)), rng.choice((1, 2)), payload)


def _packet(
    rng: random.Random, family: int, direction: Direction, *, quoted: bool = False
) -> bytes:
    ends = rng.choice(LOCALS[family]), rng.choice(PEERS[family])
    source, destination = ends if direction is EGRESS else ends[::-1]
    proto, body = _transport(rng, family, quoted=quoted)
    fragment = rng.choice(("", "", "", "", "first", "later", "one"))
    offset, ident = {"later": 3, "one": 1}.get(fragment, 0), rng.choice((1, 2))
    if family == 4:
        more, options = fragment in ("first", "one"), rng.choice((b"", b"", b"\1" * 4))
        return f.ipv4(
            source,
            destination,
            proto,
            body,
            fragment=offset,
            more=more,
            ident=ident,
            options=options,
        )
    if fragment:
        body = f.fragment6(proto, ident, offset, fragment == "first", body)
        proto = 44
    if rng.randrange(3) == 0:
        body, proto = bytes([proto, 0, 1, 4, 0, 0, 0, 0]) + body, 60
    return f.ipv6(source, destination, proto, body, hops=rng.choice((255, 255, 64)))


def random_frame(rng: random.Random) -> tuple[Direction, bytes]:
    """Long enough for the kernel to run it: it refuses what ends within the IP header."""
    direction = rng.choice((EGRESS, INGRESS))
    source, target = (VM, PEER) if direction is EGRESS else (PEER, VM)
    if rng.randrange(16) == 0:
        source = "52:54:00:00:00:77"
    if rng.randrange(8) == 0:
        target = rng.choice(("ff:ff:ff:ff:ff:ff", "52:54:00:00:00:78", VM))
    kind = rng.randrange(20)
    if kind < 18:
        family = 4 if kind < 9 else 6
        packet = _packet(rng, family, direction)
        frame = f.ether(source, target, f.IPV4 if family == 4 else f.IPV6, packet)
        return direction, frame[: rng.randrange(54, 80)] if rng.randrange(50) == 0 else frame
    if kind == 18:
        body = f.arp(rng.choice((VM, VM, PEER)), rng.choice(LOCALS[4]), rng.choice(PEERS[4]))
        return direction, f.ether(source, target, rng.choice((f.ARP, f.RARP)), body)
    ethertype = rng.choice((f.VLAN, 0x88A8, 0x88CC, f.IPV4, f.IPV6))
    return direction, f.ether(source, target, ethertype, rng.randbytes(rng.randrange(40, 60)))
