"""Answers for known neighbours from the kernel: byte for byte the core's, and good for Linux."""

import contextlib
import os
import socket
import subprocess

import frames as f
import network_bench as n
from datapath_taps import GSO_TCPV4, NEEDS_CSUM, Tap
from datapath_world import Place, eventually, private
from network_bench import A4, A6, B4, B6, RED, A, B, arp, datagram, solicit

from vnet_agent.datapath.captured import CaptureRequest
from vnet_agent.datapath.ebpf import EbpfDriver

QUESTIONS = {
    "arp": arp(A4, B4),
    "padded": arp(A4, B4) + bytes(18),
    "long": arp(A4, B4) + b"x" * 1000,
    "probe": arp("0.0.0.0", B4),
    "solicitation": solicit(A6, B6),
    "no option": solicit(A6, B6, option=None),
    "options": solicit(A6, B6, more=b"\x0e\2" + b"n" * 14),
    "trailer": solicit(A6, B6) + b"y" * 1000,
}


def open_driver(bpffs: str, *, answers: bool = True) -> EbpfDriver:
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=16, answers=answers)
    driver.open()
    return driver


class Pair:
    """VMs a and b of one network, and an uplink where the network is tagged."""

    def __init__(self, bpffs: str) -> None:
        self.driver = open_driver(bpffs)
        self.a, self.b, self.far = Tap("a"), Tap("b"), Tap("far")
        for mac, tap in ((A, self.a), (B, self.b)):
            n.set_port(self.driver, RED, mac)
            self.driver.attach(n.port_name(RED, mac), tap.ifindex)
        self.driver.attach_uplink(self.far.ifindex, vlans={100: RED})


@private
def test_datapath_neighbours_are_answered_as_the_core_does(bpffs: str) -> None:
    pair, native = Pair(bpffs), n.make_driver(answers=True)
    # Somebody who looks on makes the kernel share the frame's bytes.
    onlooker = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    onlooker.bind(("a", 0))
    onlooker.settimeout(5)
    for name, question in QUESTIONS.items():
        ((_, reply),) = n.run(native, n.tap(RED, A), question)
        pair.a.send(question)
        assert pair.a.receive() == reply, name
        assert onlooker.recv(2000) == question, name
        assert onlooker.recv(2000) == reply, name
    assert (pair.b.drain(), pair.far.drain()) == ([], [])
    counters = pair.driver.counters(n.port_name(RED, A))
    assert (counters.tx_frames, counters.rx_frames) == (len(QUESTIONS), len(QUESTIONS))
    assert counters.drops == {}
    pair.driver.destroy()


@private
def test_datapath_neighbours_captured_are_question_and_answer(bpffs: str) -> None:
    pair = Pair(bpffs)
    running = pair.driver.capture([n.port_name(RED, A)], CaptureRequest(), size=1 << 16)
    outside = datagram(A, n.FAR)
    for frame in (arp(A4, B4), solicit(A6, B6), outside):
        pair.a.send(frame)
    assert pair.far.receive() == f.tagged(outside, 100)
    replies = [pair.a.receive(), pair.a.receive()]
    # The tag is the uplink's, and not in what the VM sent.
    assert [(seen.verdict, seen.data) for seen in running.read()] == [
        ("answer", arp(A4, B4)),
        ("deliver", replies[0]),
        ("answer", solicit(A6, B6)),
        ("deliver", replies[1]),
        ("forward", outside),
    ]
    running.close()
    pair.driver.destroy()


@private
def test_datapath_neighbours_that_are_not_known_are_asked_for(bpffs: str) -> None:
    pair = Pair(bpffs)
    for question in (arp(A4, "10.0.0.77"), arp(A4, A4), arp("0.0.0.0", A4), solicit("::", A6)):
        pair.a.send(question)
        assert pair.b.drain(0.05) == [question]
        assert pair.far.drain(0.05) == [f.tagged(question, 100)]
    pair.a.send(arp(A4, B4, target=B))
    assert pair.b.drain(0.05) == [arp(A4, B4, target=B)]
    # An agent that comes back and does not answer any more.
    for answers in (False, True):
        pair.driver.close()
        pair.driver = open_driver(bpffs, answers=answers)
        n.set_port(pair.driver, RED, A)
        pair.a.send(arp(A4, B4))
        assert [len(tap.drain(0.05)) for tap in (pair.a, pair.b)] == [answers, not answers]
        pair.far.drain(0.05)
    pair.driver.remove_port(n.port_name(RED, B), generation=1)
    pair.a.send(arp(A4, B4))
    assert pair.far.drain(0.05) == [f.tagged(arp(A4, B4), 100)]
    assert pair.a.drain(0.05) == []
    pair.driver.destroy()


@private
def test_datapath_neighbours_hurt_nobody_with_odd_offloads(bpffs: str) -> None:
    """A guest may claim that a checksum or segments are still to be made, anywhere."""
    pair = Pair(bpffs)
    taken = 0
    for question in (arp(A4, B4) + b"x" * 200, solicit(A6, B6) + b"x" * 200):
        for start in (0, 14, 34, 54, 84, 200):
            partial = bytes([NEEDS_CSUM, 0, 54, 0, 0, 0, start, 0, 2, 0])
            segments = bytes([NEEDS_CSUM, GSO_TCPV4, 54, 0, 100, 0, start, 0, 16, 0])
            for header in (partial, segments):
                with contextlib.suppress(OSError):  # the kernel itself refuses some
                    os.write(pair.a.fd, header + question)
                    taken += 1
    assert taken > 6
    assert (pair.b.drain(), pair.far.drain()) == ([], [])
    pair.a.drain()
    # Life goes on.
    pair.a.send(datagram(A, B))
    assert pair.b.drain() == [datagram(A, B)]
    pair.driver.destroy()


def neighbours(place: Place) -> str:
    with place.inside():
        done = subprocess.run(["ip", "neigh"], capture_output=True, text=True, check=True)
    return done.stdout


@private
def test_datapath_neighbours_satisfy_linux(bpffs: str) -> None:
    """Its own stack asks; nobody is there to answer but the datapath."""
    driver = open_driver(bpffs)
    a, b = Place("a", A, f"{A4}/24", f"{A6}/64"), Tap("b")
    n.set_port(driver, RED, A)
    n.set_port(driver, RED, B)
    driver.attach(n.port_name(RED, A), a.ifindex)
    driver.attach(n.port_name(RED, B), b.ifindex)
    for address in (B4, B6):
        a.ping(address)
        eventually(
            lambda address=address: any(
                line.startswith(f"{address} ") and B in line and "REACHABLE" in line
                for line in neighbours(a).splitlines()
            ),
            neighbours(a),
        )
    frames = b.drain()
    assert [frame for frame in frames if frame[38:42] == f.address(B4)] == []
    assert [frame for frame in frames if frame[62:78] == f.address(B6)] == []
    # And it sees that an address is taken, where it may ask for any.
    n.set_port(driver, RED, A, addresses=())
    with a.inside():
        subprocess.run(["ip", "addr", "add", f"{B6}/64", "dev", "eth0"], check=True)

    def duplicate() -> bool:
        with a.inside():
            shown = subprocess.run(
                ["ip", "addr", "show", "dev", "eth0"], capture_output=True, text=True, check=True
            )
        return any(B6 in line and "dadfailed" in line for line in shown.stdout.splitlines())

    eventually(duplicate, "the duplicate was seen")
    driver.destroy()
