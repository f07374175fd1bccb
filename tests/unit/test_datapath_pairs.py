"""Allowed address pairs: what a port may use besides its own, and where a shared MAC is."""

import frames as f
import pytest
from datapath_bench import INSTANCE, PEER4, UPLINK, Bench

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.exceptions import DatapathError
from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import AddressPair, Role

A, B, CLIENT = (f"11111111-0000-4000-8000-00000000000{digit}" for digit in "abc")
MACS = {A: "52:54:00:00:00:0a", B: "52:54:00:00:00:0b", CLIENT: "52:54:00:00:00:0c"}
ADDRESSES = {A: "10.0.0.10", B: "10.0.0.11", CLIENT: "10.0.0.12"}
TAPS = {A: 10, B: 11, CLIENT: 12}
#: Of a virtual router (RFC 9568).
VIRTUAL, VIP = "00:00:5e:00:01:07", "10.0.0.1"
PAIR = AddressPair(ip_address=f"{VIP}/32", mac_address=VIRTUAL)
BROADCAST = "ff:ff:ff:ff:ff:ff"


class Network:
    """Two routers and a client on one host."""

    def __init__(self) -> None:
        self.driver = MemoryDriver(max_ports=8)
        self.driver.open()
        self.driver.native.set_clock(1000 * 10**9)
        for port in (A, B, CLIENT):
            self.set_port(port, (PAIR,) if port != CLIENT else ())
            self.driver.set_policy(port, ALLOW_ALL)
            self.driver.attach(port, TAPS[port])
        self.driver.attach_uplink(UPLINK, network=0)

    def set_port(self, port: str, pairs: tuple[AddressPair, ...]) -> None:
        self.driver.set_port(
            port,
            instance=INSTANCE,
            mac=MACS[port],
            addresses=(ADDRESSES[port],),
            network=0,
            bridged=False,
            role=Role.ACTIVE,
            generation=1,
            quota=100,
            pairs=pairs,
        )

    def send(self, port: str, frame: bytes) -> tuple[str, tuple[int, ...]]:
        _, reason, outs = self.driver.native.process(c.FROM_PORT, TAPS[port], frame)
        return c.REASONS[reason], outs

    def announce(self, port: str, mac: str = VIRTUAL, address: str = VIP) -> str:
        """A gratuitous ARP, by which a router takes over."""
        return self.send(port, f.ether(mac, BROADCAST, f.ARP, f.arp(mac, address, address)))[0]

    def reach(self) -> tuple[int, ...]:
        """Where the client's frame to the virtual router goes."""
        packet = f.ipv4(ADDRESSES[CLIENT], VIP, f.UDP, f.udp(1000, 7))
        reason, outs = self.send(CLIENT, f.ether(MACS[CLIENT], VIRTUAL, f.IPV4, packet))
        assert reason == "none"
        return outs

    def deliver(self, port: str) -> str:
        packet = f.ipv4(ADDRESSES[CLIENT], VIP, f.UDP, f.udp(1000, 7))
        frame = f.ether(MACS[CLIENT], VIRTUAL, f.IPV4, packet)
        return c.REASONS[self.driver.native.process(c.TO_PORT, TAPS[port], frame)[1]]

    def answer(self, port: str, mac: str = VIRTUAL, address: str = VIP) -> str:
        packet = f.ipv4(address, ADDRESSES[CLIENT], f.UDP, f.udp(7, 1000))
        return self.send(port, f.ether(mac, MACS[CLIENT], f.IPV4, packet))[0]


def test_a_virtual_router_is_where_it_spoke_last() -> None:
    net = Network()
    assert net.reach() == (UPLINK,), "nobody here has spoken for it"
    for master, backup in ((A, B), (B, A), (A, B)):
        assert net.announce(master) == "none"
        assert net.reach() == (TAPS[master],)
        assert net.deliver(master) == "none"
        assert net.deliver(backup) == "other-mac"
        assert net.answer(master) == "none"
    # Without ARP, too: any frame tells where it is.
    assert net.answer(B) == "none"
    assert net.reach() == (TAPS[B],)


