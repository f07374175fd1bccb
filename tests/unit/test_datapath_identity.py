"""A VM speaks only for itself; what has no connection; malformed frames."""

import frames as f
import pytest
from datapath_bench import (
    GATEWAY,
    IN_TCP_80,
    OUT_ALL,
    PEER,
    PEER4,
    PEER6,
    PORT,
    TAP,
    VM,
    VM4,
    VM6,
    Bench,
    policy,
)

from vnet_agent.datapath import _flowcache as c
from vnet_agent.model.policy import DENY_ALL, Direction, Rule

LINK_LOCAL = "fe80::5054:ff:fe00:1"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def raw_out(bench: Bench, frame: bytes) -> str:
    return bench.process(c.FROM_PORT, TAP, frame)[1]


def test_source_mac_and_addresses() -> None:
    bench = Bench()
    packet = f.ipv4(VM4, PEER4, f.UDP, f.udp(1, 2))
    assert bench.out(packet, source=PEER) == "mac-spoof"
    assert bench.out(f.ipv4("10.0.0.9", PEER4, f.UDP, f.udp(1, 2))) == "ip-spoof"
    assert bench.out(f.ipv6("2001:db8::9", PEER6, f.UDP, f.udp(1, 2))) == "ip-spoof"
    assert bench.out(f.ipv6(LINK_LOCAL, PEER6, f.UDP, f.udp(1, 2))) == ""
    assert bench.out(f.ipv6("fe80::1", PEER6, f.UDP, f.udp(1, 2))) == "ip-spoof"
    assert bench.out(packet) == ""
    assert bench.driver.counters(PORT).drops == {"mac-spoof": 1, "ip-spoof": 3}


def test_unknown_addresses_are_not_checked() -> None:
    bench = Bench(addresses=())
    assert bench.out(f.ipv4("10.0.0.9", PEER4, f.UDP, f.udp(1, 2))) == ""
    assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(1, 2)), source=PEER) == "mac-spoof"


def test_withdrawn_address_ends_its_connections() -> None:
    bench = Bench()
    bench.handshake_out()
    bench.addresses = ("10.0.0.5",)
    bench.set_port()
    assert bench.tcp_out(5000, 443, f.ACK) == "ip-spoof"


def test_withdrawn_address_is_not_kept_by_the_peer() -> None:
    """A frame of the old connection from outside must not make its verdict fresh again."""
    bench = Bench(policy(OUT_ALL, keep=True))
    bench.handshake_out()
    bench.addresses = ("10.0.0.5",)
    bench.set_port()
    assert bench.tcp_in(443, 5000, f.ACK) == "other-address"
    assert bench.tcp_out(5000, 443, f.ACK) == "ip-spoof"
    assert bench.states() == []


def test_peer_cannot_give_the_vm_an_address() -> None:
    """A frame to the VM's MAC and another's address opens no way back from that address."""
    bench = Bench()
    for packet in (
        f.ipv4(PEER4, "10.0.0.9", f.UDP, f.udp(1, 2)),
        f.ipv4(PEER4, "10.0.0.9", f.TCP, f.tcp(1, 2, f.SYN)),
        f.ipv6(PEER6, "2001:db8::9", f.UDP, f.udp(1, 2)),
    ):
        assert bench.into(packet) == "other-address"
    assert bench.out(f.ipv4("10.0.0.9", PEER4, f.UDP, f.udp(2, 1))) == "ip-spoof"
    assert bench.out(f.ipv6("2001:db8::9", PEER6, f.UDP, f.udp(2, 1))) == "ip-spoof"
    anywhere = Bench(addresses=())
    assert anywhere.into(f.ipv4(PEER4, "10.0.0.9", f.UDP, f.udp(1, 2))) == ""


