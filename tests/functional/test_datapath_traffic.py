"""Real frames through the programs: two VMs and the world outside, in namespaces."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import datapath_keeper
from datapath_world import Place, eventually, private

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import DENY_ALL, Direction, Established, Policy, Rule

KEEPER = Path(datapath_keeper.__file__)
PORT_A = "11111111-0000-4000-8000-000000000001"
PORT_B = "11111111-0000-4000-8000-000000000002"
INSTANCE = "22222222-0000-4000-8000-000000000001"


class World:
    """VMs a (10.9.0.1) and b (10.9.0.2), and outside (10.9.0.9) behind the uplink."""

    def __init__(self, bpffs: str) -> None:
        self.pin_dir = os.path.join(bpffs, "vnet")
        self.a = Place("a", "52:54:00:00:00:0a", "10.9.0.1/24", "fd00::1/64")
        self.b = Place("b", "52:54:00:00:00:0b", "10.9.0.2/24", "fd00::2/64")
        self.outside = Place("out", "52:54:00:00:00:99", "10.9.0.9/24", "fd00::9/64")
        self.ports = [
            {
                "port": port,
                "instance": INSTANCE,
                "mac": place.mac,
                "addresses": addresses,
                "ifindex": place.ifindex,
            }
            for port, place, addresses in (
                (PORT_A, self.a, ["10.9.0.1", "fd00::1"]),
                (PORT_B, self.b, ["10.9.0.2", "fd00::2"]),
            )
        ]

    def driver(self) -> EbpfDriver:
        driver = EbpfDriver(pin_dir=self.pin_dir, max_ports=16)
        driver.open()
        datapath_keeper.set_up(driver, self.ports, self.outside.ifindex)
        return driver

    def keeper(self) -> subprocess.Popen:
        wanted = {"ports": self.ports, "uplink": self.outside.ifindex}
        process = subprocess.Popen(
            [sys.executable, str(KEEPER), self.pin_dir, json.dumps(wanted)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process


def echo(server: socket.socket, client: socket.socket, data: bytes) -> bool:
    """Whether `data` comes from one end to the other."""
    client.sendall(data)
    received = b""
    while len(received) < len(data):
        received += server.recv(65536)
    return received == data


@private
def test_datapath_forwards_between_vms_and_uplink(bpffs: str) -> None:
    world = World(bpffs)
    driver = world.driver()
    for source, address in (
        (world.a, "10.9.0.2"),
        (world.a, "10.9.0.9"),
        (world.outside, "10.9.0.1"),
        (world.a, "fd00::2"),
        (world.outside, "fd00::2"),
    ):
        assert source.ping(address), (address, driver.counters(PORT_A), driver.counters(PORT_B))
    for source in (world.b, world.outside):
        server = world.a.listen(7000)
        client = source.connect("10.9.0.1", 7000)
        accepted, _ = server.accept()
        # Enough for segmentation offload, both ways.
        for one, other in ((client, accepted), (accepted, client)):
            other.settimeout(20)
            sender = threading.Thread(target=one.sendall, args=(b"x" * 3_000_000,))
            sender.start()
            got = 0
            while got < 3_000_000:
                got += len(other.recv(1 << 20))
            sender.join()
        server.close()
        states = {
            (item.state, item.origin, item.assured)
            for item in driver.connections(PORT_A)
            if item.protocol == "tcp"
        }
        assert ("established", "ingress", True) in states
    driver.destroy()
    assert not os.path.exists(world.pin_dir)


@private
def test_datapath_refuses_what_policy_and_identity_do_not_allow(bpffs: str) -> None:
    world = World(bpffs)
    driver = world.driver()
    world.a.listen(7005)
    try:
        world.outside.connect("10.9.0.1", 7005, timeout=0.5)
    except TimeoutError:
        pass
    else:
        raise AssertionError("a closed port was reached")
    assert driver.counters(PORT_A).drops["policy"] >= 1
    with world.a.inside():
        subprocess.run(["ip", "addr", "add", "10.9.0.77/24", "dev", "eth0"], check=True)
    assert not world.a.ping("10.9.0.9", "-I", "10.9.0.77")
    drops = driver.counters(PORT_A).drops
    assert drops.get("ip-spoof", 0) + drops.get("arp-spoof", 0) >= 1
    with world.a.inside():
        subprocess.run(["ip", "link", "set", "eth0", "address", "52:54:00:00:00:ee"], check=True)
    assert not world.a.ping("10.9.0.9")
    assert driver.counters(PORT_A).drops["mac-spoof"] >= 1
    driver.destroy()


@private
def test_datapath_revokes_or_keeps_established(bpffs: str) -> None:
    world = World(bpffs)
    driver = world.driver()
    server = world.a.listen(7000)
    client = world.outside.connect("10.9.0.1", 7000)
    accepted, _ = server.accept()
    accepted.settimeout(1)
    assert echo(accepted, client, b"before")
    egress = (Rule(direction=Direction.EGRESS),)
    driver.set_policy(PORT_A, Policy(rules=egress, established=Established.KEEP))
    assert echo(accepted, client, b"kept")
    assert echo(client, accepted, b"both ways")
    try:
        world.outside.connect("10.9.0.1", 7000, timeout=0.5)
    except TimeoutError:
        pass
    else:
        raise AssertionError("the door is not closed")
    driver.set_policy(PORT_A, Policy(rules=egress, established=Established.RECHECK))
    # The VM's own segments must not bring it back either.
    accepted.sendall(b"from the VM")
    client.settimeout(0.5)
    try:
        client.recv(100)
    except TimeoutError:
        pass
    else:
        raise AssertionError("a revoked connection lives")
    driver.set_policy(PORT_A, DENY_ALL)
    assert not world.a.ping("10.9.0.9")
    driver.destroy()


@private
def test_datapath_standby_wakes_by_itself(bpffs: str) -> None:
    """Frames for a port in standby go elsewhere; its guest's first frame turns that."""
    world = World(bpffs)
    with world.a.inside():  # a guest's router solicitations would wake it
        Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("1")
    driver = world.driver()
    port = world.ports[0]
    arguments = {
        "instance": INSTANCE,
        "mac": port["mac"],
        "addresses": tuple(port["addresses"]),
        "network": 0,
        "bridged": False,
        "quota": 1000,
    }
    driver.set_port(PORT_A, role="standby", generation=2, **arguments)
    assert not world.outside.ping("10.9.0.1")
    assert world.a.ping("10.9.0.9")
    assert [item.role for item in driver.ports() if item.port == PORT_A] == ["active"]
    assert world.outside.ping("10.9.0.1")
    driver.destroy()