def test_it_is_elsewhere_once_it_speaks_there() -> None:
    net = Network()
    net.announce(A)
    frame = f.ether(VIRTUAL, BROADCAST, f.ARP, f.arp(VIRTUAL, VIP, VIP))
    net.driver.native.process(c.FROM_UPLINK, UPLINK, frame)
    assert net.reach() == (UPLINK,)
    # A port's own MAC stays, whatever comes from outside.
    own = f.ether(MACS[A], BROADCAST, f.ARP, f.arp(MACS[A], VIP, VIP))
    net.driver.native.process(c.FROM_UPLINK, UPLINK, own)
    packet = f.ipv4(ADDRESSES[CLIENT], ADDRESSES[A], f.UDP, f.udp(1, 2))
    sent = net.send(CLIENT, f.ether(MACS[CLIENT], MACS[A], f.IPV4, packet))
    assert sent == ("none", (TAPS[A],))


def test_who_has_no_such_pair_takes_nothing_over() -> None:
    net = Network()
    net.announce(A)
    assert net.announce(CLIENT) == "mac-spoof"
    assert net.announce(CLIENT, mac=MACS[CLIENT]) == "arp-spoof"
    assert net.answer(CLIENT) == "mac-spoof"
    assert net.reach() == (TAPS[A],)
    # Nor does a pair lend its MAC to another address, or its address to another MAC.
    assert net.announce(B, address="10.0.0.2") == "arp-spoof"
    assert net.announce(B, mac=MACS[B]) == "arp-spoof"
    assert net.answer(B, address="10.0.0.2") == "mac-spoof"
    assert net.answer(B, mac=MACS[B]) == "ip-spoof"
    assert net.reach() == (TAPS[A],)


def test_nobody_takes_a_ports_own_mac_by_a_pair() -> None:
    net = Network()
    net.set_port(B, (AddressPair(ip_address="10.0.0.0/24", mac_address=MACS[CLIENT]),))
    assert net.answer(B, mac=MACS[CLIENT], address="10.0.0.99") == "none"
    packet = f.ipv4(ADDRESSES[A], ADDRESSES[CLIENT], f.UDP, f.udp(1, 2))
    sent = net.send(A, f.ether(MACS[A], MACS[CLIENT], f.IPV4, packet))
    assert sent == ("none", (TAPS[CLIENT],))


def test_what_is_allowed_no_more_ends_at_once() -> None:
    net = Network()
    net.announce(A)
    net.reach()
    assert net.deliver(A) == net.answer(A) == "none"
    net.set_port(A, ())
    assert net.reach() == (UPLINK,)
    assert net.deliver(A) == "other-mac"
    assert net.answer(A) == "mac-spoof"
    assert net.driver.native.table_items(c.TABLE_PAIRS) != [], "B's are still there"
    net.driver.remove_port(B, generation=1)
    assert net.driver.native.table_items(c.TABLE_PAIRS) == []


@pytest.mark.parametrize("known", [True, False])
def test_prefixes_are_for_the_ports_own_mac_too(known: bool) -> None:
    """As behind a VM that routes: pods, or a load balancer's addresses."""
    pods = AddressPair(ip_address="172.16.0.0/22", mac_address="52:54:00:00:00:01")
    bench = Bench(addresses=("10.0.0.1",) if known else (), pairs=(pods,))
    for source, reason in (
        ("172.16.0.0", ""),
        ("172.16.3.255", ""),
        ("172.16.4.0", "ip-spoof" if known else ""),
        ("10.0.0.1", ""),
    ):
        assert bench.out(f.ipv4(source, PEER4, f.UDP, f.udp(1, 2))) == reason
    assert bench.into(f.ipv4(PEER4, "172.16.2.9", f.UDP, f.udp(3, 4))) == ""
    refused = "other-address" if known else ""
    assert bench.into(f.ipv4(PEER4, "172.16.9.9", f.UDP, f.udp(3, 4))) == refused


def test_pairs_are_there_after_a_restart() -> None:
    net = Network()
    more = (PAIR, AddressPair(ip_address="2001:db8:7::/48", mac_address=MACS[A]))
    net.set_port(A, more)
    net.announce(A)
    net.driver.close()
    net.driver.open()
    assert [entry.pairs for entry in net.driver.ports()] == [more, (PAIR,), ()]
    assert net.reach() == (TAPS[A],)
    net.set_port(A, more)
    assert net.answer(A) == "none"


def test_a_pair_that_means_nothing_changes_nothing() -> None:
    net = Network()
    bad = AddressPair(ip_address="10.0.0.1/33", mac_address=VIRTUAL)
    other = AddressPair(ip_address="10.0.0.5/32", mac_address=VIRTUAL)
    with pytest.raises(DatapathError, match=A):
        net.set_port(A, (PAIR, other, bad))
    assert net.announce(A, address="10.0.0.5") == "arp-spoof"
    assert net.driver.ports()[0].pairs == (PAIR,)
    assert net.announce(A) == "none"
