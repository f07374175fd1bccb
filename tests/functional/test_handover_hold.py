"""Frames that wait, in the kernel: from whom they come, how they look, and that they go on."""

import frames as f
from datapath_bench import VM4
from datapath_world import private
from test_datapath_taps import B4, FAR, MAC_B, VM, B, Taps, arp, udp

from vnet_agent.handover.frame import PLAIN
from vnet_agent.handover.links import WaitingRoom
from vnet_agent.handover.sender import TapSender
from vnet_agent.model.policy import DENY_ALL
from vnet_agent.model.port import Role


def held(taps: Taps) -> tuple[WaitingRoom, TapSender]:
    room = WaitingRoom("b", 100)
    taps.driver.holding(B).begin(room.ifindex)
    taps.driver.holding(B).extend(60)
    return room, TapSender("b")


def waiting(room: WaitingRoom) -> list[bytes]:
    return [frame[len(PLAIN) :] for frame in room.read(100)]


@private
def test_neighbour_and_outside(bpffs: str) -> None:
    """Judged and counted once, when it goes on; a neighbour says nothing of the way here."""
    taps = Taps(bpffs)
    room, sender = held(taps)
    taps.a.send(udp(1))
    assert taps.b.drain() == []
    assert waiting(room) == [udp(1)]
    assert not taps.driver.holding(B).seen_outside()
    assert taps.driver.counters(B).rx_frames == 0
    everywhere = arp(FAR, "10.0.0.9", B4)
    taps.far.send(everywhere)
    assert waiting(room) == [everywhere]
    assert not taps.driver.holding(B).seen_outside()
    taps.far.send(udp(2, mac=FAR))
    assert waiting(room) == [udp(2, mac=FAR)]
    assert taps.driver.holding(B).seen_outside()
    assert taps.driver.holding(B).held() == 3
    for frame in (udp(1), udp(2, mac=FAR)):
        assert sender.send(PLAIN + frame)
        assert taps.b.receive() == frame
    assert taps.driver.counters(B).rx_frames == 2
    assert taps.driver.counters(B).connections == 2


@private
def test_policy_is_that_of_the_moment_when_they_go_on(bpffs: str) -> None:
    taps = Taps(bpffs)
    room, sender = held(taps)
    taps.a.send(udp(1))
    taps.driver.set_policy(B, DENY_ALL)
    assert waiting(room) == [udp(1)]
    assert sender.send(PLAIN + udp(1))
    assert taps.b.drain() == []
    assert taps.drops(B) == {"policy": 1}


@private
def test_broadcast_waits_too(bpffs: str) -> None:
    taps = Taps(bpffs)
    room, _ = held(taps)
    question = f.ether(FAR, "ff:ff:ff:ff:ff:ff", f.ARP, f.arp(FAR, "10.0.0.9", B4))
    taps.far.send(question)
    assert taps.a.receive() == question
    assert waiting(room) == [question]
    assert taps.b.drain() == []


@private
def test_long_frames_stay_whole(bpffs: str) -> None:
    """With checksum and segmentation as they are: to be made by whoever has the means."""
    taps = Taps(bpffs)
    room, sender = held(taps)
    segment = f.tcp(1, 7, flags=f.ACK, payload=b"x" * 4000)
    packet = f.ether(VM, MAC_B, f.IPV4, f.ipv4(VM4, B4, f.TCP, segment))
    taps.a.send_gso(packet, header=54, mss=1000, csum_start=34)
    taps.driver.set_port(
        B, instance=B, mac=MAC_B, addresses=(B4,), network=0, bridged=False,
        role=Role.ACTIVE, generation=1, quota=1000, port_security=False,
    )  # fmt: skip
    (frame,) = room.read(10)
    assert sender.send(frame)
    assert taps.b.receive_gso() == (1000, packet)


@private
def test_straight_again_without_an_agent(bpffs: str) -> None:
    """An agent that died in the middle: its interface is gone, and its time runs out."""
    taps = Taps(bpffs)
    room, _ = held(taps)
    taps.driver.holding(B).extend(0.2)
    room.close()
    taps.a.send(udp(1))
    assert taps.b.drain(0.4) == []
    taps.a.send(udp(2))
    assert taps.b.receive() == udp(2)


@private
def test_late_frames_reach_the_tap_of_a_port_that_moved(bpffs: str) -> None:
    taps = Taps(bpffs)
    taps.set_port(B, role=Role.MOVED)
    taps.far.send(udp(1, mac=FAR))
    assert taps.b.drain() == []
    taps.driver.holding(B).relay(wanted=True)
    taps.far.send(udp(2, mac=FAR))
    assert taps.b.receive() == udp(2, mac=FAR)
    taps.a.send(udp(3))
    assert taps.far.receive() == udp(3)
    assert taps.driver.holding(B).seen_outside() is False
    taps.far.send(f.ether(MAC_B, "ff:ff:ff:ff:ff:ff", f.RARP, bytes(46)))
    assert taps.driver.holding(B).seen_outside() is True
