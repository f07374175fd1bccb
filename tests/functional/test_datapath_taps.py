"""Frames through real taps: what a guest may send, where it arrives, and who wakes whom."""

import contextlib
import os
import socket
import subprocess

import frames as f
from datapath_bench import INSTANCE, VM, VM4, VM6
from datapath_taps import Tap
from datapath_world import private

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL, Policy
from vnet_agent.model.port import Role

A, B = "11111111-0000-4000-8000-00000000000a", "11111111-0000-4000-8000-00000000000b"
MAC_B, B4 = "52:54:00:00:00:02", "10.0.0.2"
FAR = "52:54:00:00:00:99"
BROADCAST = "ff:ff:ff:ff:ff:ff"


class Taps:
    """VMs a and b on taps, and an uplink that is a tap, too: its other end is the world."""

    def __init__(self, bpffs: str) -> None:
        self.a, self.b, self.far = Tap("a"), Tap("b"), Tap("far")
        self.driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=8)
        self.driver.open()
        self.set_port(A)
        self.set_port(B)
        self.driver.attach_uplink(self.far.ifindex, network=0)

    def set_port(self, port: str, *, role: Role = Role.ACTIVE, policy: Policy = ALLOW_ALL) -> None:
        mac, addresses, tap = {A: (VM, (VM4, VM6), self.a), B: (MAC_B, (B4,), self.b)}[port]
        self.driver.set_port(
            port,
            instance=INSTANCE,
            mac=mac,
            addresses=addresses,
            network=0,
            bridged=False,
            role=role,
            generation=1,
            quota=1000,
        )
        self.driver.set_policy(port, policy)
        self.driver.attach(port, tap.ifindex)

    def drops(self, port: str = A) -> dict[str, int]:
        return self.driver.counters(port).drops

    def role(self, port: str) -> Role:
        return next(item.role for item in self.driver.ports() if item.port == port)


def udp(number: int, *, source: str = VM4, mac: str = VM, target: str = MAC_B) -> bytes:
    return f.ether(mac, target, f.IPV4, f.ipv4(source, B4, f.UDP, f.udp(1000 + number, 7)))


def arp(mac: str, sender: str, asked: str) -> bytes:
    return f.ether(mac, BROADCAST, f.ARP, f.arp(mac, sender, asked))


@private
def test_datapath_taps_carry_a_guests_frames(bpffs: str) -> None:
    taps = Taps(bpffs)
    taps.a.send(arp(VM, VM4, B4))
    for receiver in (taps.b, taps.far):
        assert receiver.drain() == [arp(VM, VM4, B4)]
    assert taps.a.drain() == []
    for number in range(100):
        taps.a.send(udp(number))
    assert taps.b.drain() == [udp(number) for number in range(100)]
    assert taps.far.drain() == []
    # And from the world outside.
    request = f.ether(FAR, VM, f.IPV4, f.ipv4("10.0.0.9", VM4, f.ICMP, f.icmp(8, ident=3)))
    taps.far.send(request)
    assert taps.a.drain() == [request]
    assert taps.driver.counters(A).connections == 101
    taps.driver.destroy()


@private
def test_datapath_taps_frames_between_ports_are_judged_once_for_each(bpffs: str) -> None:
    taps = Taps(bpffs)
    for _ in range(5):
        taps.a.send(udp(1))
    assert taps.b.drain() == [udp(1)] * 5
    (at_a,) = taps.driver.connections(A)
    (at_b,) = taps.driver.connections(B)
    assert (at_a.egress_packets, at_a.ingress_packets) == (5, 0)
    assert (at_b.egress_packets, at_b.ingress_packets) == (0, 5)
    assert taps.driver.counters(A).tx_frames == 5
    assert taps.driver.counters(B).rx_frames == 5
    # What b refuses is counted at b.
    taps.set_port(B, policy=DENY_ALL)
    taps.a.send(udp(2))
    assert taps.b.drain() == []
    assert taps.driver.counters(A).tx_frames == 6
    assert taps.drops(A) == {}
    assert taps.drops(B) == {"policy": 1}
    taps.driver.destroy()