class Stream(threading.Thread):
    """Numbered datagrams, one a millisecond, from a socket until told to stop."""

    def __init__(self, sock: socket.socket, to: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self.sock, self.to, self.sent = sock, to, 0
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.001):
            self.sock.sendto(str(self.sent).encode(), self.to)
            self.sent += 1


def drain(sock: socket.socket) -> list[int]:
    numbers = []
    sock.settimeout(0.5)
    while True:
        try:
            numbers.append(int(sock.recv(100)))
        except TimeoutError:
            return numbers


@private
def test_datapath_outlives_its_agent(bpffs: str) -> None:
    world = World(bpffs)
    keeper = world.keeper()
    server = world.a.listen(7000)
    receiver = world.a.udp("10.9.0.1", 7001)
    old = world.outside.connect("10.9.0.1", 7000)
    old_accepted, _ = server.accept()
    assert world.b.ping("10.9.0.1")
    streams = [
        Stream(world.outside.udp(), ("10.9.0.1", 7001)),
        Stream(world.b.udp(), ("10.9.0.1", 7001)),
    ]
    for stream in streams:
        stream.start()
    eventually(lambda: streams[0].sent > 200, "datagrams flow")
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.wait()
    assert echo(old_accepted, old, b"o" * 100_000)
    while_dead = world.outside.connect("10.9.0.1", 7000)
    dead_accepted, _ = server.accept()
    assert echo(dead_accepted, while_dead, b"n" * 100_000)
    # Policy holds without an agent, too.
    try:
        world.outside.connect("10.9.0.1", 7005, timeout=0.5)
    except TimeoutError:
        pass
    else:
        raise AssertionError("a closed port was reached")
    for _ in range(3):
        keeper = world.keeper()
        assert echo(old_accepted, old, b"a" * 1000)
        assert echo(dead_accepted, while_dead, b"a" * 1000)
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.wait()
    for stream in streams:
        stream.stop.set()
        stream.join()
    received = drain(receiver)
    expected = sorted([*range(streams[0].sent), *range(streams[1].sent)])
    assert sorted(received) == expected, f"{len(expected) - len(received)} datagrams lost"
    driver = EbpfDriver(pin_dir=world.pin_dir, max_ports=16)
    driver.open()
    assert {entry.port for entry in driver.ports()} == {PORT_A, PORT_B}
    assert {item.state for item in driver.connections(PORT_A) if item.protocol == "tcp"} == {
        "established"
    }
    driver.destroy()
    assert not os.path.exists(world.pin_dir)
