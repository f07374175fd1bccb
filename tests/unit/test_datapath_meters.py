"""Limits and marks in the C core: exact over virtual time, and as their twin has them."""

import struct
from fractions import Fraction

import frames as f
import pytest
from datapath_bench import OTHER, PEER, PEER4, PEER6, PORT, SECOND, TAP, VM, VM4, VM6, Bench
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_meter import TwinBucket, marked

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.meters import DEFAULT_BURST_MS
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL, Direction, Limit, Policy
from vnet_agent.model.port import Role

IN, OUT = Direction.INGRESS, Direction.EGRESS
HOOKS = {IN: c.TO_PORT, OUT: c.FROM_PORT}


def limited(*limits: Limit) -> Policy:
    return Policy(rules=ALLOW_ALL.rules, limits=limits)


def frame(direction: Direction, size: int = 1000, *, ds: int = 0, family: int = 4) -> bytes:
    """A UDP frame of `size` bytes in all, with this DS field and a right IPv4 checksum."""
    ends = (VM4, PEER4) if family == 4 else (VM6, PEER6)
    macs = (VM, PEER)
    if direction is IN:
        ends, macs = ends[::-1], macs[::-1]
    head = 34 if family == 4 else 54
    body = f.udp(7, 8, b"x" * (size - head - 8))
    if family == 4:
        packet = f.ether(*macs, f.IPV4, f.ipv4(*ends, f.UDP, body))
        packet = packet[:15] + bytes([ds & 3]) + packet[16:]
    else:
        (word,) = struct.unpack(">I", f.ipv6(*ends, f.UDP, body)[:4])
        word |= ds << 20 | 0xABCDE
        packet = f.ether(*macs, f.IPV6, struct.pack(">I", word) + f.ipv6(*ends, f.UDP, body)[4:])
    return marked(packet, ds >> 2)


def send(bench: Bench, direction: Direction, count: int, size: int = 1000, at: int = 0) -> int:
    """How many of `count` frames pass at once, `at` ns after the bench's time."""
    sent, now = frame(direction, size), bench.now + at
    numbers = [bench.native.process(HOOKS[direction], TAP, sent, now)[1] for _ in range(count)]
    reasons = [c.REASONS[number] for number in numbers]
    assert set(reasons) <= {"none", "rate"}
    return reasons.count("none")


@pytest.mark.parametrize("direction", list(Direction))
def test_bandwidth_of_one_direction(direction: Direction) -> None:
    # 1 Mbyte/s, and 10 kbytes at once: eleven frames, since the last may overdraw.
    bench = Bench(limited(Limit(direction=direction, max_kbps=8000, burst_kbits=80)))
    other = IN if direction is OUT else OUT
    assert send(bench, direction, 100) == 11
    assert send(bench, other, 100) == 100
    assert send(bench, direction, 5, at=1_000_000 - 100) == 0
    assert send(bench, direction, 5, at=1_000_000) == 1
    assert send(bench, direction, 100, at=60 * SECOND) == 11
    assert bench.driver.counters(PORT).drops == {"rate": 89 + 5 + 4 + 89}


def test_a_second_of_a_limit_is_the_limit() -> None:
    bench = Bench(limited(Limit(direction=OUT, max_kbps=1000, burst_kbits=1)))
    passed = sum(send(bench, OUT, 1, 500, at=ms * 1_000_000) for ms in range(1000))
    # What the burst holds and 999 ms bring, and the last one overdraws.
    assert passed == (125 + 999 * 125) // 500 + 1


def test_frames_a_second() -> None:
    bench = Bench(limited(Limit(direction=IN, max_pps=100, burst_packets=4)))
    assert send(bench, IN, 100, 60) == 5
    assert send(bench, IN, 100, 1500, at=30_000_000) == 3
    assert send(bench, OUT, 100) == 100


def test_what_one_limit_refuses_costs_nothing_of_the_other() -> None:
    bench = Bench(
        limited(Limit(direction=OUT, max_kbps=8000, burst_kbits=80, max_pps=10, burst_packets=1))
    )
    assert send(bench, OUT, 50) == 2
    bench.driver.set_policy(PORT, limited(Limit(direction=OUT, max_kbps=8000, burst_kbits=80)))
    assert send(bench, OUT, 50) == 11


def test_a_burst_that_nobody_names_is_a_quarter_of_a_second() -> None:
    bench = Bench(limited(Limit(direction=OUT, max_kbps=8000)))
    assert send(bench, OUT, 1000) == DEFAULT_BURST_MS + 1


def test_limits_come_and_go_with_the_policy() -> None:
    bench = Bench(ALLOW_ALL)
    assert send(bench, OUT, 20) == 20
    limit = Limit(direction=OUT, max_kbps=8000, burst_kbits=8)
    bench.driver.set_policy(PORT, limited(limit))
    assert send(bench, OUT, 20) == 2
    bench.driver.set_policy(PORT, ALLOW_ALL)
    assert send(bench, OUT, 20) == 20
    assert bench.native.table_items(c.TABLE_METERS) == []


