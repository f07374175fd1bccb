"""Rules that ask who the peer is: what they cost, whom they let in, and what a departure ends."""

import frames as f
import pytest
from datapath_bench import INSTANCE, PEER4, PEER6, PORT, VM4, VM6, Bench, policy

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.compiler import compile_policy
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.exceptions import DatapathError, PolicyError
from vnet_agent.model.policy import ALLOW_ALL, Direction, Rule
from vnet_agent.model.port import Role

IN = Direction.INGRESS
FROM_WEB = Rule(direction=IN, remote_group="web")


def udp(peer: str, dport: int = 9) -> bytes:
    make, own = (f.ipv6, VM6) if ":" in peer else (f.ipv4, VM4)
    return make(peer, own, f.UDP, f.udp(9, dport))


def entries(driver: MemoryDriver, table: int) -> int:
    return len(driver.native.table_items(table))


def test_members_and_nobody_else_come_in() -> None:
    bench = Bench(policy(FROM_WEB))
    assert bench.into(udp(PEER4)) == "policy"
    bench.driver.set_members("web", {0: [PEER4, "2001:db8::/64"]})
    assert bench.into(udp(PEER4)) == ""
    assert bench.into(udp("10.0.0.3")) == "policy"
    assert bench.into(udp(PEER6)) == ""
    assert bench.into(udp("2001:db8:0:1::1")) == "policy"
    bench.driver.set_members("other", {0: ["10.0.0.3"]})
    assert bench.into(udp("10.0.0.3")) == "policy"


def test_a_group_joins_with_the_other_fields_of_its_rule() -> None:
    bench = Bench(
        policy(
            Rule(direction=IN, protocol="udp", ports=(53, 53), remote_group="web"),
            Rule(direction=IN, ethertype="ipv6", remote_group="db"),
        )
    )
    bench.driver.set_members("web", {0: [PEER4]})
    bench.driver.set_members("db", {0: ["10.0.0.3", PEER6]})
    assert bench.into(udp(PEER4, 53)) == ""
    assert bench.into(udp(PEER4, 54)) == "policy"
    assert bench.into(udp("10.0.0.3", 53)) == "policy"
    assert bench.into(udp(PEER6, 1)) == ""
    assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(9, 53))) == "policy"


@pytest.mark.parametrize(("keep", "after"), [(False, "no-connection"), (True, "")])
def test_a_departure_ends_what_the_membership_allowed(keep: bool, after: str) -> None:
    bench = Bench(policy(FROM_WEB, Rule(direction=Direction.EGRESS), keep=keep))
    bench.driver.set_members("web", {0: [PEER4, "10.0.0.3"]})
    bench.handshake_in()
    assert bench.into(udp("10.0.0.3")) == ""
    bench.driver.set_members("web", {0: ["10.0.0.3"]})
    assert bench.tcp_in(4000, 80, f.ACK) == after
    assert bench.into(udp("10.0.0.3")) == ""
    assert bench.into(udp(PEER4)) == "policy"


def test_only_ports_that_refer_to_the_group_judge_again() -> None:
    bench = Bench(policy(FROM_WEB))
    other = "33333333-0000-4000-8000-000000000001"
    bench.set_port(other, mac="52:54:00:00:00:33")
    bench.driver.set_policy(other, ALLOW_ALL)
    bench.driver.set_members("web", {0: [PEER4, "10.0.0.3"]})
    before = words(bench)
    bench.driver.set_members("web", {0: [PEER4, "10.0.0.3", "10.0.0.4"]})
    assert words(bench) == before  # nobody left: what was refused is not remembered
    bench.driver.set_members("web", {0: [PEER4]})
    after = words(bench)
    assert [now - was for now, was in zip(after, before, strict=True)] == [1, 0]


def words(bench: Bench) -> list[int]:
    return [layout.number("port", "policy", data) for data in bench.native.ports()]


def test_networks_are_apart() -> None:
    bench = Bench(policy(FROM_WEB))
    other = "33333333-0000-4000-8000-000000000001"
    bench.set_port(other, mac="52:54:00:00:00:33", network=7)
    bench.driver.set_policy(other, policy(FROM_WEB))
    bench.driver.attach(other, 6)
    bench.driver.set_members("web", {7: [PEER4]})
    frame = f.ether(PEER, "52:54:00:00:00:33", f.IPV4, udp(PEER4))
    assert bench.into(udp(PEER4)) == "policy"
    assert bench.process(c.TO_PORT, 6, frame)[1] == "none"
    assert entries(bench.driver, c.TABLE_POLICIES) == 2


PEER = "52:54:00:00:00:02"


