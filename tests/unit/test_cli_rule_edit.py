"""`vnetctl rule add` and `rule delete`: one rule at a time, never over another's change."""

import datapath_bench as b
import pytest
from sight_agent import Agent

from vnet_agent.cli.client import Client, Refused
from vnet_agent.model.policy import Direction, Group, Rule

OUT = Rule(direction=Direction.EGRESS)


@pytest.fixture
def agent(tmp_path, capsys):
    agent = Agent(tmp_path, capsys)
    agent.put(Group(name="web", rules=(OUT,), applies_to=("*",)), Group(name="none"))
    yield agent
    agent.stop()


def add(agent, *words):
    return agent.json("rule", "add", "web", "--direction", "ingress", *words)


def numbers(agent):
    rows = agent.json("rule", "list")
    return [(row["group"], row["number"], row["direction"], row["ports"]) for row in rows]


def test_add_and_delete(agent):
    shown = add(agent, "--protocol", "tcp", "--ports", "80-443", "--remote", "10.0.0.0/8")
    assert (shown["group"], shown["number"], shown["origin"]) == ("web", 2, "api")
    assert shown["rule"] == {
        "direction": "ingress",
        "protocol": "tcp",
        "ports": "80-443",
        "remote": "10.0.0.0/8",
    }
    assert numbers(agent) == [
        ("web", 1, "egress", None),
        ("web", 2, "ingress", "80-443"),
        ("none", None, None, None),
    ]
    assert agent.bench.tcp_in(4000, 80, 2) == ""  # it is in force
    gone = agent.json("rule", "delete", "web", "1")
    assert (gone["number"], gone["rule"]) == (1, {"direction": "egress"})
    assert numbers(agent)[0] == ("web", 1, "ingress", "80-443")
    assert agent.bench.tcp_out(5000, 80, 2) == "policy"
    assert agent.json("rule", "delete", "web", "1")["digest"] == agent.policy.revision
    assert agent.bench.tcp_in(4001, 80, 2) == "policy"


def test_icmp_and_ethertype(agent):
    shown = add(agent, "--protocol", "icmp", "--icmp-type", "3", "--icmp-code", "4")
    assert (shown["rule"]["icmp_type"], shown["rule"]["icmp_code"]) == (3, 4)
    assert add(agent, "--ethertype", "ipv6")["rule"]["ethertype"] == "ipv6"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ports", "80"], "ports need protocol"),
        (["--protocol", "tcp", "--ports", "443-80"], "are no ports"),
        (["--remote", "10.0.0.1/8"], "is no CIDR"),
        (["--icmp-type", "8"], "icmp_type needs"),
        (["--protocol", "nope"], "is no protocol"),
        (["--ethertype", "arp"], "arp"),
    ],
)
def test_a_rule_that_means_nothing(agent, words, says):
    before = agent.policy.groups()
    said = agent.refused("rule", "add", "web", "--direction", "ingress", *words)
    assert says in said
    assert "$.rules[1]" in said
    assert agent.policy.groups() == before


def test_what_is_not_there(agent):
    assert "no group web2" in agent.refused("rule", "add", "web2", "--direction", "egress")
    assert "no rule 2 of group web" in agent.refused("rule", "delete", "web", "2")
    agent.refused("rule", "delete", "web", "0")
    agent.refused("rule", "delete", "web", "x")
    agent.refused("rule", "delete", "none", "1")
    assert "rule 1 says the same" in agent.refused("rule", "add", "web", "--direction", "egress")


def test_another_operators_change_is_not_lost(agent, monkeypatch):
    """It comes between the look at the policy and the change."""
    real = Client.get

    def get(self, *parts, **query):
        answer = real(self, *parts, **query)
        agent.put(Group(name="web", rules=(OUT, b.IN_TCP_80), applies_to=("*",)))
        return answer

    monkeypatch.setattr(Client, "get", get)
    for words in (("add", "web", "--direction", "ingress"), ("delete", "web", "1")):
        agent.put(Group(name="web", rules=(OUT,), applies_to=("*",)))
        assert "has changed meanwhile" in agent.refused("rule", *words)
        assert agent.policy.groups()[0].rules == (OUT, b.IN_TCP_80)


def test_only_of_the_policy_that_was_seen(agent):
    seen = agent.json("status")["policy_digest"]
    add(agent, "--digest", seen)
    assert "has changed" in agent.refused("rule", "delete", "web", "1", "--digest", seen)
    agent.json("rule", "delete", "web", "2")
    assert agent.json("status")["policy_digest"] == seen
    other = Client(agent.socket)
    with pytest.raises(Refused, match="has changed"):
        other.delete("rules", "web", "1", match="0123")
    with pytest.raises(Refused, match="has changed"):
        other.post("rules", "web", body=b'{"direction":"ingress"}', match="0123")


def test_the_controllers_policy_is_changed_there(agent):
    agent.put(*agent.policy.groups(), origin="controller")
    said = agent.refused("rule", "add", "web", "--direction", "ingress")
    assert "comes from the controller" in said
    assert "--force" in said
    agent.refused("rule", "delete", "web", "1")
    assert agent.policy.origin == "controller"
    assert add(agent, "--force")["origin"] == "api"


def test_a_rule_that_the_datapath_refuses_leaves_the_old(agent):
    real = agent.policy.on_change
    before = agent.policy.groups()

    async def refuse():
        if agent.policy.groups() != before:
            raise RuntimeError("no room")
        await real()

    agent.policy.on_change = refuse
    agent.refused("rule", "add", "web", "--direction", "ingress")
    assert agent.policy.groups() == before
