"""Where frames go: local ports, members of the network, the uplink; and the life of ports."""

import frames as f
import pytest
from datapath_bench import (
    GATEWAY,
    INSTANCE,
    OTHER,
    PEER,
    PEER4,
    PORT,
    TAP,
    TAP2,
    UPLINK,
    VM,
    VM4,
    Bench,
)

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.exceptions import DatapathError, StaleGeneration, UnknownPort
from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import Role

BROADCAST = "ff:ff:ff:ff:ff:ff"
PACKET = f.ipv4(VM4, PEER4, f.UDP, f.udp(1, 2))


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.set_port(OTHER, mac=PEER)
    bench.driver.set_policy(OTHER, ALLOW_ALL)
    bench.driver.attach(OTHER, TAP2)
    return bench


def send(bench: Bench, target: str, ifindex: int = TAP, source: str = VM) -> tuple:
    hook = c.FROM_UPLINK if ifindex == UPLINK else c.FROM_PORT
    return bench.process(hook, ifindex, f.ether(source, target, f.IPV4, PACKET))


def test_unicast(bench: Bench) -> None:
    assert send(bench, PEER) == (c.REDIRECT, "none", (TAP2,))
    assert send(bench, GATEWAY) == (c.REDIRECT, "none", (UPLINK,))
    assert send(bench, VM) == (c.DROP, "no-destination", ())
    assert send(bench, VM, UPLINK, GATEWAY) == (c.REDIRECT, "none", (TAP,))
    assert send(bench, GATEWAY, UPLINK, PEER) == (c.PASS, "none", ())
    bench.driver.detach_uplink(UPLINK)
    assert send(bench, GATEWAY) == (c.DROP, "no-destination", ())


def test_broadcast(bench: Bench) -> None:
    assert send(bench, BROADCAST) == (c.REDIRECT, "none", (TAP2, UPLINK))
    assert send(bench, BROADCAST, UPLINK, GATEWAY) == (c.PASS, "none", (TAP, TAP2))
    # What a switch sends back does not reach its sender.
    assert send(bench, BROADCAST, UPLINK, VM) == (c.PASS, "none", (TAP2,))
    bench.driver.detach_uplink(UPLINK)
    assert send(bench, BROADCAST) == (c.CONSUMED, "none", (TAP2,))
    bench.driver.remove_port(OTHER, generation=1)
    assert send(bench, BROADCAST) == (c.CONSUMED, "none", ())


def test_networks_are_separate(bench: Bench) -> None:
    bench.set_port(OTHER, mac=PEER, network=7)
    assert send(bench, PEER) == (c.REDIRECT, "none", (UPLINK,))
    assert send(bench, BROADCAST) == (c.REDIRECT, "none", (UPLINK,))
    bench.driver.attach_uplink(UPLINK, network=7)
    assert send(bench, PEER) == (c.DROP, "no-destination", ())
    assert send(bench, PEER, UPLINK, GATEWAY) == (c.REDIRECT, "none", (TAP2,))


@pytest.mark.parametrize("role", [Role.STANDBY, Role.MOVED])
def test_a_port_whose_vm_is_elsewhere_is_behind_the_uplink(bench: Bench, role: Role) -> None:
    bench.set_port(OTHER, mac=PEER, role=role)
    assert send(bench, PEER) == (c.REDIRECT, "none", (UPLINK,))
    assert send(bench, BROADCAST) == (c.REDIRECT, "none", (UPLINK,))
    assert send(bench, PEER, UPLINK, GATEWAY) == (c.PASS, "none", ())
    # A spoofed frame is none of the guest's.
    send(bench, VM, TAP2, GATEWAY)
    assert send(bench, PEER) == (c.REDIRECT, "none", (UPLINK,))
    send(bench, GATEWAY, TAP2, PEER)
    assert [entry.role for entry in bench.driver.ports()] == [Role.ACTIVE, Role.ACTIVE]
    assert send(bench, PEER) == (c.REDIRECT, "none", (TAP2,))


def test_bridged_ports_are_only_guarded(bench: Bench) -> None:
    bench.set_port(OTHER, mac=PEER, bridged=True)
    assert send(bench, PEER) == (c.REDIRECT, "none", (UPLINK,))
    assert send(bench, VM, TAP2, PEER) == (c.PASS, "none", ())
    assert send(bench, VM, TAP2, VM) == (c.DROP, "mac-spoof", ())
    bench.set_port(OTHER, mac=PEER)
    assert send(bench, PEER) == (c.REDIRECT, "none", (TAP2,))


