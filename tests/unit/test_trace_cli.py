"""`vnetctl trace` of a real datapath without a kernel, and the API below it."""

import json

import datapath_bench as b
import frames as f
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sight_agent import Agent

from vnet_agent.cli.client import Client, Refused
from vnet_agent.model.policy import Direction, Group, Rule
from vnet_agent.trace.frame import Packet

IN_80 = Rule(direction=Direction.INGRESS, protocol="tcp", ports=(80, 80))
IN_ECHO = Rule(direction=Direction.INGRESS, protocol="icmp", icmp_type=8)
IN_V6 = Rule(direction=Direction.INGRESS, remote="2001:db8::/64")


@pytest.fixture
def agent(tmp_path, capsys):
    agent = Agent(tmp_path, capsys)
    agent.put(
        Group(name="ping", rules=(IN_ECHO, IN_80), applies_to=("*",)),
        Group(name="web", rules=(IN_80, IN_V6), applies_to=(f"port:{b.PORT}",)),
    )
    yield agent
    agent.stop()


@pytest.fixture
def trace(agent):
    def run(direction, *words):
        return agent.json("trace", "--port", b.PORT, "--direction", direction, *words)

    return run


def test_a_new_connection(trace):
    shown = trace("ingress", "--remote", f"{b.PEER4}:4000", "--local", ":80")
    assert (shown["verdict"], shown["reason"], shown["spoof"]) == ("deliver", None, "passed")
    assert (shown["cache"], shown["connection"]) == ("miss", None)
    assert shown["then"] == "begins as syn-sent"
    places = [(rule["group"], rule["number"]) for rule in shown["rules"]]
    assert places == [("ping", 2), ("web", 1)]
    assert shown["rules"][0]["ports"] == "80"
    assert shown["packet"]["tcp_flags"] == "syn"
    assert shown["packet"]["destination_port"] == 80


def test_a_known_connection(agent, trace):
    agent.bench.handshake_in()
    words = ("--remote", f"{b.PEER4}:4000", "--local", f"{b.VM4}:80", "--tcp-flags", "ack,psh")
    shown = trace("ingress", *words)
    assert (shown["cache"], shown["rules"]) == ("hit", [])
    assert shown["connection"]["state"] == "established"
    agent.put(Group(name="none", applies_to=("*",)))
    shown = trace("ingress", *words)
    assert (shown["cache"], shown["then"], shown["reason"]) == ("stale", "ends", "no-connection")


@pytest.mark.parametrize(
    ("words", "reason", "spoof"),
    [
        (["--remote", "10.0.0.2:22"], "policy", "passed"),
        (["--remote", "10.0.0.2:9", "--local", "10.0.0.77"], "ip-spoof", "ip-spoof"),
        (
            ["--remote", "10.0.0.2:9", "--local-mac", "52:54:00:00:00:99"],
            *["mac-spoof", "mac-spoof"],
        ),
        (["--remote", "10.0.0.2:1", "--tcp-flags", "syn,fin"], "tcp-flags", "not reached"),
        (["--remote", "10.0.0.2:1", "--tcp-flags", ""], "tcp-flags", "not reached"),
        (["--hex", "00"], "malformed", "not reached"),
    ],
)
def test_why_not(trace, words, reason, spoof):
    shown = trace("egress", *words)
    assert (shown["verdict"], shown["reason"], shown["spoof"]) == ("drop", reason, spoof)
    assert shown["rules"] == shown["out"] == []


def test_other_protocols(trace):
    assert trace("ingress", "--protocol", "icmp", "--remote", b.PEER4)["rules"][0]["number"] == 1
    shown = trace("ingress", "--protocol", "udp", "--remote", f"[{b.PEER6}]:53", "--local", ":9")
    assert (shown["verdict"], shown["rules"][0]["group"]) == ("deliver", "web")
    assert shown["packet"]["source_port"] == 53
    shown = trace("ingress", "--protocol", "icmp", "--remote", b.PEER6, "--icmp-type", "129")
    assert (shown["packet"]["protocol"], shown["packet"]["type"]) == ("icmpv6", 129)
    assert trace("ingress", "--protocol", "47", "--remote", b.PEER4)["reason"] == "policy"


def test_where_it_goes_and_to_which_mac(agent, trace):
    agent.bench.addresses = ()
    agent.bench.driver.set_port(
        b.OTHER, instance=b.INSTANCE, mac=b.PEER, addresses=(b.PEER4,), network=0,
        bridged=False, role="active", generation=1, quota=9,
    )  # fmt: skip
    agent.bench.driver.attach(b.OTHER, b.TAP2)
    agent.put(Group(name="out", rules=(Rule(direction=Direction.EGRESS),), applies_to=("*",)))
    shown = trace("egress", "--remote", f"{b.PEER4}:80")
    assert shown["packet"]["target_mac"] == b.PEER
    assert [(out["ifindex"], out["port"]) for out in shown["out"]] == [(b.TAP2, b.OTHER)]
    shown = trace("egress", "--remote", "192.0.2.1:80")
    assert [(out["ifindex"], out["network"]) for out in shown["out"]] == [(b.UPLINK, 0)]
    shown = trace("egress", "--remote", "224.0.0.251:80", "--protocol", "udp")
    assert shown["packet"]["target_mac"] == "01:00:5e:00:00:fb"
    assert len(shown["out"]) == 2


def test_a_policy_that_is_not_in_force_names_no_rule(agent, trace):
    agent.bench.driver.set_policy(b.PORT, b.policy(IN_V6))
    shown = trace("ingress", "--remote", b.PEER6, "--protocol", "icmp")
    assert (shown["verdict"], shown["rules"]) == ("deliver", [])
    assert "another policy" in shown["notes"][0]


