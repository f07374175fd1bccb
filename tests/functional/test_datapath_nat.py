"""Translation in the kernel: between real stacks, and frame by frame as the native core has it."""

import os
import random
import socket
import threading

import frames as f
import network_bench as n
import pytest
from datapath_world import ip, private
from network_bench import A4, FAR, FLAT, A, B
from tables_world import PORT_A, Tables
from test_datapath_traffic import PORT_A as VM_A
from test_datapath_traffic import PORT_B as VM_B
from test_datapath_traffic import World
from twin_sums import seal

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.datapath.handlers import compile_handler
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.handlers.document import table_from_json
from vnet_agent.model.policy import ALLOW_ALL

VIP, OUTER = "10.9.0.100", "10.9.0.50"
FRAMES = 300
#: More than there can be: what makes room goes by the clock.
QUOTA = 5000
SEED = int(os.environ.get("VNET_SEED", "1"))


class Places:
    """Of a driver's ports."""

    def __init__(self, driver) -> None:
        self._ids = {entry.port: entry.local_id for entry in driver.ports()}

    def local_id(self, port: str) -> int | None:
        return self._ids.get(port)

    def ids_of(self, instance: str) -> list[int]:
        return []

    def ids_in(self, group: str) -> list[int]:
        return []


def load(driver, *rules: dict) -> None:
    document = table_from_json({"rules": list(rules)}, 0)
    places = Places(driver)
    flat = [item for rule in document.rules for item in compile_handler(rule, places)]
    driver.replace_table(0, flat, document.miss)


def service(protocol: str) -> dict:
    """VM a reaches port 7000 of the service's address at VM b's 7001, and is seen as another."""
    match = {"in_port": VM_A, "direction": "egress", "eth_type": "ipv4", "ip_dst": VIP}
    match |= {"ip_proto": protocol, f"{protocol}_dst": 7000}
    backend = {"address": "10.9.0.2", "port": 7001}
    return {"match": match, "actions": [{"dnat": backend}, {"snat": OUTER}, "normal"]}


def set_up(bpffs: str, *rules: dict) -> tuple[World, EbpfDriver]:
    world = World(bpffs)
    driver = world.driver()
    driver.set_policy(VM_B, ALLOW_ALL)
    load(driver, *rules)
    for place, address, mac in ((world.a, VIP, world.b.mac), (world.b, OUTER, world.a.mac)):
        with place.inside():
            ip(f"neigh replace {address} lladdr {mac} dev eth0")
    return world, driver


def pass_through(sent: socket.socket, taken: socket.socket, size: int = 1 << 20) -> None:
    """A mebibyte each way at once: segments are cut behind the tables."""

    def send(sock: socket.socket) -> None:
        sock.sendall(bytes(size))
        sock.shutdown(socket.SHUT_WR)

    senders = [threading.Thread(target=send, args=(sock,)) for sock in (sent, taken)]
    for sender in senders:
        sender.start()
    for sock in (sent, taken):
        assert sum(iter(lambda sock=sock: len(sock.recv(1 << 16)), 0)) == size
    for sender in senders:
        sender.join()


@private
def test_datapath_nat_between_real_stacks(bpffs: str) -> None:
    world, driver = set_up(bpffs, service("tcp"), service("udp"))
    listener = world.b.listen(7001)
    sent = world.a.connect(VIP, 7000)
    taken, peer = listener.accept()
    assert peer[0] == OUTER
    assert sent.getpeername() == (VIP, 7000)
    pass_through(sent, taken)
    # What nobody listens for is refused by an ICMP error, which a's stack takes for its own.
    client = world.a.udp()
    client.connect((VIP, 7000))
    client.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        client.recv(10)
    states = sorted(item.state for item in driver.connections(VM_A))
    assert states.count("nat") == 4
    driver.destroy()


@private
def test_datapath_nat_outlives_the_agent(bpffs: str) -> None:
    world, driver = set_up(bpffs, service("tcp"))
    listener = world.b.listen(7001)
    sent = world.a.connect(VIP, 7000)
    taken, _ = listener.accept()
    driver.close()
    sent.sendall(b"without an agent")
    assert taken.recv(100) == b"without an agent"
    driver = EbpfDriver(pin_dir=world.pin_dir, max_ports=16)
    driver.open()
    taken.sendall(b"and with the next one")
    assert sent.recv(100) == b"and with the next one"
    driver.destroy()