def test_arp_and_rarp() -> None:
    bench = Bench(DENY_ALL)

    def arp(sender_mac: str, sender: str, ethertype: int = f.ARP) -> str:
        return raw_out(bench, f.ether(VM, BROADCAST, ethertype, f.arp(sender_mac, sender, PEER4)))

    assert arp(VM, VM4) == "none"
    assert arp(VM, "0.0.0.0") == "none"
    assert arp(VM, "10.0.0.9") == "arp-spoof"
    assert arp(PEER, VM4) == "arp-spoof"
    assert arp(VM, "0.0.0.0", f.RARP) == "none"
    assert arp(PEER, "0.0.0.0", f.RARP) == "arp-spoof"
    assert raw_out(bench, f.ether(VM, BROADCAST, f.ARP, b"\0" * 27)) == "malformed"
    assert raw_out(bench, f.ether(VM, BROADCAST, 0x88CC, b"\0" * 60)) == "ethertype"
    assert raw_out(bench, f.ether(VM, BROADCAST, f.VLAN, b"\0" * 60)) == "vlan"


def test_neighbour_discovery() -> None:
    bench = Bench(DENY_ALL)
    group = "33:33:00:00:00:01"

    def discover(source: str, message: bytes, hops: int = 255) -> str:
        return bench.out(f.ipv6(source, "ff02::1", f.ICMPV6, message, hops=hops), target=group)

    assert discover(VM6, f.discovery(135, PEER6, VM)) == ""
    assert discover(VM6, f.discovery(135, PEER6, PEER)) == "nd-spoof"
    assert discover("::", f.discovery(135, VM6)) == ""
    assert discover("::", f.discovery(135, PEER6)) == "nd-spoof"
    assert discover(VM6, f.discovery(136, VM6, VM, option=2)) == ""
    assert discover(VM6, f.discovery(136, PEER6, VM, option=2)) == "nd-spoof"
    assert discover(VM6, f.discovery(136, VM6, PEER, option=2)) == "nd-spoof"
    assert discover("fe80::1", f.discovery(136, VM6, VM)) == "ip-spoof"
    assert discover(VM6, f.discovery(135, PEER6, VM), hops=64) == "malformed"
    assert discover(LINK_LOCAL, f.icmp(133)) == ""
    assert discover(LINK_LOCAL, f.icmp(134, payload=b"\0" * 8)) == "router-advert"
    assert bench.into(f.ipv6("fe80::1", "ff02::1", f.ICMPV6, f.icmp(134), hops=255)) == ""


def test_dhcp_needs_no_rule_and_serving_it_is_refused() -> None:
    bench = Bench(DENY_ALL)
    request = f.ipv4("0.0.0.0", "255.255.255.255", f.UDP, f.udp(68, 67))
    assert bench.out(request, target=BROADCAST) == ""
    assert bench.into(f.ipv4(PEER4, VM4, f.UDP, f.udp(67, 68)), source=GATEWAY) == ""
    assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(67, 68))) == "dhcp-server"
    assert bench.out(f.ipv6(LINK_LOCAL, "ff02::1:2", f.UDP, f.udp(546, 547))) == ""
    assert bench.out(f.ipv4("0.0.0.0", PEER4, f.UDP, f.udp(68, 67))) == "ip-spoof"
    assert bench.out(f.ipv4("0.0.0.0", "255.255.255.255", f.UDP, f.udp(1, 67))) == "ip-spoof"


def test_an_answer_to_an_admitted_dhcp_request_passes_whether_cached_or_not() -> None:
    requests = Rule(direction=Direction.INGRESS, protocol="udp", ports=(67, 67))
    bench = Bench(policy(requests))
    assert bench.into(f.ipv4(PEER4, VM4, f.UDP, f.udp(68, 67))) == ""
    answer = f.ipv4(VM4, PEER4, f.UDP, f.udp(67, 68))
    assert bench.out(answer) == ""
    bench.driver.set_policy(PORT, policy(requests, IN_TCP_80))
    assert bench.out(answer) == ""
    bench.driver.set_policy(PORT, policy(IN_TCP_80))
    assert bench.out(answer) == "dhcp-server"


