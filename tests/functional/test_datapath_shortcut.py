"""The short way between real taps: who gets it, what takes it, and that nothing else changes."""

import fcntl
import json
import os
import socket
import subprocess
from collections.abc import Iterator

import datapath_keeper
import frames as f
from datapath_bench import INSTANCE, VM, VM4
from datapath_taps import IFF_MULTI_QUEUE, Tap
from datapath_world import Place, private

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.captured import CaptureRequest
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL
from vnet_agent.model.port import Role

A, B = "11111111-0000-4000-8000-00000000000a", "11111111-0000-4000-8000-00000000000b"
MAC_B, B4 = "52:54:00:00:00:02", "10.0.0.2"
TUNSETPERSIST = 0x400454CB


class World:
    """VMs a and b on taps of one driver; what they say is datagrams of one connection."""

    def __init__(self, bpffs: str, *, plain: bool = True, shortcut: bool = True) -> None:
        self.a, self.b = Tap("tap1", plain=plain), Tap("tap2", plain=plain)
        self.pin_dir = os.path.join(bpffs, "vnet")
        self.driver = self.open(shortcut=shortcut)
        for port, mac, address, tap in ((A, VM, VM4, self.a), (B, MAC_B, B4, self.b)):
            self.set_port(port, mac, address)
            self.driver.set_policy(port, ALLOW_ALL)
            self.driver.attach(port, tap.ifindex)

    def open(self, *, shortcut: bool = True) -> EbpfDriver:
        driver = EbpfDriver(pin_dir=self.pin_dir, max_ports=8, shortcut=shortcut)
        driver.open()
        return driver

    def set_port(self, port: str, mac: str, address: str) -> None:
        self.driver.set_port(
            port,
            instance=INSTANCE,
            mac=mac,
            addresses=(address,),
            network=0,
            bridged=False,
            role=Role.ACTIVE,
            generation=1,
            quota=1000,
        )

    def exchange(self) -> None:
        """A datagram and its answer: the connection is steady from now on."""
        for source, target, frame in ((self.a, self.b, ask()), (self.b, self.a, answer())):
            source.send(frame)
            assert target.receive() == frame

    def short_ports(self) -> int:
        flags = [layout.number("port", "flags", data) for data in self.driver.kernel.ports()]
        return sum(bool(each & c.PORT_SHORT) for each in flags)


def ask(payload: bytes = b"") -> bytes:
    return f.ether(VM, MAC_B, f.IPV4, f.ipv4(VM4, B4, f.UDP, f.udp(1000, 7, payload)))


def answer() -> bytes:
    return f.ether(MAC_B, VM, f.IPV4, f.ipv4(B4, VM4, f.UDP, f.udp(7, 1000)))


def xdp_program(tap: Tap) -> int | None:
    """The id of the XDP program on the tap."""
    told = subprocess.run(
        ["ip", "-j", "-d", "link", "show", tap.name], check=True, capture_output=True
    )
    return json.loads(told.stdout)[0].get("xdp", {}).get("prog", {}).get("id")


def look_on(tap: Tap) -> socket.socket:
    return look_on_interface(tap.name)


def look_on_interface(name: str) -> socket.socket:
    """As tcpdump does."""
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind((name, 0))
    sniffer.setblocking(False)
    return sniffer


