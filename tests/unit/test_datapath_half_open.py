"""Openings that nobody completes: how many a port may have under way."""

import frames as f
import pytest
from datapath_bench import IN_TCP_80, PEER4, PORT, VM4, Bench
from test_datapath_timeouts import configure

from vnet_agent.model.policy import ALLOW_ALL, Policy

LIMIT, RATE = 20, 10


@pytest.fixture
def bench() -> Bench:
    bench = Bench(ALLOW_ALL, quota=1000)
    configure(bench, half_open_limit=LIMIT, half_open_rate=RATE)
    return bench


def flood(bench: Bench, count: int, *, first: int = 10_000, target: int = 80) -> int:
    """SYNs from as many ports; how many were let in."""
    return sum(bench.tcp_in(first + index, target, f.SYN) == "" for index in range(count))


def test_a_flood_fills_the_account_and_time_empties_it(bench) -> None:
    assert flood(bench, 100) == LIMIT
    assert bench.tcp_in(9, 80, f.SYN) == "half-open"
    assert bench.driver.counters(PORT).drops["half-open"] == 100 - LIMIT + 1
    bench.sleep(1)
    assert flood(bench, 100, first=20_000) == RATE
    bench.sleep(3600)
    assert flood(bench, 100, first=30_000) == LIMIT


def test_openings_of_both_directions_count_and_one_that_is_sent_again_once(bench) -> None:
    for _ in range(3):
        for port in range(LIMIT - 1):
            assert bench.tcp_out(5000 + port, 443, f.SYN) == ""
    assert flood(bench, 10) == 1


def test_a_handshake_that_completes_does_not_count(bench) -> None:
    for port in range(10 * LIMIT):
        bench.handshake_in(4000 + port)
        bench.handshake_out(5000 + port)
    assert flood(bench, 100) == LIMIT


def test_the_answer_of_a_vm_completes_nothing(bench) -> None:
    for port in range(LIMIT):
        assert bench.tcp_in(4000 + port, 80, f.SYN) == ""
        assert bench.tcp_out(80, 4000 + port, f.SYN | f.ACK) == ""
    assert flood(bench, 10) == 0
    # The handshakes that are under way can be completed, and make room.
    for port in range(5):
        assert bench.tcp_in(4000 + port, 80, f.ACK) == ""
    assert flood(bench, 10) == 5


def test_a_flood_leaves_connections_and_other_protocols_alone(bench) -> None:
    bench.handshake_in(4000)
    flood(bench, 100)
    assert bench.tcp_in(4000, 80, f.ACK) == ""
    assert bench.tcp_out(80, 4000, f.ACK) == ""
    assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(4000, 53))) == ""


def test_what_the_policy_refuses_takes_no_room() -> None:
    bench = Bench(Policy(rules=(IN_TCP_80,)), quota=1000)
    configure(bench, half_open_limit=LIMIT, half_open_rate=RATE)
    assert flood(bench, 100, target=81) == 0
    assert bench.driver.counters(PORT).drops["policy"] == 100
    assert flood(bench, 100) == LIMIT


def test_no_limit() -> None:
    bench = Bench(ALLOW_ALL, quota=1000)
    configure(bench, half_open_limit=0)
    assert flood(bench, 500) == 500