def test_a_port_without_groups(agent, trace):
    agent.put()
    (rule,) = trace("ingress", "--remote", b.PEER4, "--local", ":80")["rules"]
    assert (rule["group"], rule["number"], rule["direction"]) == (None, None, "ingress")


def test_a_full_table_is_told(agent, trace):
    agent.put(Group(name="out", rules=(Rule(direction=Direction.EGRESS),), applies_to=("*",)))
    for port in range(100):
        agent.bench.out(f.ipv4(b.VM4, b.PEER4, f.UDP, f.udp(port, 53)))
    notes = trace("egress", "--remote", "10.0.0.2:80")["notes"]
    assert any("the table is full (100 of 100)" in note for note in notes)


def test_a_frame_of_a_capture(agent, trace, tmp_path):
    frame = f.ether(b.PEER, b.VM, f.IPV4, f.ipv4(b.PEER4, b.VM4, f.TCP, f.tcp(9, 80, f.SYN)))
    path = tmp_path / "x.pcap"
    head = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")
    size = len(frame).to_bytes(4, "little")
    path.write_bytes(head + bytes(8) + size + size + frame)
    shown = trace("ingress", "--frame", str(path))
    assert (shown["verdict"], shown["frame"]) == ("deliver", frame.hex())
    assert trace("ingress", "--hex", frame.hex(":"))["verdict"] == "deliver"


def test_a_table_is_for_people(agent):
    words = [
        "trace",
        "--port",
        b.PORT,
        "--direction",
        "ingress",
        "--remote",
        b.PEER4,
        "--local",
        ":22",
    ]
    status, out, _ = agent.ctl(*words)
    assert (status, "| reason " in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "in one way"),
        (["--hex", "00", "--remote", "10.0.0.2"], "in one way"),
        (["--local", "10.0.0.1"], "--remote is needed"),
        (["--hex", "0g"], "hexadecimal"),
        (["--frame", "/nowhere"], "cannot be read"),
        (["--frame", "/dev/null"], "neither pcap nor pcapng"),
        (["--remote", "10.0.0.2:99999"], "remote: '10.0.0.2:99999' is no address"),
        (["--remote", "[10.0.0.2"], "is no address"),
        (["--remote", "[]:1"], "is no address"),
        (["--remote", "[::1]:"], "is no address"),
        (["--remote", "x"], "is no address"),
        (["--remote", "10.0.0.2", "--local", "::1"], "not of one family"),
        (["--remote", "10.0.0.2", "--local", ":99999"], "is no address"),
        (["--remote", "10.0.0.2", "--protocol", "0"], "is no protocol"),
        (["--remote", "10.0.0.2", "--protocol", "udp", "--tcp-flags", "syn"], "tcp_flags need"),
        (["--remote", "10.0.0.2:1", "--protocol", "icmp"], "has no ports"),
        (["--remote", "10.0.0.2", "--protocol", "udp"], "needs the destination's port"),
        (["--remote", "10.0.0.2:1", "--tcp-flags", "sin"], "'sin' is no TCP flag"),
        (["--remote", "10.0.0.2", "--protocol", "icmp", "--icmp-type", "256"], "0 to 255"),
        (["--remote", "10.0.0.2", "--local-mac", "x"], "is no MAC"),
    ],
)
def test_what_is_wrong_is_one_line(agent, words, says):
    said = agent.refused("trace", "--port", b.PORT, "--direction", "egress", *words)
    assert says in said


@pytest.mark.parametrize(
    "body",
    [
        {"port": b.PORT, "direction": "egress"},
        {"port": b.PORT, "direction": "egress", "frame": "00", "packet": {"remote": "10.0.0.2"}},
        {"port": b.PORT, "direction": "up", "frame": "00"},
        {"port": "nope", "direction": "egress", "frame": "00"},
        {"port": b.PORT, "direction": "egress", "frame": "0" * ((1 << 19) + 2)},
        {"port": b.PORT, "direction": "egress", "packet": {"remote": "10.0.0.2", "x": 1}},
        [],
    ],
)
def test_the_api_refuses_nonsense(agent, body):
    with pytest.raises(Refused):
        Client(agent.socket).post("trace", body=json.dumps(body).encode())


def test_the_longest_frame_has_an_answer(agent):
    body = {"port": b.PORT, "direction": "egress", "frame": "00" * (1 << 18)}
    assert Client(agent.socket).post("trace", body=json.dumps(body).encode())["verdict"] == "drop"


texts = st.one_of(st.text(max_size=20), st.sampled_from(["10.0.0.2:80", "[::1]:9", "tcp", "ack"]))
fields = st.dictionaries(
    st.sampled_from([*Packet.__struct_fields__, "x"]),
    st.one_of(texts, st.integers(-1, 300), st.lists(texts, max_size=2), st.none()),
)
frames = st.one_of(st.binary(max_size=120).map(bytes.hex), st.text(max_size=20))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    what=st.one_of(fields.map(lambda v: {"packet": v}), frames.map(lambda v: {"frame": v})),
    direction=st.sampled_from(["ingress", "egress"]),
)
def test_any_question_has_an_answer_or_one_problem(agent, what, direction):
    body = json.dumps({"port": b.PORT, "direction": direction} | what).encode()
    try:
        answer = Client(agent.socket).post("trace", body=body)
    except Refused as problem:
        answer = {"verdict": str(problem)}
    assert "The agent failed" not in answer["verdict"]
    assert "Datapath" not in answer["verdict"]
