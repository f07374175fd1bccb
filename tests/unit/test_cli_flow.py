"""`vnetctl flow list` and `conn list`: filters, pages, fresh and stale."""

import datapath_bench as b
import frames as f
import pytest
from sight_agent import Agent

from vnet_agent.api import flows
from vnet_agent.model.policy import DENY_ALL


@pytest.fixture
def agent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(flows, "CHUNK", 7)  # several chunks a page
    agent = Agent(tmp_path, capsys)
    agent.bench.set_port(b.OTHER, mac=b.PEER)
    agent.bench.driver.set_policy(b.OTHER, b.ALLOW_ALL)
    agent.bench.driver.attach(b.OTHER, b.TAP2)
    agent.bench.handshake_in()
    for port in range(40):
        agent.bench.out(f.ipv4(b.VM4, "10.0.0.2", f.UDP, f.udp(port, 53)))
    for port in range(10):
        agent.bench.out(f.ipv6(b.VM6, b.PEER6, f.UDP, f.udp(port, 54)))
    yield agent
    agent.stop()


def add_other(agent, count):
    for port in range(count):
        packet = f.ipv4("10.0.0.9", b.PEER4, f.UDP, f.udp(port, 9))
        agent.bench.process(1, b.TAP2, f.ether(b.VM, b.PEER, f.IPV4, packet))


def test_a_flow_is_what_the_cache_holds(agent):
    agent.bench.sleep(3)
    (flow,) = agent.json("flow", "list", b.PORT, "--protocol", "tcp")
    assert flow == {
        "port": b.PORT,
        "protocol": "tcp",
        "local": b.VM4,
        "local_port": 80,
        "remote": b.PEER4,
        "remote_port": 4000,
        "state": "established",
        "translated": None,
        "verdict": "allow",
        "generation": flow["generation"],
        "fresh": True,
        "idle_ms": 3000,
        "egress_packets": 1,
        "egress_bytes": 54,
        "ingress_packets": 2,
        "ingress_bytes": 108,
    }
    agent.bench.driver.set_policy(b.PORT, DENY_ALL)
    (stale,) = agent.json("flow", "list", b.PORT, "--state", "established", "--stale")
    assert stale == flow | {"fresh": False}


@pytest.mark.parametrize("command", ["flow", "conn"])
@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ([], 51),
        (["--protocol", "udp"], 50),
        (["--protocol", "17"], 50),
        (["--remote", "10.0.0.0/24"], 41),
        (["--remote", "10.0.0.2", "--protocol", "udp"], 40),
        (["--remote", "0.0.0.0/0"], 41),
        (["--remote", "::/0"], 10),
        (["--remote", "2001:db8::/64"], 10),
        (["--remote", "10.0.1.0/24"], 0),
        (["--state", "unreplied"], 50),
        (["--stale"], 0),
    ],
)
def test_filters(agent, command, filters, count):
    assert len(agent.json(command, "list", b.PORT, *filters)) == count


@pytest.mark.parametrize("limit", [1, 5, 7, 14, 50, 51])
def test_pages_are_the_whole(agent, limit):
    add_other(agent, 9)
    whole = agent.json("flow", "list")
    assert {row["port"] for row in whole} == {b.PORT, b.OTHER}
    assert len(whole) == 60
    rows, words = [], []
    for _ in range(70):
        _, out, err = agent.ctl("flow", "list", "--limit", str(limit), "-f", "csv", *words)
        rows += out.splitlines()[1:]
        if not err:
            break
        words = ["--cursor", err.split()[-1]]
    assert len(rows) == len(set(rows)) == 60


def test_a_cursor_of_a_port_that_went_goes_on_behind_it(agent):
    add_other(agent, 3)
    _, _, err = agent.ctl("flow", "list", "--limit", "5")
    cursor = err.split()[-1]
    assert cursor.startswith(b.PORT)
    agent.bench.driver.remove_port(b.PORT, generation=1)
    assert len(agent.json("flow", "list", "--cursor", cursor)) == 3


def test_what_expired_is_not_listed(agent):
    agent.bench.sleep(100)
    assert len(agent.json("flow", "list", b.PORT)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["nope"],
        [b.PORT, "--protocol", "x"],
        [b.PORT, "--remote", "10.0.0.0/33"],
        [b.PORT, "--state", "none"],
        [b.PORT, "--limit", "0"],
        [b.PORT, "--limit", "-1"],
        [b.PORT, "--cursor", "x"],
        [b.PORT, "--cursor", f"{b.PORT}/x"],
        [b.PORT, "--cursor", f"{b.PORT}/99999999999.0"],
    ],
)
def test_what_is_wrong_is_one_line(agent, words):
    agent.refused("flow", "list", *words)
