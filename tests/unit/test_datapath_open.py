"""Ports without port security: forwarded as all others, but not checked."""

import frames as f
import pytest
from datapath_bench import GATEWAY, OTHER, PEER, PEER4, PORT, TAP, TAP2, UPLINK, VM, VM4, Bench

from vnet_agent.datapath import _flowcache as c
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL
from vnet_agent.model.port import Role

FOREIGN = f.ipv4("192.0.2.1", PEER4, f.UDP, f.udp(1, 2))


@pytest.fixture
def bench() -> Bench:
    """The VM's port is open; its policy would let nothing pass."""
    bench = Bench(DENY_ALL)
    bench.set_port(port_security=False)
    return bench


def test_nothing_is_checked_in_either_direction(bench: Bench) -> None:
    assert bench.out(FOREIGN, source=GATEWAY) == ""
    assert bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(67, 68))) == ""
    assert bench.into(f.ipv4(PEER4, "192.0.2.9", f.UDP, f.udp(1, 2)), target=GATEWAY) == ""
    odd = f.ether(VM, PEER, 0x88CC, bytes(46))
    assert bench.process(c.FROM_PORT, TAP, odd) == (c.REDIRECT, "none", (UPLINK,))
    assert bench.states() == []


def test_it_is_forwarded_by_mac(bench: Bench) -> None:
    bench.set_port(OTHER, mac=PEER)
    bench.driver.set_policy(OTHER, ALLOW_ALL)
    bench.driver.attach(OTHER, TAP2)
    frame = f.ether(GATEWAY, PEER, f.IPV4, FOREIGN)
    assert bench.process(c.FROM_PORT, TAP, frame) == (c.REDIRECT, "none", (TAP2,))
    # Whom it talks to is guarded as ever.
    bench.driver.set_policy(OTHER, DENY_ALL)
    assert bench.process(c.TO_PORT, TAP2, frame)[1] == "policy"


def test_its_guest_wakes_it(bench: Bench) -> None:
    bench.set_port(role=Role.STANDBY, port_security=False)
    assert bench.out(FOREIGN, source=GATEWAY) == ""
    assert bench.driver.ports()[0].role is Role.ACTIVE


def test_security_comes_and_goes() -> None:
    bench = Bench(ALLOW_ALL)
    bench.handshake_in()
    bench.set_port(port_security=False)
    assert not bench.driver.ports()[0].port_security
    assert bench.out(FOREIGN) == ""
    bench.driver.set_policy(PORT, DENY_ALL)
    bench.set_port()
    assert bench.driver.ports()[0].port_security
    assert bench.out(FOREIGN) == "ip-spoof"
    assert bench.tcp_in(4000, 80, f.ACK) == "no-connection"


def test_a_trace_says_so(bench: Bench) -> None:
    run = bench.driver.trace(PORT, f.ether(GATEWAY, PEER, f.IPV4, FOREIGN), egress=True)
    assert (run.verdict, run.port_security) == ("forward", False)
