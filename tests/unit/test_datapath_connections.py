"""Connections: TCP states, life, the cached verdict, quota."""

import frames as f
import pytest
from datapath_bench import (
    IN_TCP_80,
    OUT_ALL,
    PEER4,
    PEER6,
    PORT,
    VM4,
    VM6,
    Bench,
    policy,
)

from vnet_agent.exceptions import StaleGeneration
from vnet_agent.model.policy import DENY_ALL, Direction, Rule


def test_tcp_goes_through_its_states() -> None:
    bench = Bench()
    seen = []
    for step in (
        lambda: bench.tcp_out(5000, 80, f.SYN),
        lambda: bench.tcp_in(80, 5000, f.SYN | f.ACK),
        lambda: bench.tcp_out(5000, 80, f.ACK),
        lambda: bench.tcp_out(5000, 80, f.FIN | f.ACK),
        lambda: bench.tcp_in(80, 5000, f.ACK),
        lambda: bench.tcp_in(80, 5000, f.FIN | f.ACK),
        lambda: bench.tcp_out(5000, 80, f.ACK),
    ):
        assert step() == ""
        (connection,) = bench.driver.connections(PORT)
        seen.append(connection.state)
    assert seen == [
        "syn-sent",
        "syn-received",
        "established",
        "fin-wait",
        "close-wait",
        "last-ack",
        "time-wait",
    ]
    assert connection.origin == "egress"
    assert connection.assured
    assert (connection.egress_packets, connection.ingress_packets) == (4, 3)


def test_reset_closes() -> None:
    bench = Bench()
    bench.handshake_out()
    assert bench.tcp_in(443, 5000, f.RST) == ""
    assert bench.states() == ["close"]
    assert bench.tcp_in(443, 5000, f.ACK) == ""
    assert bench.states() == ["close"]
    bench.sleep(11)
    assert bench.states() == []


def test_syn_begins_anew_what_has_ended() -> None:
    bench = Bench(policy(OUT_ALL))
    bench.handshake_out()
    bench.tcp_in(443, 5000, f.RST)
    assert bench.tcp_in(443, 5000, f.SYN) == "policy"
    assert bench.tcp_out(5000, 443, f.SYN) == ""
    assert bench.states() == ["syn-sent"]


def test_stateful_policy_lets_replies_through_and_nothing_else() -> None:
    bench = Bench(policy(OUT_ALL))
    packet = f.ipv4(PEER4, VM4, f.UDP, f.udp(53, 4000))
    assert bench.into(packet) == "policy"
    assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(4000, 53))) == ""
    assert bench.states() == ["unreplied"]
    assert bench.into(packet) == ""
    assert bench.states() == ["replied"]
    assert bench.into(f.ipv4(PEER4, VM4, f.UDP, f.udp(53, 4001))) == "policy"


def test_expired_is_absent() -> None:
    bench = Bench(policy(OUT_ALL))
    assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(4000, 53))) == ""
    bench.sleep(29)
    assert bench.driver.connections(PORT)[0].remaining_ms == 1000
    bench.sleep(1)
    assert bench.driver.connections(PORT) == []
    assert bench.into(f.ipv4(PEER4, VM4, f.UDP, f.udp(53, 4000))) == "policy"
    assert bench.driver.collect() == 0  # not before the grace
    bench.sleep(2)
    assert bench.driver.collect() == 1


def test_mid_stream_is_taken_up_only_where_either_end_may_begin() -> None:
    assert Bench().tcp_out(5000, 80, f.ACK) == ""
    bench = Bench(policy(OUT_ALL))
    assert bench.tcp_out(5000, 80, f.ACK) == "no-connection"
    bench = Bench(policy(OUT_ALL, IN_TCP_80))
    assert bench.tcp_out(80, 5000, f.ACK) == ""
    assert bench.states() == ["established"]
    assert bench.tcp_in(5000, 80, f.ACK | f.PSH) == ""
    assert bench.driver.connections(PORT)[0].assured


def test_no_entry_from_reset_fin_or_syn_ack() -> None:
    bench = Bench()
    assert bench.tcp_out(5000, 80, f.RST) == ""
    assert bench.tcp_out(5000, 80, f.FIN | f.ACK) == ""
    assert bench.tcp_in(80, 5000, f.SYN | f.ACK) == "no-connection"
    assert bench.states() == []


@pytest.mark.parametrize("flags", [0, f.FIN, f.SYN | f.FIN, f.SYN | f.RST, 0x3F])
def test_impossible_tcp_flags(flags: int) -> None:
    bench = Bench()
    bench.handshake_out()
    assert bench.tcp_out(5000, 443, flags) == "tcp-flags"


