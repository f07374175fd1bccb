"""Limits and marks by the programs in the kernel, on real frames.

The limits are so low that the next large frame would pass minutes after the burst: what passes of
a handful does not depend on how fast the machine is, nor on what its kernel says in between.
"""

import contextlib
import select
import socket
import threading

import datapath_keeper
from datapath_world import Place, eventually, private
from test_datapath_traffic import PORT_A, PORT_B, World

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.captured import CaptureRequest
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import Direction, Limit, Policy

IN, OUT = Direction.INGRESS, Direction.EGRESS
UDP_SEGMENT = 103
#: Of one frame, before it is cut.
SEGMENTS, SIZE = 20, 1000


def limit(driver: EbpfDriver, port: str, *limits: Limit) -> None:
    policy = Policy(rules=datapath_keeper.POLICY.rules, limits=limits)
    driver.set_policy(port, policy)


def received(sock: socket.socket) -> int:
    """How many datagrams are there."""
    count = 0
    while select.select([sock], [], [], 0.3)[0]:
        sock.recv(65536)
        count += 1
    return count


def send(source: Place, address: str, count: int) -> None:
    """Large frames, each of SEGMENTS datagrams."""
    with source.udp() as sock:
        sock.setsockopt(socket.SOL_UDP, UDP_SEGMENT, SIZE)
        for _ in range(count):
            sock.sendto(b"x" * SIZE * SEGMENTS, (address, 7001))


def slow(direction: Direction) -> Limit:
    return Limit(direction=direction, max_kbps=1, burst_kbits=40)


@private
def test_datapath_limits_each_way_through_it(bpffs: str) -> None:
    world = World(bpffs)
    driver = world.driver()
    inner, outer = world.b.udp("10.9.0.2", 7001), world.outside.udp("10.9.0.9", 7001)
    # Neighbours are known before anything is counted.
    assert world.a.ping("10.9.0.2")
    assert world.a.ping("10.9.0.9")
    assert world.outside.ping("10.9.0.2")
    for port, direction, source, sock, address in (
        (PORT_A, OUT, world.a, outer, "10.9.0.9"),  # by the sender's program, to the uplink
        (PORT_A, OUT, world.a, inner, "10.9.0.2"),
        (PORT_B, IN, world.a, inner, "10.9.0.2"),  # by the sender's program, for the receiver
        (PORT_B, IN, world.outside, inner, "10.9.0.2"),  # by the receiver's program
    ):
        before = driver.counters(port).drops.get("rate", 0)
        send(source, address, 10)
        assert received(sock) == 10 * SEGMENTS
        limit(driver, port, slow(direction))
        capture = driver.capture(
            [port], CaptureRequest(drops_only=True, protocol="udp"), size=1 << 20
        )
        with contextlib.closing(capture) as running:
            send(source, address, 10)
            assert received(sock) == SEGMENTS
            frames = running.read()
        assert [frame.reason for frame in frames] == ["rate"] * 9
        assert {frame.egress for frame in frames} == {direction is OUT}
        assert driver.counters(port).drops["rate"] >= before + 9
        limit(driver, port)
        send(source, address, 10)
        assert received(sock) == 10 * SEGMENTS
    assert driver.kernel.table_items(c.TABLE_METERS) == []
    driver.destroy()


@private
def test_datapath_counts_a_large_frame_as_its_segments(bpffs: str) -> None:
    world = World(bpffs)
    driver = world.driver()
    sock = world.b.udp("10.9.0.2", 7001)
    assert world.a.ping("10.9.0.2")
    for allowed, passes in ((70, 4), (6, 1)):
        # One passes while anything is left, and counts as SEGMENTS.
        limit(driver, PORT_B, Limit(direction=IN, max_pps=1, burst_packets=allowed))
        send(world.a, "10.9.0.2", 6)
        assert received(sock) == passes * SEGMENTS
    driver.destroy()


@private
def test_datapath_limits_outlive_the_agent(bpffs: str) -> None:
    world = World(bpffs)
    driver = world.driver()
    outer = world.outside.udp("10.9.0.9", 7001)
    assert world.a.ping("10.9.0.9")
    limit(driver, PORT_A, slow(OUT))
    driver.close()
    send(world.a, "10.9.0.9", 10)
    assert received(outer) == SEGMENTS
    driver.open()
    # The same limit again is no new burst.
    limit(driver, PORT_A, slow(OUT))
    send(world.a, "10.9.0.9", 10)
    assert received(outer) == 0
    assert driver.counters(PORT_A).drops["rate"] >= 19
    driver.destroy()


def marks(sock: socket.socket) -> int:
    """The DS field that the next datagram came with."""
    sock.settimeout(5)
    (cmsg,) = sock.recvmsg(2048, 64)[1]
    return cmsg[2][0]


@private
def test_datapath_marks_packets(bpffs: str) -> None:
    world = World(bpffs)
    driver = world.driver()
    for address in ("10.9.0.2", "fd00::2", "10.9.0.9", "fd00::9"):
        eventually(lambda there=address: world.a.ping(there), "neighbours are known")
    socks = {}
    for place, addresses in (
        (world.b, ("10.9.0.2", "fd00::2")),
        (world.outside, ("10.9.0.9", "fd00::9")),
    ):
        for address in addresses:
            socks[address] = place.udp(address, 7001) if "." in address else udp6(place, address)
            level, option = (
                (socket.IPPROTO_IP, socket.IP_RECVTOS)
                if "." in address
                else (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS)
            )
            socks[address].setsockopt(level, option, 1)

    def ds(address: str, sent: int) -> int:
        sender = world.a.udp() if "." in address else udp6(world.a, "fd00::1", 0)
        with sender:
            if "." in address:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, sent)
            else:
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, sent)
            sender.sendto(b"x", (address, 7001))
        return marks(socks[address])

    assert {address: ds(address, 0x29) for address in socks} == dict.fromkeys(socks, 0x29)
    limit(driver, PORT_A, Limit(direction=OUT, dscp_mark=46))
    # ECN is left as it was; a wrong checksum would not have come through.
    assert {address: ds(address, 0x29) for address in socks} == dict.fromkeys(socks, 46 << 2 | 1)
    limit(driver, PORT_B, Limit(direction=IN, dscp_mark=0))
    assert ds("10.9.0.2", 0x29) == ds("fd00::2", 0x29) == 1
    assert ds("10.9.0.9", 0x29) == ds("fd00::9", 0x29) == 46 << 2 | 1
    driver.destroy()


def udp6(place: Place, address: str, port: int = 7001) -> socket.socket:
    with place.inside():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind((address, port))
        return sock


@private
def test_datapath_limit_lets_tcp_live(bpffs: str) -> None:
    """A connection through a limit is slow and whole."""
    world = World(bpffs)
    driver = world.driver()
    limit(driver, PORT_A, Limit(direction=IN, max_kbps=80_000, burst_kbits=800))
    server = world.a.listen(7000)
    client = world.outside.connect("10.9.0.1", 7000)
    accepted, _ = server.accept()
    accepted.settimeout(30)
    data = bytes(range(256)) * 8000
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        got += accepted.recv(1 << 20)
    sender.join()
    assert bytes(got) == data
    assert driver.counters(PORT_A).drops.get("rate", 0) > 0
    driver.destroy()
