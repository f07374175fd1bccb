"""The pure parts of the benches: rows and goals, and one policy in every peer's words."""

import ipaddress
import re
import struct

import bench_datapath_exact as exact
import comparison
import pytest
import result
import rulesets
import vary
from hypothesis import given
from hypothesis import strategies as st
from load import FIGURES
from sandbox import BenchError
from tenants import GUESTS, TCP_PORT, UDP_PORT, make_rules

from vnet_agent.model.policy import Direction, Rule


def test_bench_row_says_median_spread_and_ratio() -> None:
    row = result.Row("a", "ns", [3.0, 1.0, 8.0], "b", [6.0, 6.0, 1.0]).as_json()
    assert row["value"] == 3.0
    assert row["spread"] == [1.0, 8.0]
    assert row["rounds"] == 3
    assert (row["against"], row["ratio"]) == ("b", 0.5)
    assert (row["goal"], row["holds"]) == (None, True)


@pytest.mark.parametrize(
    ("goal", "ceiling", "peer", "holds"),
    [
        (10.0, True, [], True),
        (9.9, True, [], False),
        (10.0, False, [], True),
        (10.1, False, [], False),
        # With a peer the goal is about the ratio, which is 2 here.
        (2.0, False, [5.0], True),
        (2.1, False, [5.0], False),
        (2.0, True, [5.0], True),
        (1.9, True, [5.0], False),
    ],
)
def test_bench_goal_is_met_or_missed(
    goal: float, ceiling: bool, peer: list[float], holds: bool
) -> None:
    row = result.Row("a", "1/s", [10.0], "b" if peer else None, peer, goal, ceiling)
    assert row.as_json()["holds"] is holds
    assert ("MISSED" in result.format_row(row)) is not holds
    assert f"at {'most' if ceiling else 'least'} {goal:g}" in result.format_row(row)


def test_bench_rows_compare_vnet_with_each_peer_measured() -> None:
    peers = [comparison.VETH, comparison.NFTABLES, comparison.OVS_XDP, comparison.VNET]
    measured = {
        (peer, figure): [100.0 * (number + 1)] * 5
        for number, peer in enumerate(peers)
        for figure in FIGURES
        if peer != comparison.OVS_XDP
    }
    rows = comparison.make_rows(measured, peers)
    compared = [row for row in rows if row.against]
    assert len(compared) == 2 * len(FIGURES)
    assert len(rows) == 4 * len(FIGURES)
    assert len({row.name for row in rows}) == len(rows)
    for row in compared:
        # Only floors: a peer is never too slow.
        assert not row.goal_is_ceiling
        assert row.as_json()["ratio"] == (4.0 if row.against == comparison.VETH else 2.0)
    goals = {(row.against, row.name.partition(":")[0]): row.goal for row in compared}
    names = {figure.kind: figure.name for figure in FIGURES}
    assert all(goals[comparison.VETH, name] == 0.95 for name in names.values())
    assert goals[comparison.NFTABLES, names["crr"]] == 1.15
    assert goals[comparison.NFTABLES, names["udp"]] is None


def test_bench_rows_without_vnet_compare_nothing() -> None:
    measured = {(comparison.VETH, figure): [1.0] for figure in FIGURES}
    rows = comparison.make_rows(measured, [comparison.VETH, comparison.VNET])
    assert [row.against for row in rows] == [None] * len(FIGURES)


def test_bench_policy_has_a_hundred_rules_and_the_last_admit_the_load() -> None:
    rules = make_rules()
    assert len(rules) == 100
    assert len(set(map(repr, rules))) == 100
    sender = ipaddress.ip_address(GUESTS[0].address)
    for protocol, port in (("tcp", TCP_PORT), ("udp", UDP_PORT)):
        matching = [
            number
            for number, rule in enumerate(rules)
            if rule.direction is Direction.INGRESS
            and rule.protocol in (None, protocol)
            and (rule.ports is None or rule.ports[0] <= port <= rule.ports[1])
            and (rule.remote is None or sender in ipaddress.ip_network(rule.remote))
        ]
        assert len(matching) == 1
        assert matching[0] >= 96


@pytest.mark.parametrize("family", ["inet", "bridge"])
def test_bench_nftables_says_every_rule(family: str) -> None:
    text = rulesets.nftables_rules(GUESTS, make_rules(), family)
    into = text.partition("chain to_b {")[2].partition("}")[0]
    assert into.count(" accept\n") == 1 + 99
    assert "ip saddr 172.16.3.0/24 tcp dport 8024-8031 accept" in into
    assert "ip saddr 10.9.0.0/24 tcp dport 7000 accept" in into
    assert into.strip().endswith("drop")
    assert ('"tap-b" : jump to_b' in text) == (family == "bridge")
    assert text.count("{") == text.count("}")


