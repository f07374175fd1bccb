"""From rules to verdicts, and the rules that are refused."""

import frames as f
import pytest
from datapath_bench import PEER4, PEER6, PORT, VM4, VM6, Bench, policy

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.compiler import compile_policy
from vnet_agent.exceptions import PolicyError
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL, Direction, Policy, Rule

IN = Direction.INGRESS


def udp4(dport: int, peer: str = PEER4) -> bytes:
    return f.ipv4(peer, VM4, f.UDP, f.udp(9, dport))


def udp6(dport: int, peer: str = PEER6) -> bytes:
    return f.ipv6(peer, VM6, f.UDP, f.udp(9, dport))


@pytest.mark.parametrize(("low", "high"), [(80, 80), (1, 65535), (0, 65535), (100, 1023), (7, 9)])
def test_port_ranges_cover_exactly(low: int, high: int) -> None:
    compiled = compile_policy(policy(Rule(direction=IN, protocol="udp", ports=(low, high))))
    covered = set()
    for index, _, dport, _ in compiled.rules:
        size = 0x10000 - compiled.tuples[index].dport_mask
        block = set(range(dport, dport + size))
        assert not block & covered
        covered |= block
    assert covered == set(range(low, high + 1))


def test_ports_and_remotes() -> None:
    bench = Bench(
        policy(
            Rule(direction=IN, protocol="udp", ports=(100, 199), remote="10.0.0.0/30"),
            Rule(direction=IN, protocol="udp", ports=(300, 300), remote="2001:db8::/64"),
        )
    )
    assert bench.into(udp4(99)) == "policy"
    assert bench.into(udp4(100)) == ""
    assert bench.into(udp4(199)) == ""
    assert bench.into(udp4(200)) == "policy"
    assert bench.into(udp4(150, "10.0.0.4")) == "policy"
    assert bench.into(udp4(300)) == "policy"
    assert bench.into(udp6(300)) == ""
    assert bench.into(udp6(300, "2001:db8:0:1::1")) == "policy"
    assert bench.into(f.ipv4(PEER4, VM4, f.TCP, f.tcp(1, 150, f.SYN))) == "policy"


def test_families_and_protocols() -> None:
    bench = Bench(policy(Rule(direction=IN, ethertype="ipv6")))
    assert bench.into(udp4(1)) == "policy"
    assert bench.into(udp6(1)) == ""
    bench.driver.set_policy(PORT, policy(Rule(direction=IN, remote="0.0.0.0/0")))
    assert bench.into(udp4(2)) == ""
    assert bench.into(udp6(2)) == "policy"
    bench.driver.set_policy(PORT, policy(Rule(direction=IN, protocol="47")))
    assert bench.into(f.ipv4(PEER4, VM4, 47, b"\0" * 8)) == ""
    assert bench.into(f.ipv4(PEER4, VM4, 46, b"\0" * 8)) == "policy"


@pytest.mark.parametrize(("name", "number"), [("dccp", 33), ("sctp", 132), ("udplite", 136)])
def test_ports_of_less_usual_protocols(name: str, number: int) -> None:
    rule = Rule(direction=IN, protocol=name, ports=(100, 199))
    bench = Bench(policy(rule, Rule(direction=Direction.EGRESS, protocol="udp")))
    assert bench.into(f.ipv4(PEER4, VM4, number, f.udp(9, 100))) == ""
    assert bench.into(f.ipv4(PEER4, VM4, number, f.udp(9, 200))) == "policy"
    assert bench.out(f.ipv4(VM4, PEER4, number, f.udp(100, 9))) == ""
    assert bench.out(f.ipv4(VM4, PEER4, number, f.udp(101, 9))) == "policy"


