"""The C core against its pure-Python twin, on frames that hypothesis makes up."""

import os

import frames as f
import pytest
import twin as t
from datapath_bench import PORT, SECOND, VM4, VM6, Bench
from frame_strategies import GROUPS, VM, addresses, members, packets, pairs, policies, steps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

settings.register_profile("default", max_examples=150, deadline=None)
settings.register_profile("ci", max_examples=600, deadline=None)
settings.register_profile("long", max_examples=50_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def connections(bench: Bench) -> list[tuple]:
    return sorted(
        (
            item.protocol,
            item.local,
            item.local_port,
            item.remote,
            item.remote_port,
            item.state,
            item.origin,
            item.assured,
            item.remaining_ms,
            item.egress_packets,
            item.ingress_packets,
        )
        for item in bench.driver.connections(PORT)
    )


def twin_connections(twin: t.Twin, now: int) -> list[tuple]:
    names = {number: name for name, number in t.NAMES.items()}
    return sorted(
        (
            names.get(key[1], str(key[1])),
            str(key[2]),
            key[4],
            str(key[3]),
            key[5],
            conn.state,
            str(conn.origin),
            conn.assured,
            (conn.expires - now) // 1_000_000,
            conn.packets[t.EGRESS],
            conn.packets[t.INGRESS],
        )
        for key, conn in twin.conns.items()
        if conn.expires > now
    )


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    policy=policies,
    own=addresses,
    also=pairs,
    who=st.fixed_dictionaries(dict.fromkeys(GROUPS, members)),
    sequence=st.lists(steps, min_size=8, max_size=40),
)
def test_core_and_twin_agree(policy, own, also, who, sequence) -> None:
    bench = Bench(policy, addresses=own, quota=1000, pairs=also)
    for group, there in who.items():
        bench.driver.set_members(group, {0: there})
    twin = t.Twin(VM, own, policy, who, pairs=also)
    for step in sequence:
        match step:
            case ("sleep", seconds):
                bench.sleep(seconds)
            case ("policy", new):
                bench.driver.set_policy(PORT, new)
                # A new object even when it is equal: verdicts are stale either way.
                twin.set_policy(t.Policy(rules=new.rules, established=new.established))
            case ("members", group, there):
                bench.driver.set_members(group, {0: there})
                twin.set_members(group, there)
            case (direction, frame):
                hook = 0 if direction is t.EGRESS else 1
                _, reason, _ = bench.process(hook, 5, frame)
                assert reason == twin.process(direction, frame, bench.now), (step, frame.hex())
    assert connections(bench) == twin_connections(twin, bench.now)


@given(
    packet=packets,
    cut=st.integers(0, 120),
    change=st.tuples(st.integers(0, 119), st.binary(min_size=1, max_size=1)),
)
def test_core_and_twin_agree_on_damaged_frames(packet, cut, change) -> None:
    direction, frame = packet
    position, value = change
    if position < len(frame):
        frame = frame[:position] + value + frame[position + 1 :]
    frame = frame[: max(len(frame) - cut, 0)] if cut < 60 else frame
    bench = Bench(t.Policy(rules=(t.Rule(direction=t.EGRESS),)), addresses=(VM4, VM6))
    twin = t.Twin(VM, (VM4, VM6), t.Policy(rules=(t.Rule(direction=t.EGRESS),)))
    _, reason, _ = bench.process(0 if direction is t.EGRESS else 1, 5, frame)
    assert reason == twin.process(direction, frame, bench.now), frame.hex()


@given(packet=packets)
def test_core_and_twin_agree_on_a_port_without_security(packet) -> None:
    direction, frame = packet
    bench = Bench(t.Policy())
    bench.set_port(port_security=False)
    twin = t.Twin(VM, (VM4, VM6), t.Policy())
    twin.open = True
    _, reason, _ = bench.process(0 if direction is t.EGRESS else 1, 5, frame)
    assert reason == twin.process(direction, frame, bench.now), frame.hex()
    assert bench.states() == []


def test_the_twin_notices_a_difference() -> None:
    """The comparison can fail: another policy gives another answer."""
    bench = Bench(t.Policy())
    twin = t.Twin(VM, (VM4, VM6), t.Policy(rules=(t.Rule(direction=t.EGRESS),)))
    packet = f.ipv4(VM4, "10.0.0.2", f.UDP, f.udp(1, 2))
    frame = f.ether(VM, "52:54:00:00:00:02", f.IPV4, packet)
    reasons = bench.process(0, 5, frame)[1], twin.process(t.EGRESS, frame, SECOND)
    assert reasons == ("policy", "none")
    with pytest.raises(AssertionError):
        assert connections(bench) == twin_connections(twin, SECOND)
