"""Limits in the policy document: what is taken, what is refused, and what holds for a port."""

import msgspec
import pytest

from vnet_agent import config
from vnet_agent.exceptions import PolicyError
from vnet_agent.model.policy import ALLOW_ALL, Direction, Group, Limit, Rule
from vnet_agent.model.port import Port
from vnet_agent.policy import document
from vnet_agent.policy.store import PolicyStore

IN, OUT = Direction.INGRESS, Direction.EGRESS
PORT = Port(
    uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    instance="1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    instance_name="vm1",
    tap="tap1",
    mac="52:54:00:00:00:01",
    project="acme",
)


def parse(*limits: str) -> Group:
    lines = "".join(f"  - {{{limit}}}\n" for limit in limits)
    return document.parse(f"groups:\n- name: a\n  limits:\n{lines}", name="p")[0]


def test_reads_every_field():
    group = parse(
        "direction: egress, max_kbps: 100000, burst_kbits: 8000, dscp_mark: 46",
        "direction: egress, max_pps: 50000, burst_packets: 100",
        "direction: ingress, max_kbps: 1",
    )
    assert group.limits == (
        Limit(direction=OUT, max_kbps=100_000, burst_kbits=8000, dscp_mark=46),
        Limit(direction=OUT, max_pps=50_000, burst_packets=100),
        Limit(direction=IN, max_kbps=1),
    )
    assert document.group_from_json(msgspec.to_builtins(group)) == group


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("max_kbps: 1", "needs a direction"),
        ("direction: both, max_kbps: 1", "not one of ingress, egress"),
        ("direction: egress", "at least one of max_kbps, max_pps, dscp_mark"),
        ("direction: egress, max_kbps: 0", "0 is no number 1-100000000"),
        ("direction: egress, max_kbps: 100000001", "no number 1-100000000"),
        ("direction: egress, max_kbps: 1.5", "'1.5' is no number"),
        ("direction: egress, max_kbps: true", "True is no number"),
        ("direction: egress, max_kbps: [1]", "a list is no number"),
        ("direction: egress, max_pps: -1", "no number 1-100000000"),
        ("direction: egress, dscp_mark: 64", "64 is no number 0-63"),
        ("direction: egress, dscp_mark: 1, burst_kbits: 5", "needs its limit, max_kbps"),
        ("direction: egress, max_kbps: 1, burst_packets: 5", "needs its limit, max_pps"),
        ("direction: egress, max_kbps: 10, burst_kbits: 601", "at most 600"),
        ("direction: egress, max_kbps: 10, burst_kbits: 0", "0 is no number"),
        ("direction: egress, max_mbps: 10", "unknown key 'max_mbps' in a limit"),
    ],
)
def test_wrong_limits_are_refused(limit, says):
    with pytest.raises(PolicyError) as caught:
        parse("direction: ingress, max_kbps: 1", limit)
    assert caught.value.where == "p:5"
    assert says in caught.value.detail


def test_one_of_a_kind_and_direction():
    parse("direction: egress, max_kbps: 5", "direction: ingress, max_kbps: 5")
    with pytest.raises(PolicyError, match="p:5: max_kbps of egress is given twice"):
        parse("direction: egress, max_kbps: 5", "direction: egress, max_pps: 1, max_kbps: 6")
    with pytest.raises(PolicyError, match="17 limits; at most 16"):
        parse(*["direction: egress, max_kbps: 5"] * 17)


def test_who_has_no_limits_is_known_again_as_before():
    """Else a new version would load a file again that an operator has changed the policy since."""
    group = Group(name="a", rules=(Rule(direction=OUT),))
    assert b"limits" not in msgspec.json.encode(group)
    assert document.group_from_json({"name": "a", "limits": []}) == Group(name="a")


@pytest.fixture
def store(tmp_path):
    conf = config.load([], state_dir=str(tmp_path / "state"))
    conf.set_override("host", "h1")
    return PolicyStore(conf)


def group(name: str, selector: str, *limits: Limit, rules: tuple[Rule, ...] = ()) -> Group:
    return Group(name=name, rules=rules, applies_to=(selector,), limits=limits or msgspec.UNSET)


async def resolve(store: PolicyStore, *groups: Group) -> tuple[Limit, ...]:
    await store.replace(groups, origin="api")
    return store.resolve(PORT).limits


async def test_the_nearest_selector_says_each_thing(store):
    everybody = Limit(direction=OUT, max_kbps=1000, max_pps=10, dscp_mark=1)
    own = Limit(direction=OUT, max_kbps=9000, burst_kbits=90)
    project = Limit(direction=OUT, max_pps=20)
    merged = await resolve(
        store,
        group("a", "*", everybody),
        group("b", f"port:{PORT.uuid}", own),
        group("c", "project:acme", project),
    )
    assert merged == (
        Limit(direction=OUT, max_kbps=9000, burst_kbits=90, max_pps=20, dscp_mark=1),
    )


async def test_among_equals_the_lowest_limit_and_the_first_mark(store):
    merged = await resolve(
        store,
        group("a", "*", Limit(direction=IN, max_kbps=5, burst_kbits=7, dscp_mark=9)),
        group("b", "*", Limit(direction=IN, max_kbps=4, dscp_mark=8)),
        group("c", "*", Limit(direction=OUT, max_kbps=1)),
    )
    assert merged == (
        Limit(direction=IN, max_kbps=4, dscp_mark=9),
        Limit(direction=OUT, max_kbps=1),
    )


async def test_a_group_of_limits_only_does_not_say_who_may_talk(store):
    limit = Limit(direction=OUT, max_kbps=1)
    await store.replace([group("slow", "*", limit)], origin="api")
    policy = store.resolve(PORT)
    assert (policy.rules, policy.limits) == (ALLOW_ALL.rules, (limit,))
    rules = (Rule(direction=IN, protocol="tcp"),)
    await store.replace([group("slow", "*", limit), group("web", "*", rules=rules)], origin="api")
    policy = store.resolve(PORT)
    assert (policy.rules, policy.limits) == (rules, (limit,))


async def test_limits_live_over_a_restart(store, tmp_path):
    await store.replace([group("a", "*", Limit(direction=OUT, max_kbps=3))], origin="api")
    conf = config.load([], state_dir=str(tmp_path / "state"))
    conf.set_override("host", "h1")
    again = PolicyStore(conf)
    await again.load()
    assert again.resolve(PORT).limits == (Limit(direction=OUT, max_kbps=3),)
