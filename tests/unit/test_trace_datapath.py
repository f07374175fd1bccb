"""A frame run on the side: the same verdict as in earnest, and nothing changed."""

import datapath_bench as b
import frames as f
import pytest
from frame_strategies import packets, steps
from hypothesis import given
from hypothesis import strategies as st
from twin import EGRESS

from vnet_agent.datapath import _flowcache as c
from vnet_agent.model.policy import ALLOW_ALL, Direction, Rule
from vnet_agent.model.port import Role

VERDICTS = {
    "deliver": c.PASS,
    "drop": c.DROP,
    "forward": c.REDIRECT,
    "answer": c.ANSWERED,
    "flood": c.CONSUMED,
}
IN_80 = b.IN_TCP_80
PEER_FRAME = {"source": b.PEER, "target": b.VM}


def held(bench):
    driver = bench.driver
    return (
        driver.counters(b.PORT),
        driver.ports(),
        bench.native.ports(),
        sorted(bench.records()[i : i + 128] for i in range(0, len(bench.records()), 128)),
    )


def check(bench, egress, frame):
    """Trace, then run in earnest, and compare."""
    before = held(bench)
    run = bench.driver.trace(b.PORT, frame, egress=egress)
    assert held(bench) == before
    hook = c.FROM_PORT if egress else c.TO_PORT
    action, reason, outs = bench.process(hook, b.TAP, frame)
    assert VERDICTS[run.verdict] == action
    assert run.reason == (reason if action == c.DROP else None)
    assert tuple(item.ifindex for item in run.out) == outs
    states = {}
    if run.connection is not None and run.then.split()[0] in ("stays", "becomes"):
        states = {item.state for item in bench.driver.connections(b.PORT)}
        assert run.then.split()[1] in states
    return run


def frame_in(*args, **how):
    return f.ether(b.PEER, b.VM, f.IPV4, f.ipv4(b.PEER4, b.VM4, *args, **how))


def frame_out(*args, **how):
    return f.ether(b.VM, b.PEER, f.IPV4, f.ipv4(b.VM4, b.PEER4, *args, **how))


@given(program=st.lists(steps, min_size=1, max_size=25))
def test_trace_says_what_happens(program):
    bench = b.Bench()
    for step in program:
        if step[0] == "sleep":
            bench.sleep(step[1])
        elif step[0] == "policy":
            bench.driver.set_policy(b.PORT, step[1])
        elif step[0] == "members":
            bench.driver.set_members(step[1], {0: step[2]})
        else:
            direction, frame = step
            check(bench, direction is EGRESS, frame)


@given(frame=st.binary(max_size=200), egress=st.booleans(), head=st.booleans())
def test_any_bytes_have_an_answer(frame, egress, head):
    bench = b.Bench()
    if head:
        ends = (b.PEER, b.VM) if egress else (b.VM, b.PEER)
        frame = b"".join(f.mac(end) for end in ends) + b"\x08\x00" + frame
    check(bench, egress, frame)


@given(packet=packets, cut=st.integers(0, 60))
def test_frames_cut_short_have_an_answer(packet, cut):
    direction, frame = packet
    check(b.Bench(), direction is EGRESS, frame[:cut])


def test_which_rule_and_whether_the_cache_answers():
    bench = b.Bench(b.policy(Rule(direction=Direction.EGRESS, protocol="udp"), IN_80))
    syn = frame_in(f.TCP, f.tcp(4000, 80, f.SYN))
    run = check(bench, False, syn)
    assert (run.cache, run.rules, run.connection, run.then) == (
        *("miss", (1,), None),
        "begins as syn-sent",
    )
    run = check(bench, True, frame_out(f.TCP, f.tcp(80, 4000, f.SYN | f.ACK)))
    assert (run.cache, run.rules, run.then) == ("hit", (), "becomes syn-received")
    assert (run.connection.state, run.connection.fresh) == ("syn-sent", True)
    run = check(bench, False, frame_in(f.TCP, f.tcp(4000, 80, f.ACK)))
    assert run.then == "becomes established"
    bench.driver.set_policy(b.PORT, b.policy(IN_80))
    segment = frame_in(f.TCP, f.tcp(4000, 80, f.ACK))
    run = bench.driver.trace(b.PORT, segment, egress=False)
    assert (run.cache, run.rules, run.then) == ("stale", (0,), "stays established")
    bench.driver.set_policy(b.PORT, b.policy())
    run = check(bench, False, segment)
    assert (run.cache, run.reason, run.then) == ("stale", "no-connection", "ends")
    run = check(bench, False, syn)
    assert (run.cache, run.reason, run.rules, run.then) == ("miss", "policy", (), "none")