def test_policy_change_rechecks_by_origin() -> None:
    bench = Bench(policy(OUT_ALL, IN_TCP_80))
    bench.handshake_in()
    bench.handshake_out()
    bench.driver.set_policy(PORT, policy(OUT_ALL))
    assert bench.tcp_out(5000, 443, f.ACK) == ""
    # The VM may begin anything, but this one its peer began.
    assert bench.tcp_out(80, 4000, f.ACK) == "no-connection"
    assert bench.tcp_in(4000, 80, f.ACK) == "no-connection"
    assert len(bench.states()) == 1


def test_keep_keeps_the_established_only() -> None:
    bench = Bench(policy(OUT_ALL, IN_TCP_80))
    bench.handshake_in()
    assert bench.tcp_in(4001, 80, f.SYN) == ""
    bench.driver.set_policy(PORT, policy(OUT_ALL, keep=True))
    assert bench.tcp_in(4000, 80, f.ACK) == ""
    assert bench.tcp_in(4001, 80, f.SYN) == "policy"
    assert bench.tcp_in(4002, 80, f.SYN) == "policy"
    bench.driver.set_policy(PORT, DENY_ALL)
    assert bench.tcp_in(4000, 80, f.ACK) == "no-connection"


def test_same_rules_again_leave_connections_alone() -> None:
    bench = Bench(policy(OUT_ALL, IN_TCP_80))
    bench.handshake_in()
    bench.driver.set_policy(PORT, policy(OUT_ALL))
    bench.driver.set_policy(PORT, policy(OUT_ALL, IN_TCP_80))
    assert bench.tcp_in(4000, 80, f.ACK) == ""


def test_quota_refuses_but_not_the_established() -> None:
    bench = Bench(quota=4)
    for port in range(3):
        bench.handshake_out(5000 + port)
    for port in range(4):
        bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(1, 2 + port)))
    # Openings that nobody has answered make room for newer ones; connections never do.
    assert bench.states().count("established") == 3
    assert len(bench.states()) == 4
    bench.sleep(1)
    bench.handshake_out(5003)
    assert bench.states() == ["established"] * 4
    assert bench.tcp_out(6000, 80, f.SYN) == "quota"
    assert bench.driver.counters(PORT).drops["quota"] >= 1
    assert bench.tcp_in(443, 5000, f.ACK) == ""


def test_icmp_echo_by_identifier_both_families() -> None:
    bench = Bench(policy(OUT_ALL))
    assert bench.into(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(0, ident=7))) == "no-connection"
    assert bench.out(f.ipv4(VM4, PEER4, f.ICMP, f.icmp(8, ident=7))) == ""
    assert bench.into(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(0, ident=7))) == ""
    assert bench.into(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(0, ident=8))) == "no-connection"
    assert bench.out(f.ipv6(VM6, PEER6, f.ICMPV6, f.icmp(128, ident=7))) == ""
    assert bench.into(f.ipv6(PEER6, VM6, f.ICMPV6, f.icmp(129, ident=7))) == ""
    ports = {(item.protocol, item.local_port) for item in bench.driver.connections(PORT)}
    assert ports == {("icmp", 7), ("icmpv6", 7)}


def test_an_echo_opens_no_door_to_the_peers_requests() -> None:
    bench = Bench(policy(OUT_ALL))
    for version, request, answer, local, remote, proto in (
        (f.ipv4, 8, 0, VM4, PEER4, f.ICMP),
        (f.ipv6, 128, 129, VM6, PEER6, f.ICMPV6),
    ):
        assert bench.out(version(local, remote, proto, f.icmp(request, ident=7))) == ""
        assert bench.into(version(remote, local, proto, f.icmp(request, ident=7))) == "policy"
        assert bench.into(version(remote, local, proto, f.icmp(answer, ident=7))) == ""
    # Where both may ask, the same identifier both ways is no matter.
    both = Bench()
    assert both.out(f.ipv4(VM4, PEER4, f.ICMP, f.icmp(8, ident=7))) == ""
    assert both.into(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(8, ident=7))) == ""
    assert both.out(f.ipv4(VM4, PEER4, f.ICMP, f.icmp(0, ident=7))) == ""


def test_icmp_errors_go_only_to_who_sent_what_they_quote() -> None:
    """Else the VM could tell anything to anybody, with one packet that it was sent."""
    bench = Bench(policy(IN_TCP_80))
    bench.handshake_in()
    came = f.ipv4(PEER4, VM4, f.TCP, f.tcp(4000, 80, f.ACK))
    error = f.icmp(3, 4, payload=came)
    assert bench.out(f.ipv4(VM4, PEER4, f.ICMP, error)) == ""
    assert bench.out(f.ipv4(VM4, "10.0.0.77", f.ICMP, error)) == "policy"
    bench = Bench(policy(OUT_ALL))
    sent = f.ipv6(VM6, PEER6, f.UDP, f.udp(5, 6))
    assert bench.out(sent) == ""
    quoting = f.icmp(1, 4, payload=sent)
    assert bench.into(f.ipv6(PEER6, VM6, f.ICMPV6, quoting)) == ""
    assert bench.into(f.ipv6(PEER6, "2001:db8::9", f.ICMPV6, quoting)) == "policy"


