"""Tagged and untagged networks on one uplink, through the kernel's programs and real taps."""

import os
import subprocess

import frames as f
import network_bench as n
from datapath_taps import GSO_TCPV4, NEEDS_CSUM, Tap
from datapath_world import private
from network_bench import FAR, FLAT, RED, VLANS, A, B, datagram

from vnet_agent.datapath.ebpf import EbpfDriver

NETWORKS = {FLAT: None, RED: 100, n.BLUE: 200}


class Trunk:
    """Each network has VMs a and b, with the same MACs and addresses; `far` is the uplink."""

    def __init__(self, bpffs: str) -> None:
        self.driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=16)
        self.driver.open()
        self.far = Tap("far")
        self.taps: dict[tuple[int, str], Tap] = {}
        for network in NETWORKS:
            for mac in (A, B):
                tap = self.taps[network, mac] = Tap(f"t{n.tap(network, mac)}")
                n.set_port(self.driver, network, mac)
                self.driver.attach(n.port_name(network, mac), tap.ifindex)
        self.driver.attach_uplink(self.far.ifindex, network=FLAT, vlans=VLANS)

    def arrived(self) -> dict:
        """What has come to whom since; nothing where nothing came."""
        received = {key: tap.drain(0.05) for key, tap in self.taps.items()}
        received["far"] = self.far.drain(0.05)
        return {key: frames for key, frames in received.items() if frames}

    def drops(self, network: int, mac: str = A) -> dict[str, int]:
        return self.driver.counters(n.port_name(network, mac)).drops


def on_wire(network: int, frame: bytes) -> bytes:
    vlan = NETWORKS[network]
    return frame if vlan is None else f.tagged(frame, vlan)


@private
def test_datapath_vlan_keeps_networks_apart(bpffs: str) -> None:
    trunk = Trunk(bpffs)
    for network in NETWORKS:
        sender = trunk.taps[network, A]
        sender.send(datagram(A, B))
        assert trunk.arrived() == {(network, B): [datagram(A, B)]}
        sender.send(datagram(A, FAR))
        assert trunk.arrived() == {"far": [on_wire(network, datagram(A, FAR))]}
        request = f.ether(A, n.BROADCAST, f.ARP, f.arp(A, n.A4, n.B4))
        sender.send(request)
        assert trunk.arrived() == {(network, B): [request], "far": [on_wire(network, request)]}
        # And from outside.
        trunk.far.send(on_wire(network, datagram(FAR, B)))
        assert trunk.arrived() == {(network, B): [datagram(FAR, B)]}
        shout = datagram(FAR, n.BROADCAST)
        trunk.far.send(on_wire(network, shout))
        assert trunk.arrived() == {(network, A): [shout], (network, B): [shout]}
        # What a switch sends back.
        trunk.far.send(on_wire(network, datagram(A, n.BROADCAST)))
        assert trunk.arrived() == {(network, B): [datagram(A, n.BROADCAST)]}
    trunk.driver.destroy()


@private
def test_datapath_vlan_knows_its_own_tags_only(bpffs: str) -> None:
    trunk = Trunk(bpffs)
    frame = datagram(FAR, A)
    trunk.far.send(f.tagged(frame, 0xE000))
    assert trunk.arrived() == {(FLAT, A): [frame]}
    trunk.far.send(f.tagged(frame, 0x7000 | 100))
    assert trunk.arrived() == {(RED, A): [frame]}
    for stray in (f.tagged(frame, 7), f.tagged(frame, 100, 0x88A8)):
        trunk.far.send(stray)
        assert trunk.arrived() == {}
    # Tags behind the network's own come to the tap, and no further.
    for inner in (f.VLAN, 0x88A8):
        trunk.far.send(f.tagged(f.tagged(frame, 5, inner), 100))
        trunk.far.send(f.tagged(f.tagged(datagram(FAR, n.BROADCAST), 100, inner), 100))
        assert trunk.arrived() == {}
    assert (trunk.drops(RED), trunk.drops(RED, B)) == ({"vlan": 4}, {"vlan": 2})
    # A VM's own tags lead nowhere, not even into its own network.
    for tci in (0, 100, 200):
        trunk.taps[RED, A].send(f.tagged(datagram(A, B), tci))
        trunk.taps[RED, A].send(f.tagged(datagram(A, n.BROADCAST), tci))
    assert trunk.arrived() == {}
    assert trunk.drops(RED) == {"vlan": 10}
    # Without an untagged network nothing untagged is the VMs'.
    trunk.driver.attach_uplink(trunk.far.ifindex, vlans=VLANS)
    for stray in (frame, f.tagged(frame, 0), datagram(FAR, n.BROADCAST)):
        trunk.far.send(stray)
    assert trunk.arrived() == {}
    trunk.driver.destroy()


