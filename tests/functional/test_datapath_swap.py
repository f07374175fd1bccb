"""Rules that change while frames flow, and a table that is full while no agent runs."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import datapath_keeper
from datapath_world import Place, eventually, private

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import Direction, Policy, Rule

KEEPER = Path(datapath_keeper.__file__)
PORT = "11111111-0000-4000-8000-000000000001"
INSTANCE = "22222222-0000-4000-8000-000000000001"


def udp(*ports: int) -> Policy:
    """Into the VM these ports, out of it everything."""
    inwards = (
        Rule(direction=Direction.INGRESS, protocol="udp", ports=(port, port)) for port in ports
    )
    return Policy(rules=(Rule(direction=Direction.EGRESS), *inwards))


class World:
    """A VM (10.9.0.1) and outside (10.9.0.9) behind the uplink."""

    def __init__(self, bpffs: str, quota: int = 1000) -> None:
        self.pin_dir = os.path.join(bpffs, "vnet")
        self.vm = Place("a", "52:54:00:00:00:0a", "10.9.0.1/24")
        self.outside = Place("out", "52:54:00:00:00:99", "10.9.0.9/24")
        self.port = {
            "port": PORT,
            "instance": INSTANCE,
            "mac": self.vm.mac,
            "addresses": ["10.9.0.1"],
            "ifindex": self.vm.ifindex,
            "quota": quota,
        }

    def driver(self) -> EbpfDriver:
        driver = EbpfDriver(pin_dir=self.pin_dir, max_ports=16)
        driver.open()
        return driver


@contextlib.contextmanager
def traffic(world: World) -> Iterator[Callable[[], int]]:
    """Datagrams to port 7001 of the VM, from 8 ports in turn; what it gives tells how many."""
    senders = [world.outside.udp() for _ in range(8)]
    stop = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not stop.wait(0.0002):
            senders[sent % 8].sendto(b"x", ("10.9.0.1", 7001))
            sent += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield lambda: sent
    finally:
        stop.set()
        thread.join()


def count_received(receiver: socket.socket) -> int:
    received = 0
    receiver.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while receiver.recv(10):
            received += 1
    return received


@private
def test_datapath_swaps_rules_whole_under_traffic(bpffs: str) -> None:
    """Port 7001 is in all of the policies: no frame may find a moment without it."""
    world = World(bpffs)
    driver = world.driver()
    datapath_keeper.set_up(driver, [world.port], world.outside.ifindex)
    driver.set_policy(PORT, udp(7001))
    receiver = world.vm.udp("10.9.0.1", 7001)
    assert world.vm.ping("10.9.0.9")
    with traffic(world) as count:
        for number in range(300):
            driver.set_policy(PORT, udp(7001, 8000 + number))
            driver.collect()
        eventually(lambda: count() > 1000, "datagrams flow")
    assert count_received(receiver) == count()
    assert driver.counters(PORT).drops == {}
    # And when the call returns, the old verdict is gone: nothing comes in any more.
    driver.set_policy(PORT, udp(9))
    for sender in [world.outside.udp() for _ in range(8)]:
        sender.sendto(b"late", ("10.9.0.1", 7001))
    eventually(lambda: driver.counters(PORT).drops.get("policy", 0) == 8, "all are refused")
    driver.destroy()


@private
def test_datapath_members_change_under_traffic(bpffs: str) -> None:
    """The peer is a member at every moment, by one name or another; then it is none at all."""
    world = World(bpffs)
    driver = world.driver()
    datapath_keeper.set_up(driver, [world.port], world.outside.ifindex)
    from_web = Rule(direction=Direction.INGRESS, protocol="udp", remote_group="web")
    driver.set_members("web", {0: ["10.9.0.9"]})
    driver.set_policy(PORT, Policy(rules=(Rule(direction=Direction.EGRESS), from_web)))
    receiver = world.vm.udp("10.9.0.1", 7001)
    assert world.vm.ping("10.9.0.9")
    with traffic(world) as count:
        for number in range(300):
            member = ("10.9.0.9", "10.9.0.0/24", "10.9.0.8/31")[number % 3]
            crowd = [f"192.0.2.{other}" for other in range(number % 20)]
            driver.set_members("web", {0: [member, *crowd]})
        eventually(lambda: count() > 1000, "datagrams flow")
    assert count_received(receiver) == count()
    assert driver.counters(PORT).drops == {}
    driver.set_members("web", {0: ["10.9.0.8"]})
    sender = world.outside.udp("10.9.0.9", 5000)
    sender.sendto(b"late", ("10.9.0.1", 7001))
    eventually(lambda: driver.counters(PORT).drops.get("policy", 0) == 1, "it is refused")
    driver.close()
    driver = world.driver()
    driver.set_members("web", {0: ["10.9.0.9"]})
    sender.sendto(b"back", ("10.9.0.1", 7001))
    assert receiver.recv(10) == b"back"
    # A connection that the membership admitted ends with the membership.
    driver.set_members("web", {0: []})
    sender.sendto(b"late", ("10.9.0.1", 7001))
    eventually(lambda: driver.counters(PORT).drops.get("policy", 0) == 2, "it is refused")
    driver.destroy()


def flood(world: World, count: int) -> None:
    """Connections that nobody answers, one for each source port."""
    for number in range(count):
        with world.outside.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("10.9.0.9", 10_000 + number))
            sock.sendto(b"f", ("10.9.0.1", 7001))


@private
def test_datapath_flood_without_agent_leaves_established_alone(bpffs: str) -> None:
    world = World(bpffs, quota=200)
    wanted = {"ports": [world.port], "uplink": world.outside.ifindex}
    keeper = subprocess.Popen(
        [sys.executable, str(KEEPER), world.pin_dir, json.dumps(wanted)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "ready\n"
    server = world.vm.listen(7000)
    clients = [world.outside.connect("10.9.0.1", 7000) for _ in range(20)]
    accepted = [server.accept()[0] for _ in clients]
    silent = world.vm.udp("10.9.0.1", 7001)
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.wait()
    flood(world, 1000)
    for one, other in zip(clients, accepted, strict=True):
        one.sendall(b"still here")
        assert other.recv(100) == b"still here"
    # New ones come in, too, if not each at its first try: openings of the flood make room.
    newcomer = eventually(lambda: try_connect(world), "a newcomer is let in")
    newcomer.sendall(b"new")
    accepted.append(server.accept()[0])
    assert accepted[-1].recv(100) == b"new"
    silent.close()
    driver = world.driver()
    counters = driver.counters(PORT)
    assert counters.connections <= 200
    assert counters.drops["quota"] > 0
    held = driver.connections(PORT)
    assert sum(item.state == "established" for item in held) == 21
    driver.destroy()


def try_connect(world: World) -> socket.socket | None:
    try:
        return world.outside.connect("10.9.0.1", 7000, timeout=0.5)
    except TimeoutError:
        return None