def test_icmp_errors_belong_to_the_connection_that_they_quote() -> None:
    bench = Bench(policy(OUT_ALL))
    router = "192.0.2.1"
    sent = f.ipv4(VM4, PEER4, f.UDP, f.udp(4000, 33434))
    error = f.ipv4(router, VM4, f.ICMP, f.icmp(11, payload=sent))
    assert bench.into(error) == "policy"
    assert bench.out(sent) == ""
    assert bench.into(error) == ""
    other = f.ipv4(VM4, PEER4, f.UDP, f.udp(4001, 33434))
    assert bench.into(f.ipv4(router, VM4, f.ICMP, f.icmp(3, 4, payload=other))) == "policy"
    sent6 = f.ipv6(VM6, PEER6, f.TCP, f.tcp(4000, 80, f.SYN))
    error6 = f.ipv6("2001:db8::ff", VM6, f.ICMPV6, f.icmp(2, payload=sent6))
    assert bench.into(error6) == "policy"
    assert bench.out(sent6) == ""
    assert bench.into(error6) == ""


def test_later_fragments_follow_their_first() -> None:
    bench = Bench(policy(Rule(direction=Direction.INGRESS, protocol="udp", ports=(53, 53))))

    def piece(dport: int, ident: int, first: bool) -> bytes:
        body = f.udp(1000, dport, b"x" * 16) if first else b"y" * 24
        return f.ipv4(PEER4, VM4, f.UDP, body, ident=ident, more=first, fragment=0 if first else 3)

    assert bench.into(piece(53, 1, False)) == "fragment"
    assert bench.into(piece(53, 1, True)) == ""
    assert bench.into(piece(53, 1, False)) == ""
    assert bench.into(piece(54, 2, True)) == "policy"
    assert bench.into(piece(54, 2, False)) == "fragment"
    bench.sleep(31)
    assert bench.into(piece(53, 1, False)) == "fragment"
    assert bench.driver.connections(PORT) == []


def test_ipv6_fragments_and_extensions() -> None:
    bench = Bench(policy(Rule(direction=Direction.INGRESS, protocol="udp", ports=(53, 53))))
    options = bytes([f.UDP, 0, 1, 4, 0, 0, 0, 0])
    assert bench.into(f.ipv6(PEER6, VM6, 60, options + f.udp(1, 53))) == ""
    assert bench.into(f.ipv6(PEER6, VM6, 60, options + f.udp(1, 54))) == "policy"
    first = f.fragment6(f.UDP, 9, 0, True, f.udp(2, 53, b"x" * 8))
    later = f.fragment6(f.UDP, 9, 2, False, b"y" * 8)
    assert bench.into(f.ipv6(PEER6, VM6, 44, later)) == "fragment"
    assert bench.into(f.ipv6(PEER6, VM6, 44, first)) == ""
    assert bench.into(f.ipv6(PEER6, VM6, 44, later)) == ""
    chain = b"".join(bytes([60, 0, 1, 4, 0, 0, 0, 0]) for _ in range(7))
    assert bench.into(f.ipv6(PEER6, VM6, 60, chain + f.udp(1, 53))) == "extension"


def test_flush_forgets_and_checks_the_owner() -> None:
    bench = Bench()
    bench.handshake_out()
    bench.set_port(generation=3)
    with pytest.raises(StaleGeneration):
        bench.driver.flush(PORT, generation=2)
    assert bench.driver.flush(PORT, generation=3) == 1
    assert bench.states() == []


def test_dead_connections_behind_many_living_make_room() -> None:
    """Ten thousand that live, more than one sweep looks at, and as many that are long dead."""
    bench = Bench(quota=20_000)
    for number in range(20_000):
        port = number // 2
        if number % 2:
            assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(port, 9))) == ""
            assert bench.into(f.ipv4(PEER4, VM4, f.UDP, f.udp(9, port))) == ""
        else:
            assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(port, 8))) == ""
    bench.sleep(31)
    taken = 0
    for _ in range(100):
        bench.sleep(0.3)
        while (
            bench.out(f.ipv4(VM4, PEER4, f.SCTP, f.udp(taken % 65536, 1 + taken // 65536))) == ""
        ):
            taken += 1
    assert taken > 10_000
    assert sum(item.assured for item in bench.driver.connections(PORT)) == 10_000