@private
def test_datapath_vlan_leaves_the_host_its_frames_as_they_came(bpffs: str) -> None:
    """A filter behind ours sees a broadcast with its tags and priority, members without."""
    trunk = Trunk(bpffs)
    host = Tap("host")
    subprocess.run(
        [
            *("tc", "filter", "add", "dev", "far", "ingress", "prio", "2", "protocol", "all"),
            *("bpf", "bytecode", "1,6 0 0 4294967295,"),
            *("action", "mirred", "egress", "redirect", "dev", "host"),
        ],
        check=True,
    )
    shout = datagram(FAR, n.BROADCAST)
    for network, tag in ((RED, 0x7000 | 100), (FLAT, 0xE000)):
        trunk.far.send(f.tagged(shout, tag))
        assert trunk.arrived() == {(network, A): [shout], (network, B): [shout]}
        assert host.drain() == [f.tagged(shout, tag)]
    double = f.tagged(f.tagged(shout, 5), 100)
    for other in (double, f.tagged(shout, 7), f.tagged(datagram(FAR, FAR), 100)):
        trunk.far.send(other)
        assert host.drain() == [other]
    assert trunk.arrived() == {}
    trunk.driver.destroy()


@private
def test_datapath_vlan_carries_segments_uncut(bpffs: str) -> None:
    """60 kB with cutting and checksum left to the receiver, out and in through a tag."""
    trunk = Trunk(bpffs)
    vm = trunk.taps[RED, A]

    def segment(source: str, target: str, ports: tuple[int, int], flags: int, data: bytes = b""):
        addresses = (n.A4, "10.0.0.9") if source == A else ("10.0.0.9", n.A4)
        return f.ether(
            source, target, f.IPV4, f.ipv4(*addresses, f.TCP, f.tcp(*ports, flags, data))
        )

    vm.send(segment(A, FAR, (999, 80), f.SYN))
    trunk.far.send(f.tagged(segment(FAR, A, (80, 999), f.SYN | f.ACK), 100))
    vm.send(segment(A, FAR, (999, 80), f.ACK))
    assert (len(vm.drain()), len(trunk.far.drain())) == (1, 2)
    out = segment(A, FAR, (999, 80), f.ACK, os.urandom(60_000))
    into = segment(FAR, A, (80, 999), f.ACK, os.urandom(60_000))
    for _ in range(5):
        vm.send_gso(out, header=54, mss=1448, csum_start=34)
        # The header's length is a hint, which the kernel makes without the tag.
        (*kind, _, mss, start, at), frame = trunk.far.receive_offload()
        assert (kind, mss, start, at) == ([NEEDS_CSUM, GSO_TCPV4], 1448, 38, 16)
        assert frame == f.tagged(out, 100)
        trunk.far.send_gso(f.tagged(into, 100), header=58, mss=1448, csum_start=38)
        (*kind, _, mss, start, at), frame = vm.receive_offload()
        assert (kind, mss, start, at) == ([NEEDS_CSUM, GSO_TCPV4], 1448, 34, 16)
        assert frame == into
    assert trunk.drops(RED) == {}
    trunk.driver.destroy()
