"""Hypothesis strategies: frames that meet each other's connections, policies, steps in time."""

import frames as f
import twin as t
from hypothesis import strategies as st

from vnet_agent.model.policy import Established, Policy, Rule
from vnet_agent.model.port import AddressPair

VM, PEER = "52:54:00:00:00:01", "52:54:00:00:00:02"
OWN4, OWN6 = "10.0.0.1", "2001:db8::1"
LINK_LOCAL = "fe80::5054:ff:fe00:1"

#: Few values, so that frames meet.
locals4 = st.sampled_from([OWN4] * 6 + ["10.0.0.9", "0.0.0.0", "255.255.255.255"])
peers4 = st.sampled_from(["10.0.0.2"] * 8 + ["10.0.0.3", "192.0.2.7", "224.0.0.1"])
locals6 = st.sampled_from([OWN6] * 6 + [LINK_LOCAL, "fe80::1", "::"])
peers6 = st.sampled_from(["2001:db8::2"] * 8 + ["2001:db8:1::3", "ff02::1", "fe80::1"])
ports = st.sampled_from([80] * 6 + [4000] * 6 + [22, 53, 67, 68, 546, 547])
flags = st.sampled_from(
    [
        *(f.SYN, f.SYN | f.ACK, f.ACK, f.ACK, f.ACK | f.PSH, f.FIN | f.ACK, f.RST, f.RST | f.ACK),
        *(0, f.FIN, f.SYN | f.FIN),
    ]
)
directions = st.sampled_from([t.EGRESS, t.INGRESS])
addresses = st.sampled_from([(OWN4, OWN6), ()])
#: Of another MAC of the VM's, and of its own.
VIRTUAL = "52:54:00:00:00:77"
pairs = st.sampled_from(
    [
        (),
        (),
        (AddressPair(ip_address="10.0.0.9/32", mac_address=VM),),
        (
            AddressPair(ip_address="10.0.0.8/29", mac_address=VIRTUAL),
            AddressPair(ip_address="fe80::/10", mac_address=VIRTUAL),
            AddressPair(ip_address="fe80::1/128", mac_address=VM),
        ),
        (
            AddressPair(ip_address="0.0.0.0/0", mac_address=VIRTUAL),
            AddressPair(ip_address="2001:db8::/64", mac_address=VIRTUAL),
        ),
    ]
)
icmp4 = st.sampled_from([8, 8, 0, 0, 3, 11, 13])
icmp6 = st.sampled_from([128, 128, 129, 129, 1, 2, 3, 130, 133, 134, 137, 143] + [135, 136] * 4)


@st.composite
def transports(draw, family: int) -> tuple[int, bytes]:
    proto = draw(
        st.sampled_from(
            [f.TCP, f.TCP, f.TCP, f.UDP, f.UDP, f.SCTP, f.DCCP, f.UDPLITE, 47, f.ICMP, f.ICMPV6]
        )
    )
    if proto == f.TCP:
        return proto, f.tcp(draw(ports), draw(ports), draw(flags))
    if proto in (f.UDP, f.SCTP, f.DCCP, f.UDPLITE):
        return proto, f.udp(draw(ports), draw(ports))
    if proto == 47:
        return proto, b"\0" * 8
    ident = draw(st.sampled_from([1, 2]))
    kind = draw(icmp4 if proto == f.ICMP else icmp6)
    if kind in (135, 136):
        own = draw(st.sampled_from([OWN6, "2001:db8::2"]))
        mac = draw(st.sampled_from([VM, VM, PEER, VIRTUAL, None]))
        return proto, f.discovery(kind, own, mac, draw(st.sampled_from([1, 2, 14])))
    payload = b""
    if kind in (1, 2, 3, 11) and draw(st.booleans()):
        payload = draw(ip_packets(family, draw(directions), quoted=True))
    return proto, f.icmp(kind, draw(st.sampled_from([0, 0, 4])), ident, payload)