def test_a_rule_that_went_leaves_what_it_kept():
    bench = b.Bench(b.policy(IN_80, keep=True))
    bench.handshake_in()
    bench.driver.set_policy(b.PORT, b.policy(keep=True))
    run = check(bench, False, frame_in(f.TCP, f.tcp(4000, 80, f.ACK)))
    assert (run.cache, run.rules, run.then) == ("stale", (), "stays established")


def test_a_connection_that_is_over_begins_anew():
    bench = b.Bench(b.policy(IN_80))
    bench.handshake_in()
    assert bench.tcp_in(4000, 80, f.RST | f.ACK) == ""
    run = check(bench, False, frame_in(f.TCP, f.tcp(4000, 80, f.SYN)))
    assert (run.cache, run.rules, run.then) == ("anew", (0,), "becomes syn-sent")
    bench.sleep(1000)
    run = check(bench, False, frame_in(f.TCP, f.tcp(4000, 80, f.SYN)))
    assert (run.cache, run.connection) == ("miss", None)


def test_a_later_fragment_finds_its_first():
    bench = b.Bench(b.policy(Rule(direction=Direction.INGRESS, protocol="udp", ports=(53, 53))))
    later = frame_in(f.UDP, b"x" * 16, fragment=3, ident=9)
    run = check(bench, False, later)
    assert (run.reason, run.cache, run.packet["fragment"]) == ("fragment", "none", "later")
    check(bench, False, frame_in(f.UDP, f.udp(4000, 53), more=True, ident=9))
    run = check(bench, False, later)
    assert (run.reason, run.cache, run.connection.local_port) == (None, "hit", 53)


def test_an_error_is_of_the_connection_that_it_quotes():
    bench = b.Bench(b.policy(b.OUT_ALL))
    quoted = f.ipv4(b.VM4, b.PEER4, f.UDP, f.udp(4000, 53))
    error = frame_in(f.ICMP, f.icmp(3, 1, 0, quoted))
    assert check(bench, False, error).cache == "miss"
    bench.out(quoted)
    run = check(bench, False, error)
    assert (run.cache, run.connection.remote_port, run.verdict) == ("hit", 53, "deliver")


def test_a_waiting_port_is_not_woken():
    bench = b.Bench(role=Role.STANDBY)
    run = bench.driver.trace(b.PORT, frame_out(f.UDP, f.udp(1, 2)), egress=True)
    assert (run.verdict, run.role) == ("forward", Role.STANDBY)
    assert bench.driver.ports()[0].role is Role.STANDBY


def test_where_it_goes():
    bench = b.Bench(ALLOW_ALL)
    bench.set_port(b.OTHER, mac=b.PEER)
    bench.driver.attach(b.OTHER, b.TAP2)
    (out,) = check(bench, True, frame_out(f.UDP, f.udp(1, 2))).out
    assert (out.ifindex, out.port, out.network) == (b.TAP2, b.OTHER, None)
    away = f.ether(b.VM, b.GATEWAY, f.IPV4, f.ipv4(b.VM4, "192.0.2.1", f.UDP, f.udp(1, 2)))
    (out,) = check(bench, True, away).out
    assert (out.ifindex, out.port, out.network) == (b.UPLINK, None, 0)
    arp = f.ether(b.VM, "ff:ff:ff:ff:ff:ff", f.ARP, f.arp(b.VM, b.VM4, b.PEER4))
    assert {item.port for item in check(bench, True, arp).out} == {b.OTHER, None}


def test_a_port_on_no_interface_is_traced_too():
    bench = b.Bench(b.policy(IN_80))
    bench.driver.detach(b.PORT)
    run = bench.driver.trace(b.PORT, frame_in(f.TCP, f.tcp(1, 80, f.SYN)), egress=False)
    assert (run.verdict, run.rules) == ("deliver", (0,))


def test_what_is_no_frame_or_no_port():
    native = b.Bench().native
    for hook, size in ((c.FROM_UPLINK, 0), (9, 0), (c.TO_PORT, (1 << 18) + 1)):
        with pytest.raises(ValueError, match="at most"):
            native.trace(hook, 1, bytes(size))
    for local_id in (0, 7, 1 << 31):
        with pytest.raises(LookupError):
            native.trace(c.TO_PORT, local_id, b"")
    assert native.trace(c.TO_PORT, 1, bytes(1 << 18))["action"] == c.DROP