@private
def test_datapath_without_nat_nobody_answers(bpffs: str) -> None:
    world, driver = set_up(bpffs)
    world.b.listen(7001)
    with pytest.raises(OSError, match="timed out"):
        world.a.connect(VIP, 7000, timeout=1)
    driver.destroy()


# -- frame by frame

RULES = (
    {"match": {"eth_type": "ipv4", "ip_proto": "udp", "ip_dst": "10.0.0.100/32"},
     "actions": [
         {"dnat": {"address": "10.0.0.9", "port": 81}}, {"snat": "203.0.113.7"}, "normal",
     ]},
    {"match": {"eth_type": "ipv4", "ip_proto": "tcp", "direction": "egress"},
     "actions": [{"snat": "203.0.113.7"}, "normal"]},
    {"match": {"eth_type": "ipv4", "direction": "ingress", "ip_dst": "203.0.113.8/32"},
     "actions": [{"dnat": A4}, "normal"]},
    {"match": {"eth_type": "ipv4", "ip_proto": "icmp", "direction": "egress"},
     "actions": [{"snat": "203.0.113.7"}, "normal"]},
)  # fmt: skip
OUTSIDE = ("10.0.0.9", "10.0.0.100", "192.0.2.1")
OURS = (A4, "203.0.113.7", "203.0.113.8")


def random_packet(rng: random.Random, source: str, destination: str) -> bytes:
    ports = rng.choice((80, 81, 4000)), rng.choice((80, 81, 4000))
    kind = rng.randrange(4)
    if kind == 0:
        flags = rng.choice((f.SYN, f.SYN | f.ACK, f.ACK, f.FIN | f.ACK, f.RST))
        return f.ipv4(source, destination, f.TCP, f.tcp(*ports, flags, bytes(rng.randrange(60))))
    if kind == 1:
        more = rng.random() < 0.3
        packet = f.udp(*ports, bytes(rng.randrange(8) * 8))
        return f.ipv4(source, destination, f.UDP, packet, more=more, ident=rng.randrange(3))
    if kind == 2:
        return f.ipv4(source, destination, f.ICMP, f.icmp(rng.choice((0, 8)), 0, 7, b"echo"))
    quoted = f.ipv4(destination, source, rng.choice((f.UDP, f.TCP)), f.udp(*ports, b"data"))
    return f.ipv4(source, destination, f.ICMP, f.icmp(3, 1, 0, seal_ip(quoted)[:28]))


def seal_ip(packet: bytes) -> bytes:
    return seal(f.ether(A, B, f.IPV4, packet))[14:]


@private
def test_datapath_nat_is_the_native_one(bpffs: str) -> None:
    world = Tables(bpffs, quota=QUOTA)
    native = MemoryDriver(max_ports=16)
    native.open()
    for mac, tap in ((A, world.a), (B, world.b)):
        n.set_port(native, FLAT, mac, quota=QUOTA)
        native.attach(n.port_name(FLAT, mac), tap.ifindex)
    native.attach_uplink(world.far.ifindex, network=FLAT)
    for driver in (world.driver, native):
        driver.set_policy(PORT_A, ALLOW_ALL)
        load(driver, *RULES)
    rng = random.Random(SEED)
    translated = 0
    for number in range(FRAMES):
        egress = rng.random() < 0.5
        source, destination = (A4, rng.choice(OUTSIDE)) if egress else (
            rng.choice(OUTSIDE), rng.choice(OURS)
        )  # fmt: skip
        packet = random_packet(rng, source, destination)
        frame = seal(
            f.ether(A, FAR, f.IPV4, packet) if egress else f.ether(FAR, A, f.IPV4, packet)
        )
        if egress:
            world.a.send(frame)
        else:
            world.far.send(frame)
        hook = c.FROM_PORT if egress else c.TO_PORT
        outs = native.native.run(hook, world.a.ifindex, frame, world.driver.kernel.now())[2]
        wanted = {"far" if egress else "a": [data for _, data in outs]} if outs else {}
        assert world.arrived() == wanted, (SEED, number, egress, frame.hex())
        translated += any(data != frame for _, data in outs)
    assert translated > FRAMES // 10
    native.close()
    world.driver.destroy()
