"""Two VMs share an address by VRRP's means, on real taps: it is where it was announced last."""

import os

import frames as f
from datapath_bench import INSTANCE
from datapath_taps import Tap
from datapath_world import private

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import AddressPair, Role

PORTS = [f"11111111-0000-4000-8000-00000000000{digit}" for digit in "abc"]
MASTER, BACKUP, CLIENT = range(3)
VIRTUAL, VIP = "00:00:5e:00:01:07", "10.0.0.100"
VIP6 = "2001:db8::100"
PAIRS = tuple(AddressPair(ip_address=item, mac_address=VIRTUAL) for item in (VIP, VIP6))
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(number: int) -> str:
    return f"52:54:00:00:00:0{number}"


class World:
    def __init__(self, bpffs: str, pairs: tuple[AddressPair, ...]) -> None:
        self.pin_dir = os.path.join(bpffs, "vnet")
        self.taps = [Tap(f"tap{number}") for number in range(3)]
        self.driver = EbpfDriver(pin_dir=self.pin_dir, max_ports=8)
        self.driver.open()
        for number, port in enumerate(PORTS):
            self.driver.set_port(
                port,
                instance=INSTANCE,
                mac=mac(number),
                addresses=(f"10.0.0.{number + 1}",),
                network=0,
                bridged=False,
                role=Role.ACTIVE,
                generation=1,
                quota=1000,
                pairs=pairs if number != CLIENT else (),
            )
            self.driver.set_policy(port, ALLOW_ALL)
            self.driver.attach(port, self.taps[number].ifindex)

    def announce(self, number: int) -> list[int]:
        """A gratuitous ARP; who hears it."""
        frame = f.ether(VIRTUAL, BROADCAST, f.ARP, f.arp(VIRTUAL, VIP, VIP))
        return self.send(number, frame)

    def send(self, number: int, frame: bytes) -> list[int]:
        self.taps[number].send(frame)
        return [other for other, tap in enumerate(self.taps) if frame in tap.drain(0.1)]

    def ask(self, sport: int = 1000) -> list[int]:
        """The client's datagram to the shared address; who gets it."""
        packet = f.ipv4("10.0.0.3", VIP, f.UDP, f.udp(sport, 7))
        return self.send(CLIENT, f.ether(mac(CLIENT), VIRTUAL, f.IPV4, packet))

    def answer(self, number: int, sport: int = 1000) -> list[int]:
        packet = f.ipv4(VIP, "10.0.0.3", f.UDP, f.udp(7, sport))
        return self.send(number, f.ether(VIRTUAL, mac(CLIENT), f.IPV4, packet))


@private
def test_pairs_move_with_who_announces_them(bpffs: str) -> None:
    world = World(bpffs, PAIRS)
    for master, backup in ((MASTER, BACKUP), (BACKUP, MASTER)):
        assert world.announce(master) == sorted((backup, CLIENT))
        for _ in range(2):
            assert world.ask() == [master]
            assert world.answer(master) == [CLIENT]
    # The agent's successor knows all of it, and so do frames meanwhile.
    world.driver.close()
    assert world.announce(MASTER) == [BACKUP, CLIENT]
    assert world.ask() == [MASTER]
    world.driver = EbpfDriver(pin_dir=world.pin_dir, max_ports=8)
    world.driver.open()
    assert [len(entry.pairs) for entry in world.driver.ports()] == [2, 2, 0]
    assert world.ask() == [MASTER]
    assert world.answer(BACKUP) == [CLIENT]
    assert world.ask() == [BACKUP]
    # IPv6: an unsolicited advertisement of the virtual router.
    advert = f.ipv6(VIP6, "ff02::1", f.ICMPV6, f.discovery(136, VIP6, VIRTUAL, option=2), hops=255)
    frame = f.ether(VIRTUAL, "33:33:00:00:00:01", f.IPV6, advert)
    assert world.send(MASTER, frame) == [BACKUP, CLIENT]
    assert world.ask() == [MASTER]
    # Nobody else may, and it changes nothing.
    assert world.announce(CLIENT) == []
    assert world.answer(CLIENT) == []
    assert world.driver.counters(PORTS[CLIENT]).drops == {"mac-spoof": 2}
    assert world.ask() == [MASTER]
    world.driver.destroy()


@private
def test_without_pairs_the_shared_address_is_nobodys(bpffs: str) -> None:
    """The control."""
    world = World(bpffs, ())
    assert world.announce(MASTER) == []
    assert world.ask() == []
    assert world.answer(MASTER) == []
    assert world.driver.counters(PORTS[MASTER]).drops == {"mac-spoof": 2}
    world.driver.destroy()