def seen(sniffer: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield sniffer.recv(1 << 16)
        except BlockingIOError:
            return


@private
def test_shortcut_carries_what_is_established_and_counts_it(bpffs: str) -> None:
    world = World(bpffs)
    sniffer = look_on(world.b)
    world.exchange()
    assert len(list(seen(sniffer))) == 2, "what begins a connection goes the long way"
    for _ in range(5):
        world.exchange()
    assert list(seen(sniffer)) == []
    for port in (A, B):
        counters = world.driver.counters(port)
        assert (counters.tx_frames, counters.rx_frames) == (6, 6)
        assert (counters.tx_bytes, counters.rx_bytes) == (6 * len(ask()), 6 * len(answer()))
        (conn,) = world.driver.connections(port)
        assert (conn.egress_packets, conn.ingress_packets) == (6, 6)
    world.driver.destroy()


@private
def test_shortcut_is_off_for_who_looks_on_and_back_behind_him(bpffs: str) -> None:
    world = World(bpffs)
    world.exchange()
    sniffer = look_on(world.b)
    running = world.driver.capture([B], CaptureRequest(), size=1 << 18)
    world.exchange()
    assert [frame.data for frame in running.read()] == [ask(), answer()]
    assert len(list(seen(sniffer))) == 2
    running.close()
    world.exchange()
    assert list(seen(sniffer)) == []
    world.driver.destroy()


@private
def test_shortcut_ends_with_the_rule_that_allowed_it(bpffs: str) -> None:
    world = World(bpffs)
    world.exchange()
    world.exchange()
    world.driver.set_policy(B, DENY_ALL)
    world.a.send(ask())
    assert world.b.drain() == []
    assert world.driver.counters(B).drops == {"policy": 1}
    world.driver.destroy()


@private
def test_shortcut_refuses_another_sender(bpffs: str) -> None:
    world = World(bpffs)
    world.exchange()
    spoofed = f.ether("52:54:00:00:00:99", MAC_B, f.IPV4, ask()[14:])
    world.a.send(spoofed)
    assert world.b.drain() == []
    assert world.driver.counters(A).drops == {"mac-spoof": 1}
    world.driver.destroy()


@private
def test_shortcut_leaves_what_the_other_tap_does_not_take(bpffs: str) -> None:
    """XDP would drop what is longer than the MTU; the long way never asked."""
    world = World(bpffs)
    subprocess.run(["ip", "link", "set", "tap2", "mtu", "700"], check=True)
    world.exchange()
    sniffer = look_on(world.b)
    for length, is_long in ((600, False), (1200, True)):
        frame = ask(bytes(length))
        world.a.send(frame)
        assert world.b.receive() == frame
        assert bool(list(seen(sniffer))) == is_long
    world.driver.destroy()


@private
def test_shortcut_is_for_plain_taps_alone(bpffs: str) -> None:
    """Frames with a virtio header may be unfinished, which XDP does not see."""
    world = World(bpffs, plain=False)
    assert xdp_program(world.a) is None
    assert world.short_ports() == 0
    sniffer = look_on(world.b)
    world.exchange()
    world.exchange()
    assert len(list(seen(sniffer))) == 4
    many = Tap("tap3", plain=True, flags=IFF_MULTI_QUEUE)
    kept = Tap("tap4", plain=True)
    fcntl.ioctl(kept.fd, TUNSETPERSIST, 1)
    fine = Tap("tap5", plain=True)
    assert [world.driver.kernel.set_short(tap.ifindex) for tap in (many, kept, fine)] == [
        0,
        0,
        c.PORT_SHORT,
    ]
    assert not world.driver.kernel.set_short(socket.if_nametoindex("lo"))
    fcntl.ioctl(kept.fd, TUNSETPERSIST, 0)
    world.driver.kernel.leave_short(fine.ifindex)
    world.driver.destroy()


@private
def test_shortcut_lives_as_long_as_the_port_on_its_tap(bpffs: str) -> None:
    world = World(bpffs)
    assert world.short_ports() == 2
    first = xdp_program(world.a)
    assert first is not None
    world.driver.detach(A)
    assert xdp_program(world.a) is None
    assert world.short_ports() == 1
    world.driver.attach(A, world.a.ifindex)
    # The agent goes, its datapath stays; the next agent brings its own program.
    world.driver.close()
    assert xdp_program(world.a) == first
    sniffer = look_on(world.b)
    world.exchange()
    world.exchange()
    assert len(list(seen(sniffer))) == 2
    world.driver = world.open()
    assert xdp_program(world.a) not in (None, first)
    world.exchange()
    assert list(seen(sniffer)) == []
    # And one that is told not to have it takes it away.
    world.driver.close()
    world.driver = world.open(shortcut=False)
    assert xdp_program(world.a) is xdp_program(world.b) is None
    assert world.short_ports() == 0
    world.exchange()
    assert len(list(seen(sniffer))) == 2
    world.driver.close()
    world.driver = world.open()
    assert world.short_ports() == 2
    world.driver.destroy()
    assert xdp_program(world.a) is xdp_program(world.b) is None
    assert not os.path.exists(world.pin_dir)


@private
def test_shortcut_leaves_another_program_alone(bpffs: str) -> None:
    """Both ports need it: a tap without it is reached the long way."""
    world = World(bpffs)
    other = EbpfDriver(pin_dir=os.path.join(bpffs, "other"), max_ports=8)
    other.open()
    before = xdp_program(world.a)
    assert not other.kernel.set_short(world.a.ifindex)
    other.kernel.leave_short(world.a.ifindex)
    assert xdp_program(world.a) == before is not None
    other.destroy()
    assert xdp_program(world.a) == before
    world.driver.kernel.leave_short(world.a.ifindex)
    assert world.driver.kernel.has_short(world.b.ifindex)
    assert not world.driver.kernel.has_short(world.a.ifindex)
    world.driver.destroy()


def exchange(one: Place, other: Place) -> None:
    sender, receiver = one.udp("10.9.0.1", 5000), other.udp("10.9.0.2", 7001)
    for _ in range(3):
        sender.sendto(b"there", ("10.9.0.2", 7001))
        assert receiver.recv(10) == b"there"
        receiver.sendto(b"back", ("10.9.0.1", 5000))
        assert sender.recv(10) == b"back"
    sender.close()
    receiver.close()


@private
def test_a_veth_is_entered_at_its_other_end(bpffs: str) -> None:
    """Its near end sees nothing of what another port here sends; counters and captures do."""
    places = (
        Place("a", "52:54:00:00:00:0a", "10.9.0.1/24"),
        Place("b", "52:54:00:00:00:0b", "10.9.0.2/24"),
    )
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=8)
    driver.open()
    ports = [
        {"port": port, "instance": INSTANCE, "mac": place.mac, "ifindex": place.ifindex}
        for port, place in zip((A, B), places, strict=True)
    ]
    for number, port in enumerate(ports, 1):
        port["addresses"] = [f"10.9.0.{number}"]
    datapath_keeper.set_up(driver, ports, None)
    flags = [layout.number("port", "flags", data) for data in driver.kernel.ports()]
    assert [each & (c.PORT_PEER | c.PORT_SHORT) for each in flags] == [c.PORT_PEER] * 2
    assert places[0].ping("10.9.0.2")
    sniffers = [look_on_interface(place.outer) for place in places]
    running = driver.capture([B], CaptureRequest(), size=1 << 18)
    exchange(*places)
    captured = [frame.egress for frame in running.read()]
    running.close()
    assert captured.count(False) == captured.count(True) == 3
    from_a, from_b = (sum(b"there" in each for each in seen(one)) for one in sniffers)
    assert (from_a, from_b) == (3, 0), "it is seen where it was sent"
    assert driver.counters(B).rx_frames == driver.counters(A).tx_frames
    # What the receiver refuses does not come in there either.
    driver.set_policy(B, DENY_ALL)
    assert not places[0].ping("10.9.0.2")
    assert driver.counters(B).drops.get("policy")
    driver.detach(A)
    driver.close()
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=8, shortcut=False)
    driver.open()
    flags = [layout.number("port", "flags", data) for data in driver.kernel.ports()]
    assert not any(each & c.PORT_PEER for each in flags)
    datapath_keeper.set_up(driver, ports, None)
    exchange(*places)
    from_a, from_b = (sum(b"there" in each for each in seen(one)) for one in sniffers)
    assert (from_a, from_b) == (3, 3)
    # An end that is in this namespace itself is no VM's.
    subprocess.run(["ip", "link", "add", "v1", "type", "veth", "peer", "name", "v2"], check=True)
    driver.destroy()
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=8)
    driver.open()
    assert driver.kernel.set_short(socket.if_nametoindex("v1")) == 0
    driver.destroy()