def test_bench_iptables_says_every_rule_as_neutron_lays_them() -> None:
    lines = rulesets.iptables_rules(GUESTS, make_rules()).splitlines()
    chain = f"neutron-openvswi-i{GUESTS[1].uuid[:10]}"
    into = [line for line in lines if line.startswith(f"-A {chain} ")]
    assert len(into) == 1 + 99 + 2
    assert "--state RELATED,ESTABLISHED -j RETURN" in into[0]
    assert into[-1].endswith("-j neutron-openvswi-sg-fallback")
    assert f"-A {chain} -s 172.16.3.0/24 -p tcp -m tcp --dport 8024:8031 -j RETURN" in into
    made = {line[1:].split()[0] for line in lines if line.startswith(":")}
    used = set(re.findall(r"neutron-openvswi-\S+", "\n".join(lines)))
    assert used == made
    assert all(len(name) <= 28 for name in made)


def test_bench_openflow_says_every_rule_for_each_port() -> None:
    flows = rulesets.openflow_rules(GUESTS, make_rules()).splitlines()
    into = [flow for flow in flows if f"table=2,priority=50,dl_dst={GUESTS[1].mac}," in flow]
    assert len(into) == 99
    assert all(flow.endswith("actions=ct(commit,zone=1),output:2") for flow in into)
    assert any(",tcp,nw_src=172.16.3.0/24,tp_dst=0x1f58/0xfff8," in flow for flow in into)


def test_bench_rulesets_refuse_what_they_cannot_say() -> None:
    rules = (*make_rules(), Rule(direction=Direction.EGRESS, protocol="tcp", ports=(80, 80)))
    for text in (
        lambda: rulesets.nftables_rules(GUESTS, rules, "inet"),
        lambda: rulesets.iptables_rules(GUESTS, rules),
        lambda: rulesets.openflow_rules(GUESTS, rules),
    ):
        with pytest.raises(ValueError, match="egress"):
            text()


@given(ends=st.lists(st.integers(0, 65535), min_size=2, max_size=2).map(sorted))
def test_bench_port_blocks_cover_the_range_and_nothing_else(ends: list[int]) -> None:
    low, high = ends
    expected = low
    for block in rulesets.port_blocks(low, high):
        value, mask = (int(number, 16) for number in block.split("/"))
        assert value & mask == value
        assert value == expected
        expected = value + 0x10000 - mask
    assert expected == high + 1
    assert len(rulesets.port_blocks(low, high)) <= 30


def test_bench_frame_has_its_ports_where_they_are_varied() -> None:
    frame = vary.make_frame(*GUESTS, vary.SYN, (1025, 7000))
    assert len(frame) == 54
    assert struct.unpack_from("!HH", frame, 34) == (1025, 7000)
    assert frame[:6].hex(":") == GUESTS[1].mac
    assert frame[6:12].hex(":") == GUESTS[0].mac
    assert ipaddress.ip_address(frame[26:30]) == ipaddress.ip_address(GUESTS[0].address)
    assert frame[47] == vary.SYN


def test_bench_exact_rows_hold_vnet_to_the_kernel_peers() -> None:
    found = {
        (peer, kind): [rate]
        for peer, rate in ((comparison.OVS_KERNEL, 1000.0), (comparison.VNET, 1500.0))
        for kind in comparison.EXACT_NAMES
    }
    rows = {row.name: row.as_json() for row in comparison.make_exact_rows(found)}
    compared = [row for row in rows.values() if row["against"]]
    assert [(row["goal"], row["holds"]) for row in compared] == [
        *[(1.75, False)] * 4,
        (1.2, True),
    ]
    for name in comparison.FRAME_NAMES.values():
        assert rows[f"{name}: {comparison.VNET}"]["value"] == pytest.approx(1e9 / 1500)


def test_bench_exact_console_is_read_to_its_end() -> None:
    lines = [
        "SeaBIOS",
        'FIGURE {"peer": "a", "kind": "rr", "values": [1.5]}',
        'PROBLEM {"peer": "b", "error": "no"}',
        "END",
        "[ 1.0] reboot: Power down",
    ]
    console = "\r\n".join(lines)
    assert exact.parse_console(console) == ({("a", "rr"): [1.5]}, {"b": "no"})
    with pytest.raises(BenchError, match="reboot"):
        exact.parse_console(console.replace("END", ""))