@st.composite
def ip_packets(draw, family: int, direction, *, quoted: bool = False) -> bytes:
    local = draw(locals4 if family == 4 else locals6)
    peer = draw(peers4 if family == 4 else peers6)
    source, destination = (local, peer) if direction is t.EGRESS else (peer, local)
    if quoted:
        proto, body = f.UDP, f.udp(draw(ports), draw(ports))
        if draw(st.booleans()):
            proto, body = f.TCP, f.tcp(draw(ports), draw(ports), f.SYN)
    else:
        proto, body = draw(transports(family))
    fragment = draw(st.sampled_from(["", "", "", "", "first", "later", "one"]))
    ident = draw(st.sampled_from([1, 2]))
    if family == 4:
        offset = {"later": 3, "one": 1}.get(fragment, 0)
        options = draw(st.sampled_from([b"", b"", b"\1" * 4]))
        more = fragment in ("first", "one")
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
        offset = {"later": 3, "one": 1}.get(fragment, 0)
        body = f.fragment6(proto, ident, offset, fragment == "first", body)
        proto = 44
    if draw(st.sampled_from([False, False, True])):
        body, proto = bytes([proto, 0, 1, 4, 0, 0, 0, 0]) + body, 60
    return f.ipv6(source, destination, proto, body, hops=draw(st.sampled_from([255, 255, 64])))


@st.composite
def frames(draw) -> tuple:
    direction = draw(directions)
    source, target = (VM, PEER) if direction is t.EGRESS else (PEER, VM)
    source = draw(st.sampled_from([source] * 12 + [VIRTUAL] * 3))
    target = draw(
        st.sampled_from([target] * 12 + ["ff:ff:ff:ff:ff:ff", "52:54:00:00:00:78", VM, VIRTUAL])
    )
    kind = draw(st.sampled_from([4, 4, 4, 6, 6, 6, "arp", "other"]))
    if kind in (4, 6):
        packet = draw(ip_packets(kind, direction))
        return direction, f.ether(source, target, f.IPV4 if kind == 4 else f.IPV6, packet)
    if kind == "arp":
        sender = draw(st.sampled_from([VM, VM, PEER, source]))
        body = f.arp(sender, draw(locals4), draw(peers4))
        return direction, f.ether(source, target, draw(st.sampled_from([f.ARP, f.RARP])), body)
    ethertype = draw(st.sampled_from([f.VLAN, 0x88A8, 0x88CC, 0x0800, 0x86DD]))
    return direction, f.ether(source, target, ethertype, draw(st.binary(max_size=60)))


packets = frames()

rules = st.builds(
    lambda direction, what, remote: Rule(direction=direction, remote=remote, **what),
    directions,
    st.sampled_from(
        [
            {},
            {"ethertype": "ipv4"},
            {"ethertype": "ipv6"},
            {"protocol": "tcp"},
            {"protocol": "tcp", "ports": (80, 80)},
            {"protocol": "tcp", "ports": (22, 1000)},
            {"protocol": "udp", "ports": (53, 68)},
            {"protocol": "udp"},
            {"protocol": "udplite", "ports": (80, 80)},
            {"protocol": "dccp", "ports": (1, 79)},
            {"protocol": "47"},
        ]
    ),
    st.none(),
)
remote_rules = st.builds(
    lambda direction, remote: Rule(direction=direction, remote=remote),
    directions,
    st.sampled_from(
        ["10.0.0.0/8", "10.0.0.2/32", "0.0.0.0/0", "::/0", "2001:db8::/64", "2001:db8::2/128"]
    ),
)
#: A group has other members at other times.
GROUPS = ("near", "far")
members = st.lists(
    st.sampled_from(
        ["10.0.0.2", "10.0.0.3", "10.0.0.0/30", "0.0.0.0/1", "2001:db8::2", "2001:db8::/32"]
    ),
    max_size=3,
)
group_rules = st.builds(
    lambda direction, what, group: Rule(direction=direction, remote_group=group, **what),
    directions,
    st.sampled_from([{}, {}, {"ethertype": "ipv6"}, {"protocol": "tcp", "ports": (80, 80)}]),
    st.sampled_from(GROUPS),
)
icmp_rules = st.builds(
    lambda direction, what: Rule(direction=direction, **what),
    directions,
    st.sampled_from(
        [
            {"protocol": "icmp"},
            {"protocol": "icmpv6"},
            {"protocol": "icmp", "icmp_type": 8},
            {"protocol": "icmp", "icmp_type": 3, "icmp_code": 4},
            {"protocol": "icmpv6", "icmp_type": 128},
        ]
    ),
)
policies = st.builds(
    lambda items, established: Policy(rules=tuple(items), established=established),
    st.lists(
        st.one_of(rules, rules, remote_rules, icmp_rules, group_rules, group_rules), max_size=6
    ),
    st.sampled_from(list(Established)),
)
steps = st.one_of(
    *[packets] * 8,
    st.tuples(st.just("sleep"), st.sampled_from([1, 9, 20, 31, 61, 121])),
    st.tuples(st.just("policy"), policies),
    st.tuples(st.just("members"), st.sampled_from(GROUPS), members),
)