def test_members_stay_without_holes(bench: Bench) -> None:
    ports = [f"33333333-0000-4000-8000-00000000000{number}" for number in range(1, 5)]
    for number, port in enumerate(ports):
        bench.set_port(port, mac=f"52:54:00:00:01:0{number}")
        bench.driver.set_policy(port, ALLOW_ALL)
        bench.driver.attach(port, 20 + number)
    bench.driver.remove_port(ports[1], generation=1)
    bench.driver.remove_port(ports[3], generation=1)
    _, _, outs = send(bench, BROADCAST)
    assert sorted(outs) == [TAP2, UPLINK, 20, 22]


def test_mac_change_and_conflict(bench: Bench) -> None:
    with pytest.raises(DatapathError, match="52:54:00:00:00:02"):
        bench.set_port(PORT, mac=PEER)
    assert send(bench, PEER) == (c.REDIRECT, "none", (TAP2,))
    bench.set_port(OTHER, mac=GATEWAY)
    assert send(bench, GATEWAY) == (c.REDIRECT, "none", (TAP2,))
    assert send(bench, PEER) == (c.REDIRECT, "none", (UPLINK,))


def test_attach_again_elsewhere_and_detach(bench: Bench) -> None:
    bench.driver.attach(OTHER, 30)
    assert send(bench, PEER) == (c.REDIRECT, "none", (30,))
    assert send(bench, VM, TAP2, PEER)[1] == "no-port"
    bench.driver.detach(OTHER)
    bench.driver.detach(OTHER)
    assert send(bench, PEER) == (c.REDIRECT, "none", (UPLINK,))
    # The number of a vanished interface may be another port's by now.
    bench.driver.attach(OTHER, TAP)
    bench.driver.detach(PORT)
    assert send(bench, GATEWAY, TAP, PEER)[1] == "none"
    assert [entry.ifindex for entry in bench.driver.ports()] == [None, TAP]


def test_generations(bench: Bench) -> None:
    bench.set_port(generation=5)
    with pytest.raises(StaleGeneration):
        bench.set_port(generation=4)
    with pytest.raises(StaleGeneration):
        bench.driver.remove_port(PORT, generation=4)
    bench.driver.remove_port(PORT, generation=6)
    with pytest.raises(UnknownPort):
        bench.driver.counters(PORT)
    bench.set_port(generation=1)
    assert [entry.generation for entry in bench.driver.ports() if entry.port == PORT] == [1]


def test_entry_says_what_was_set() -> None:
    bench = Bench(quota=77)
    (entry,) = bench.driver.ports()
    assert (entry.port, entry.instance, entry.mac) == (PORT, INSTANCE, VM)
    assert entry.addresses == ("10.0.0.1", "2001:db8::1")
    assert (entry.quota, entry.ifindex, entry.network, entry.bridged) == (77, TAP, 0, False)
    assert bench.driver.ports()[0].local_id == entry.local_id


def test_everything_is_there_after_close_and_open() -> None:
    bench = Bench()
    bench.handshake_out()
    before = bench.driver.ports()
    bench.driver.close()
    with pytest.raises(DatapathError, match="not open"):
        bench.driver.ports()
    bench.driver.open()
    assert bench.driver.ports() == before
    assert bench.tcp_in(443, 5000, f.ACK) == ""
    bench.driver.set_policy(PORT, ALLOW_ALL)
    assert bench.tcp_out(5001, 443, f.SYN) == ""


def test_full_house_and_wrong_arguments() -> None:
    driver = MemoryDriver(max_ports=1)
    driver.open()
    arguments = {
        "instance": INSTANCE,
        "addresses": (),
        "network": 0,
        "bridged": False,
        "role": Role.ACTIVE,
        "generation": 1,
        "quota": 8,
    }
    with pytest.raises(DatapathError):
        driver.set_port("no uuid", mac=VM, **arguments)
    with pytest.raises(DatapathError):
        driver.set_port(PORT, mac=VM, **{**arguments, "addresses": ("10.0.0.300",)})
    driver.set_port(PORT, mac=VM, **arguments)
    with pytest.raises(DatapathError, match="max_ports"):
        driver.set_port(OTHER, mac=PEER, **arguments)
    driver.remove_port(PORT, generation=1)
    driver.set_port(OTHER, mac=PEER, **arguments)
