"""Ports on a Linux bridge: the bridge forwards, the programs guard."""

import os
import subprocess

import pytest
from datapath_world import Place, eventually, ip, private

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import Direction, Policy, Rule
from vnet_agent.model.port import Role

A, B = "11111111-0000-4000-8000-00000000000a", "11111111-0000-4000-8000-00000000000b"
INSTANCE = "22222222-0000-4000-8000-000000000001"

#: To the VMs, only TCP 7000, ping and neighbour discovery.
POLICY = Policy(
    rules=(
        Rule(direction=Direction.EGRESS),
        Rule(direction=Direction.INGRESS, protocol="tcp", ports=(7000, 7000)),
        Rule(direction=Direction.INGRESS, protocol="icmp"),
        Rule(direction=Direction.INGRESS, protocol="icmpv6"),
    )
)


class Bridge:
    """Guarded VMs a (10.9.0.1) and b (10.9.0.2); outside (10.9.0.9) is not guarded."""

    def __init__(self, bpffs: str) -> None:
        self.a = Place("a", "52:54:00:00:00:0a", "10.9.0.1/24", "fd00::1/64")
        self.b = Place("b", "52:54:00:00:00:0b", "10.9.0.2/24", "fd00::2/64")
        self.outside = Place("out", "52:54:00:00:00:99", "10.9.0.9/24", "fd00::9/64")
        ip("link add br0 type bridge")
        ip("link set br0 up")
        for place in (self.a, self.b, self.outside):
            ip(f"link set {place.outer} master br0")
        self.driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=8)
        self.driver.open()
        self.set_port(A)
        self.set_port(B)
        eventually(lambda: self.a.ping("10.9.0.2"), "the bridge forwards")

    def set_port(self, port: str, *, role: Role = Role.ACTIVE) -> None:
        place, address = {A: (self.a, "1"), B: (self.b, "2")}[port]
        self.driver.set_port(
            port,
            instance=INSTANCE,
            mac=place.mac,
            addresses=(f"10.9.0.{address}", f"fd00::{address}"),
            network=0,
            bridged=True,
            role=role,
            generation=1,
            quota=1000,
        )
        self.driver.set_policy(port, POLICY)
        self.driver.attach(port, place.ifindex)

    def drops(self, port: str) -> dict[str, int]:
        return self.driver.counters(port).drops


@private
def test_datapath_bridge_forwards_and_guards_with_policy(bpffs: str) -> None:
    bridge = Bridge(bpffs)
    for source, address in (
        (bridge.a, "10.9.0.2"),
        (bridge.a, "10.9.0.9"),
        (bridge.outside, "10.9.0.1"),
        (bridge.a, "fd00::2"),
        (bridge.outside, "fd00::2"),
    ):
        assert source.ping(address), address
    # Segments of 60 kB, uncut, through the bridge.
    server = bridge.a.listen(7000)
    for source in (bridge.b, bridge.outside):
        client = source.connect("10.9.0.1", 7000)
        accepted, _ = server.accept()
        client.sendall(b"x" * 500_000)
        client.close()
        got = 0
        while data := accepted.recv(1 << 20):
            got += len(data)
        assert got == 500_000
        accepted.close()
    held = [item for item in bridge.driver.connections(A) if item.protocol == "tcp"]
    assert {item.remote for item in held} == {"10.9.0.2", "10.9.0.9"}
    assert all(item.ingress_bytes // item.ingress_packets > 1514 for item in held)
    closed = bridge.a.listen(7005)
    with pytest.raises(TimeoutError):
        bridge.outside.connect("10.9.0.1", 7005, timeout=0.5)
    assert bridge.drops(A)["policy"] >= 1
    assert not set(bridge.drops(A)) - {"policy", "other-mac"}
    bridge.driver.destroy()
    # Unguarded again, and forwarded still.
    bridge.outside.connect("10.9.0.1", 7005).close()
    closed.close()


@private
def test_datapath_bridge_learns_nothing_from_a_liar(bpffs: str) -> None:
    bridge = Bridge(bpffs)
    with bridge.a.inside():
        subprocess.run(["ip", "addr", "add", "10.9.0.77/24", "dev", "eth0"], check=True)
    assert not bridge.a.ping("10.9.0.9", "-I", "10.9.0.77")
    assert bridge.drops(A).get("arp-spoof", 0) + bridge.drops(A).get("ip-spoof", 0) >= 1
    # With b's MAC, a would draw b's frames: the bridge must not even see it.
    with bridge.a.inside():
        subprocess.run(f"ip link set eth0 address {bridge.b.mac}".split(), check=True)
    assert not bridge.a.ping("10.9.0.9")
    assert bridge.drops(A)["mac-spoof"] >= 1
    learned = subprocess.run(
        ["bridge", "fdb", "show", "br", "br0", "dynamic"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"{bridge.b.mac} dev {bridge.a.outer}" not in learned
    assert bridge.outside.ping("10.9.0.2")
    bridge.driver.destroy()


@private
def test_datapath_bridge_wakes_a_port_that_waits(bpffs: str) -> None:
    """The bridge, not the role, decides what reaches it; its first frame still makes it active."""
    bridge = Bridge(bpffs)
    with bridge.b.inside():
        subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)
    bridge.set_port(B, role=Role.STANDBY)
    with bridge.b.inside():
        subprocess.run(["ip", "link", "set", "eth0", "up"], check=True)
    eventually(lambda: bridge.b.ping("10.9.0.1"), "it speaks")
    roles = {item.port: item.role for item in bridge.driver.ports()}
    assert roles == {A: Role.ACTIVE, B: Role.ACTIVE}
    assert bridge.outside.ping("10.9.0.2")
    bridge.driver.destroy()