def test_other_rules_and_a_restart_do_not_fill_the_burst_again() -> None:
    limit = Limit(direction=OUT, max_kbps=8000, burst_kbits=8)
    bench = Bench(limited(limit))
    assert send(bench, OUT, 20) == 2
    bench.driver.set_policy(PORT, Policy(rules=ALLOW_ALL.rules[::-1], limits=(limit,)))
    assert send(bench, OUT, 20) == 0
    bench.driver.close()
    bench.driver.open()
    bench.driver.set_policy(PORT, limited(limit))
    bench.set_port(role=Role.ACTIVE)
    assert send(bench, OUT, 20) == 0
    assert send(bench, OUT, 20, at=SECOND) == 2


def test_another_limit_leaves_verdicts_as_they_are() -> None:
    bench = Bench(ALLOW_ALL)
    word = layout.raw("port", "policy", bench.native.port_get(1))
    bench.driver.set_policy(PORT, limited(Limit(direction=OUT, max_kbps=8000)))
    assert layout.raw("port", "policy", bench.native.port_get(1)) == word


def test_what_the_policy_refuses_takes_nothing() -> None:
    limit = Limit(direction=OUT, max_pps=1, burst_packets=1)
    bench = Bench(Policy(rules=DENY_ALL.rules, limits=(limit,)))
    for _ in range(10):
        assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(1, 2))) == "policy"
    bench.driver.set_policy(PORT, limited(limit))
    assert send(bench, OUT, 10) == 2


def test_a_removed_port_leaves_no_limit_to_the_next() -> None:
    bench = Bench(ALLOW_ALL)
    bench.set_port(OTHER, mac=PEER)
    bench.driver.set_policy(OTHER, limited(Limit(direction=OUT, max_kbps=8)))
    assert len(bench.native.table_items(c.TABLE_METERS)) == 1
    bench.driver.remove_port(OTHER, generation=1)
    assert bench.native.table_items(c.TABLE_METERS) == []


def test_a_limit_of_nobody_is_forgotten_at_the_next_start() -> None:
    bench = Bench(ALLOW_ALL)
    bench.native.table_put(c.TABLE_METERS, layout.u32(5), layout.pack("meters"))
    bench.driver.close()
    bench.driver.open()
    assert bench.native.table_items(c.TABLE_METERS) == []


def test_a_trace_takes_nothing() -> None:
    bench = Bench(limited(Limit(direction=OUT, max_pps=1, burst_packets=1)))
    for _ in range(10):
        assert bench.driver.trace(PORT, frame(OUT), egress=True).verdict == "forward"
    assert send(bench, OUT, 10) == 2


@given(
    kbps=st.sampled_from([1, 77, 1000, 100_000, 10_000_000]),
    burst=st.integers(1, 1000),
    pps=st.one_of(st.none(), st.sampled_from([1, 333, 100_000])),
    offers=st.lists(
        st.tuples(st.integers(0, 2_000_000_000), st.integers(60, 1514), st.integers(1, 8)),
        min_size=1,
        max_size=60,
    ),
)
@settings(deadline=None)
def test_core_and_twin_agree_on_limits(kbps, burst, pps, offers) -> None:
    burst = min(burst, kbps * 60)
    bench = Bench(limited(Limit(direction=IN, max_kbps=kbps, burst_kbits=burst, max_pps=pps)))
    now = bench.now
    buckets = [TwinBucket.full(kbps * 125, Fraction(burst * 125), now)]
    units = [lambda size: size]
    if pps is not None:
        buckets.append(TwinBucket.full(pps, Fraction(pps * DEFAULT_BURST_MS, 1000), now))
        units.append(lambda size: 1)
    for wait, size, count in offers:
        # Long rests at a low rate, short ones at a high one: both ends of the bucket are met.
        now += wait * 8 // kbps
        for _ in range(count):
            rooms = [bucket.has_room(now) for bucket in buckets]
            reason = c.REASONS[bench.native.process(c.TO_PORT, TAP, frame(IN, size), now)[1]]
            if None not in rooms:
                assert reason == ("none" if all(rooms) else "rate")
            if reason == "none":
                for bucket, unit in zip(buckets, units, strict=True):
                    bucket.take(unit(size))


@given(
    direction=st.sampled_from(list(Direction)),
    family=st.sampled_from([4, 6]),
    ds=st.integers(0, 255),
    dscp=st.integers(0, 63),
    size=st.integers(64, 200),
)
@settings(deadline=None)
def test_core_and_twin_agree_on_marks(direction, family, ds, dscp, size) -> None:
    bench = Bench(limited(Limit(direction=direction, dscp_mark=dscp)))
    sent = frame(direction, size, ds=ds, family=family)
    kept = bytes(sent)
    _, reason, outs = bench.native.run(HOOKS[direction], TAP, sent)
    assert c.REASONS[reason] == "none"
    assert [out for _, out in outs] == [marked(sent, dscp)]
    assert sent == kept


def test_a_mark_is_of_its_direction_and_of_ip_only() -> None:
    bench = Bench(limited(Limit(direction=OUT, dscp_mark=46)))
    into = frame(IN)
    assert bench.native.run(c.TO_PORT, TAP, into)[2] == [(0, into)]
    arp = f.ether(VM, PEER, f.ARP, f.arp(VM, VM4, PEER4))
    assert [out for _, out in bench.native.run(c.FROM_PORT, TAP, arp)[2]] == [arp]
    (sent,) = (out for _, out in bench.native.run(c.FROM_PORT, TAP, frame(OUT, ds=1))[2])
    assert sent[15] == 46 << 2 | 1