def test_icmp_types_and_codes() -> None:
    bench = Bench(
        policy(
            Rule(direction=IN, protocol="icmp", icmp_type=13),
            Rule(direction=IN, protocol="icmp", icmp_type=3, icmp_code=4),
            Rule(direction=IN, protocol="icmp", ethertype="ipv6", icmp_type=128),
        )
    )
    assert bench.into(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(13, 9))) == ""
    assert bench.into(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(8))) == "policy"
    assert bench.into(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(3, 4))) == ""
    assert bench.into(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(3, 3))) == "policy"
    assert bench.into(f.ipv6(PEER6, VM6, f.ICMPV6, f.icmp(128))) == ""


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        (Rule(direction=IN, ports=(1, 2)), "protocol"),
        (Rule(direction=IN, protocol="icmp", ports=(1, 2)), "protocol"),
        (Rule(direction=IN, protocol="tcp", ports=(2, 1)), "2-1"),
        (Rule(direction=IN, protocol="tcp", ports=(0, 65536)), "65536"),
        (Rule(direction=IN, protocol="tcpp"), "tcpp"),
        (Rule(direction=IN, protocol="256"), "256"),
        (Rule(direction=IN, protocol="tcp", icmp_type=1), "ICMP"),
        (Rule(direction=IN, protocol="icmp", icmp_code=1), "icmp_type"),
        (Rule(direction=IN, protocol="icmp", icmp_type=256), "256"),
        (Rule(direction=IN, protocol="icmpv6", ethertype="ipv4"), "ipv4"),
        (Rule(direction=IN, remote="10.0.0.1/8"), "host bits"),
        (Rule(direction=IN, remote="10.0.0.0/8", ethertype="ipv6"), "ipv6"),
        (Rule(direction=IN, ethertype="arp"), "arp"),
    ],
)
def test_wrong_rules_are_refused_and_the_old_stay(rule: Rule, what: str) -> None:
    bench = Bench(ALLOW_ALL)
    with pytest.raises(PolicyError, match=what) as caught:
        bench.driver.set_policy(PORT, policy(Rule(direction=IN), rule))
    assert caught.value.where == "rules[1]"
    assert bench.into(udp4(1)) == ""


def test_too_many_tuples_are_refused_with_the_number() -> None:
    rules = [Rule(direction=IN, remote=f"2001:db8::/{length}") for length in range(32, 97)]
    with pytest.raises(PolicyError, match="65 combinations"):
        compile_policy(policy(*rules))
    compile_policy(policy(*rules[1:]))


def test_ports_share_a_policy_and_the_last_takes_it_away() -> None:
    bench = Bench(ALLOW_ALL)
    other = "33333333-0000-4000-8000-000000000001"
    bench.set_port(other, mac="52:54:00:00:00:33")
    bench.driver.set_policy(other, ALLOW_ALL)
    assert len(bench.native.table_items(c.TABLE_POLICIES)) == 1
    bench.driver.set_policy(PORT, DENY_ALL)
    bench.sleep(2)
    bench.driver.collect()
    assert len(bench.native.table_items(c.TABLE_POLICIES)) == 2
    bench.driver.remove_port(other, generation=1)
    bench.sleep(2)
    bench.driver.collect()
    assert len(bench.native.table_items(c.TABLE_POLICIES)) == 1
    assert bench.native.table_items(c.TABLE_RULES) == []


def test_a_policy_that_comes_back_before_it_is_gone_stays() -> None:
    bench = Bench(ALLOW_ALL)
    bench.driver.set_policy(PORT, DENY_ALL)
    bench.driver.set_policy(PORT, ALLOW_ALL)
    bench.sleep(2)
    bench.driver.collect()
    assert bench.into(udp4(1)) == ""


def test_ids_do_not_clash_after_adoption() -> None:
    bench = Bench(ALLOW_ALL)
    bench.driver.close()
    bench.driver.open()
    bench.driver.set_policy(PORT, DENY_ALL)
    assert bench.into(udp4(1)) == "policy"
    bench.driver.set_policy(PORT, ALLOW_ALL)
    assert bench.into(udp4(1)) == ""


def test_the_empty_policy_refuses_everything() -> None:
    bench = Bench(Policy())
    assert bench.into(udp4(1)) == "policy"
    assert bench.tcp_out(1, 2, f.SYN) == "policy"