def test_group_addresses_make_no_connection() -> None:
    bench = Bench(policy(OUT_ALL))
    mdns = f.ipv4(VM4, "224.0.0.251", f.UDP, f.udp(5353, 5353))
    assert bench.out(mdns, target="01:00:5e:00:00:fb") == ""
    assert bench.states() == []
    assert bench.into(f.ipv4(PEER4, "224.0.0.251", f.UDP, f.udp(5353, 5353))) == "policy"


def test_port_without_policy_passes_no_ip() -> None:
    bench = Bench(None)
    assert bench.tcp_out(1, 2, f.SYN) == "no-policy"
    assert bench.tcp_in(1, 2, f.SYN) == "no-policy"
    frame = f.ether(VM, BROADCAST, f.ARP, f.arp(VM, VM4, PEER4))
    assert raw_out(bench, frame) == "none"


def test_frames_for_others_do_not_reach_the_vm() -> None:
    bench = Bench()
    packet = f.ipv4(PEER4, "10.0.0.3", f.UDP, f.udp(1, 2))
    assert bench.into(packet, target=GATEWAY) == "other-mac"


@pytest.mark.parametrize(
    "packet",
    [
        b"\x45",
        f.ipv4(VM4, PEER4, f.TCP, f.tcp(1, 2, f.SYN))[:39],
        f.ipv4(VM4, PEER4, f.TCP, f.tcp(1, 2, f.SYN), total=30),
        f.ipv4(VM4, PEER4, f.TCP, f.tcp(1, 2, f.SYN), total=19),
        f.ipv4(VM4, PEER4, f.UDP, b"\0" * 7),
        b"\x44" + f.ipv4(VM4, PEER4, f.UDP, f.udp(1, 2))[1:],
        f.ipv4(VM4, PEER4, f.TCP, f.tcp(1, 2, f.SYN)[:12] + b"\x40" + b"\0" * 7),
        f.ipv6(VM6, PEER6, f.UDP, f.udp(1, 2), length=100),
        f.ipv6(VM6, PEER6, 60, b"\x11\xff" + b"\0" * 6),
        f.ipv6(VM6, PEER6, f.TCP, b"")[:30],
    ],
)
def test_malformed(packet: bytes) -> None:
    ethertype = f.IPV6 if packet[0] >> 4 == 6 else f.IPV4
    assert raw_out(Bench(), f.ether(VM, PEER, ethertype, packet)) == "malformed"


def test_second_tcp_fragment_cannot_rewrite_flags() -> None:
    bench = Bench(policy(Rule(direction=Direction.EGRESS, protocol="tcp")))
    first = f.ipv4(VM4, PEER4, f.TCP, f.tcp(1, 2, f.SYN, b"x" * 4), more=True, ident=3)
    assert bench.out(first) == ""
    assert bench.out(f.ipv4(VM4, PEER4, f.TCP, b"\0" * 16, fragment=3, ident=3)) == ""
    second = f.ipv4(VM4, PEER4, f.TCP, b"\0" * 16, fragment=1, ident=3)
    assert bench.out(second) == "fragment"


def test_fragments_end_where_packets_can() -> None:
    """What they make up is 65,535 bytes at most ("ping of death")."""
    bench = Bench()
    assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(1, 2), more=True, ident=3)) == ""
    for size, reason in ((11, ""), (12, "malformed")):
        last = f.ipv4(VM4, PEER4, f.UDP, bytes(size), fragment=8188, ident=3)
        assert bench.out(last) == reason
    whole = f.fragment6(f.UDP, 4, 0, True, f.udp(1, 2))
    assert bench.out(f.ipv6(VM6, PEER6, 44, whole)) == ""
    for size, reason in ((7, ""), (8, "malformed")):
        last = f.fragment6(f.UDP, 4, 8191, False, bytes(size))
        assert bench.out(f.ipv6(VM6, PEER6, 44, last)) == reason