@private
def test_datapath_taps_judge_what_the_host_itself_sends(bpffs: str) -> None:
    """No other port's program has seen it: the receiver's own must."""
    taps = Taps(bpffs)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as host:
        host.bind((taps.b.name, 0))
        host.send(udp(1))
        assert taps.b.drain() == [udp(1)]
        assert taps.driver.counters(B).rx_frames == 1
        taps.set_port(B, policy=DENY_ALL)
        taps.a.send(udp(1))
        with contextlib.suppress(OSError):  # the kernel says that it was dropped
            host.send(udp(2))
        assert taps.b.drain() == []
    assert taps.drops(B) == {"policy": 2}
    taps.driver.destroy()


@private
def test_datapath_taps_refuse_what_is_not_the_guests(bpffs: str) -> None:
    taps = Taps(bpffs)
    packet = f.ipv4(VM4, B4, f.UDP, f.udp(1, 2))
    tagged = b"\0\5\x08\0" + packet
    for frame, reason in (
        (udp(1, mac=FAR), "mac-spoof"),
        (udp(1, source="10.0.0.77"), "ip-spoof"),
        (arp(VM, B4, B4), "arp-spoof"),
        (f.ether(VM, MAC_B, f.VLAN, tagged), "vlan"),
        (f.ether(VM, MAC_B, f.VLAN, b"\0\0\x08\0" + packet), "vlan"),
        (f.ether(VM, MAC_B, 0x88A8, b"\0\5\x81\0" + tagged), "vlan"),
        (f.ether(VM, BROADCAST, 0x0026, b"\x42\x42\3" + bytes(60)), "ethertype"),
        (f.ether(VM, MAC_B, f.IPV4, packet[:23]), "malformed"),
    ):
        before = taps.drops().get(reason, 0)
        taps.a.send(frame)
        assert taps.drops().get(reason, 0) == before + 1, (reason, taps.drops())
    # MACs that flap on the outside change nothing: nothing is learned from frames.
    for _ in range(3):
        taps.far.send(udp(2, mac=VM))
        taps.a.send(udp(2))
    assert len(taps.b.drain()) == 6
    taps.b.send(f.ether(MAC_B, VM, f.IPV4, f.ipv4(B4, VM4, f.UDP, f.udp(7, 1002))))
    assert len(taps.a.drain()) == 1
    assert taps.far.drain() == []
    taps.driver.destroy()


@private
def test_datapath_taps_carry_segments_uncut(bpffs: str) -> None:
    """60 kB with a virtio header that leaves cutting and checksum to the receiver."""
    taps = Taps(bpffs)

    def segment(flags: int, payload: bytes = b"") -> bytes:
        return f.ether(VM, MAC_B, f.IPV4, f.ipv4(VM4, B4, f.TCP, f.tcp(999, 80, flags, payload)))

    reply = f.ipv4(B4, VM4, f.TCP, f.tcp(80, 999, f.SYN | f.ACK))
    taps.a.send(segment(f.SYN))
    taps.b.send(f.ether(MAC_B, VM, f.IPV4, reply))
    taps.a.send(segment(f.ACK))
    assert (len(taps.a.drain()), len(taps.b.drain())) == (1, 2)
    big = segment(f.ACK, os.urandom(60_000))
    for _ in range(20):
        taps.a.send_gso(big, header=54, mss=1448, csum_start=34)
        size, frame = taps.b.receive_gso()
        assert (size, len(frame)) == (1448, len(big))
        assert frame[54:] == big[54:]
    held = [item for item in taps.driver.connections(B) if item.protocol == "tcp"]
    assert [(item.state, item.ingress_packets) for item in held] == [("established", 22)]
    assert held[0].ingress_bytes == 20 * len(big) + 2 * len(segment(f.ACK))
    assert taps.drops() == taps.drops(B) == {}
    taps.driver.destroy()