def test_until_all_is_known_nobody_is_taken_away() -> None:
    bench = Bench(policy(FROM_WEB))
    bench.driver.set_members("web", {0: [PEER4]})
    bench.driver.set_members("web", {0: ["10.0.0.3"]}, complete=False)
    assert bench.into(udp(PEER4)) == bench.into(udp("10.0.0.3")) == ""
    bench.driver.set_members("web", {0: ["10.0.0.3"]})
    assert bench.into(udp(PEER4)) == "policy"


def test_another_agent_finds_the_members() -> None:
    bench = Bench(policy(FROM_WEB, Rule(direction=Direction.EGRESS)))
    bench.driver.set_members("web", {0: [PEER4]})
    bench.handshake_in()
    before = words(bench)
    bench.driver.close()
    bench.driver.open()
    assert bench.tcp_in(4000, 80, f.ACK) == bench.into(udp(PEER4)) == ""
    # The same rules again are the same policy, and the same members no change.
    bench.driver.set_members("web", {0: [PEER4]})
    bench.driver.set_policy(PORT, policy(FROM_WEB, Rule(direction=Direction.EGRESS)))
    assert words(bench) == before
    bench.driver.set_members("web", {})
    assert bench.tcp_in(4000, 80, f.ACK) == "no-connection"


def test_groups_that_no_rule_names_take_no_room() -> None:
    bench = Bench(policy(FROM_WEB))
    bench.driver.set_members("web", {0: [PEER4]})
    bench.driver.set_members("db", {0: [PEER4]})
    assert entries(bench.driver, c.TABLE_GROUPS) == entries(bench.driver, c.TABLE_PEERS) == 1
    bench.driver.set_policy(PORT, policy(Rule(direction=IN, remote_group="db")))
    assert bench.into(udp(PEER4)) == ""
    bench.sleep(2)
    bench.driver.collect()
    assert entries(bench.driver, c.TABLE_GROUPS) == entries(bench.driver, c.TABLE_PEERS) == 1


def test_too_many_groups_are_refused_with_the_number() -> None:
    many = [Rule(direction=IN, remote_group=f"g{number}") for number in range(17)]
    with pytest.raises(PolicyError, match="17 groups; a port may have 16"):
        compile_policy(policy(*many))
    compile_policy(policy(*many[1:]))


def test_a_group_and_a_prefix_in_one_rule_are_refused() -> None:
    with pytest.raises(PolicyError, match="not both") as caught:
        compile_policy(policy(Rule(direction=IN, remote="10.0.0.0/8", remote_group="web")))
    assert caught.value.where == "rules[0]"


def test_who_left_is_out_even_if_who_came_has_no_room() -> None:
    bench = Bench(policy(FROM_WEB))
    bench.driver.set_members("web", {0: [PEER4]})
    assert bench.into(udp(PEER4)) == ""
    with pytest.raises(DatapathError, match=r"10\.0\.0\.300"):
        bench.driver.set_members("web", {0: ["10.0.0.300"]})
    assert bench.into(udp(PEER4)) == ""
    crowd = [f"2001:db8::{number >> 16:x}:{number & 65535:x}" for number in range(262145)]
    with pytest.raises(DatapathError, match="full"):
        bench.driver.set_members("web", {0: crowd})
    assert bench.into(udp(PEER4)) == "policy"


def test_a_group_costs_members_and_ports_never_their_product() -> None:
    """500 members, 1,000 ports whose policies differ: entries and bytes are counted."""
    driver = MemoryDriver(max_ports=1000)
    driver.open()
    ports = [f"{number:08x}-0000-4000-8000-000000000001" for number in range(1000)]
    for number, port in enumerate(ports):
        driver.set_port(
            port, instance=INSTANCE, mac=f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}",
            addresses=(), network=0, bridged=False, role=Role.ACTIVE, generation=1, quota=1,
        )  # fmt: skip
        own = Rule(direction=IN, protocol="tcp", ports=(1024 + number, 1024 + number))
        driver.set_policy(port, policy(FROM_WEB, own))
    driver.set_members("web", {0: [f"10.1.{number >> 8}.{number & 255}" for number in range(500)]})
    held = {
        table: driver.native.table_items(table)
        for table in (c.TABLE_RULES, c.TABLE_PEERS, c.TABLE_GROUPS, c.TABLE_POLICIES)
    }
    counts = [len(items) for items in held.values()]
    assert counts == [2 * 1000, 500, 1, 1000]
    peers = sum(len(key) + len(value) for key, value in held[c.TABLE_PEERS])
    rules = sum(len(key) + len(value) for key, value in held[c.TABLE_RULES])
    assert (rules, peers) == (2000 * 32, 500 * 28)
    before = dict(held[c.TABLE_PEERS])
    driver.set_members("web", {0: [f"10.1.{number >> 8}.{number & 255}" for number in range(501)]})
    added = dict(driver.native.table_items(c.TABLE_PEERS)).keys() - before.keys()
    assert len(added) == 1
    assert sorted(driver.native.table_items(c.TABLE_RULES)) == sorted(held[c.TABLE_RULES])