@private
def test_datapath_taps_wake_by_their_guests_frame(bpffs: str) -> None:
    taps = Taps(bpffs)
    for role in (Role.STANDBY, Role.MOVED):
        taps.set_port(B, role=role)
        taps.a.send(arp(VM, VM4, B4))
        taps.a.send(udp(1))
        taps.far.send(arp(FAR, "10.0.0.9", B4))
        # They are for the host where the VM runs.
        assert taps.far.drain() == [arp(VM, VM4, B4), udp(1)]
        assert taps.b.drain() == []
        assert taps.role(B) is role
        taps.b.send(udp(1, mac=FAR))  # not the guest's
        assert taps.role(B) is role
        taps.b.send(arp(MAC_B, "0.0.0.0", B4))
        assert taps.role(B) is Role.ACTIVE
        taps.a.drain()
        taps.far.drain()
        taps.a.send(arp(VM, VM4, B4))
        taps.a.send(udp(1))
        taps.far.send(arp(FAR, "10.0.0.9", B4))
        assert taps.b.drain() == [arp(VM, VM4, B4), udp(1), arp(FAR, "10.0.0.9", B4)]
        assert taps.far.drain() == [arp(VM, VM4, B4)]
        taps.a.drain()
    taps.driver.destroy()


@private
def test_datapath_taps_stay_guarded_when_programs_cannot_be_replaced(bpffs: str) -> None:
    taps = Taps(bpffs)
    taps.driver.close()
    # A filter of another kind has our place on one side.
    here = ["dev", "a", "egress", "prio", "1"]
    subprocess.run(["tc", "filter", "del", *here], check=True)
    theirs = ["protocol", "all", "u32", "match", "u32", "0", "0"]
    subprocess.run(["tc", "filter", "add", *here, *theirs], check=True)
    taps.driver.open()
    assert {item.ifindex for item in taps.driver.ports()} == {taps.a.ifindex, taps.b.ifindex}
    taps.driver.close()
    taps.a.send(udp(1, mac=FAR))
    subprocess.run(["tc", "filter", "del", *here], check=True)
    taps.driver.open()
    assert taps.drops(A) == {"mac-spoof": 1}
    taps.a.send(udp(1))
    assert taps.b.drain() == [udp(1)]
    taps.driver.destroy()


def filters(tap: Tap) -> str:
    return "".join(
        subprocess.run(
            ["tc", "filter", "show", "dev", tap.name, side],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for side in ("ingress", "egress")
    )


@private
def test_datapath_taps_are_left_as_they_were(bpffs: str) -> None:
    taps = Taps(bpffs)
    assert "vnet_tc" in filters(taps.a)
    taps.driver.detach(A)
    assert filters(taps.a) == ""
    taps.b.send(f.ether(MAC_B, VM, f.IPV4, f.ipv4(B4, VM4, f.UDP, f.udp(7, 7))))
    assert taps.a.drain() == []
    assert len(taps.far.drain()) == 1
    # Another uplink takes the place of the first, which is nobody's business any more.
    other = Tap("other")
    taps.driver.attach_uplink(other.ifindex, network=0)
    assert filters(taps.far) == ""
    taps.b.send(arp(MAC_B, B4, VM4))
    assert (len(other.drain()), taps.far.drain()) == (1, [])
    taps.driver.destroy()
    assert filters(taps.b) == filters(other) == ""


@private
def test_datapath_taps_keep_the_filters_of_others(bpffs: str) -> None:
    """Of the number that most programs take, before and after ours; they see what passes."""
    taps = Taps(bpffs)
    taps.driver.detach(B)
    for side in ("ingress", "egress"):
        subprocess.run(
            [
                *("tc", "filter", "add", "dev", "b", side, "prio", "1", "handle", "1"),
                *("protocol", "all", "bpf", "bytecode", "1,6 0 0 4294967295,"),
            ],
            check=True,
        )
    theirs = filters(taps.b)
    assert theirs.count("bytecode") == 2
    taps.driver.attach(B, taps.b.ifindex)
    assert filters(taps.b).count("bytecode") == 2
    taps.a.send(udp(1))
    assert taps.b.drain() == [udp(1)]
    assert taps.driver.counters(B).rx_frames == 1
    taps.b.send(udp(1, mac=FAR))
    assert taps.drops(B) == {"mac-spoof": 1}
    taps.driver.detach(B)
    assert filters(taps.b) == theirs
    taps.driver.destroy()
    assert filters(taps.b) == theirs
