"""A memory driver with several networks that share MACs and addresses, and uplinks for them."""

import ipaddress

import frames as f
from datapath_bench import INSTANCE

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.base import Driver
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import Role

A, B, FAR = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:99"
A4, B4 = "10.0.0.1", "10.0.0.2"
A6, B6 = "2001:db8::a", "2001:db8::b"
BROADCAST = "ff:ff:ff:ff:ff:ff"
#: Networks: one untagged and two tagged on the first uplink, one on the second, one on none.
FLAT, RED, BLUE, GREEN, ALONE = 7, 8, 9, 10, 11
NETWORKS = (FLAT, RED, BLUE, GREEN, ALONE)
TRUNK, OTHER_TRUNK = 900, 901
VLANS = {100: RED, 200: BLUE}
MACS = {A: (A4, A6), B: (B4, B6)}


def tap(network: int, mac: str) -> int:
    return network * 10 + (mac == B)


def port_name(network: int, mac: str) -> str:
    return f"33333333-0000-4000-8000-{network:04x}0000000{'ab'[mac == B]}"


def set_port(
    driver: Driver,
    network: int,
    mac: str,
    *,
    role: Role = Role.ACTIVE,
    addresses: tuple[str, ...] | None = None,
    quota: int = 64,
) -> None:
    """`mac` of the network, with the addresses that it has in every network."""
    driver.set_port(
        port_name(network, mac),
        instance=INSTANCE,
        mac=mac,
        addresses=MACS[mac] if addresses is None else addresses,
        network=network,
        bridged=False,
        role=role,
        generation=1,
        quota=quota,
    )
    driver.set_policy(port_name(network, mac), ALLOW_ALL)


def attach_uplinks(driver: Driver, trunk: int = TRUNK, other: int = OTHER_TRUNK) -> None:
    driver.attach_uplink(trunk, network=FLAT, vlans=VLANS)
    driver.attach_uplink(other, vlans={100: GREEN})


def make_driver(*, answers: bool = False) -> MemoryDriver:
    driver = MemoryDriver(max_ports=16, answers=answers)
    driver.open()
    for network in NETWORKS:
        for mac in MACS:
            set_port(driver, network, mac)
            driver.attach(port_name(network, mac), tap(network, mac))
    attach_uplinks(driver)
    return driver


def run(driver: MemoryDriver, ifindex: int, frame: bytes) -> list[tuple[int, bytes]] | str:
    """What leaves where, or why the frame is dropped; what goes on to the host does not leave."""
    hook = c.FROM_UPLINK if ifindex in (TRUNK, OTHER_TRUNK) else c.FROM_PORT
    action, reason, outs = driver.native.run(hook, ifindex, frame)
    if action == c.DROP:
        return c.REASONS[reason]
    return [(way, data) for way, data in outs if way]


def datagram(source: str, target: str) -> bytes:
    """From a MAC to a MAC, with the addresses that both have."""
    ends = MACS.get(source, (A4,))[0], MACS.get(target, (B4,))[0]
    packet = f.ipv4(*ends, f.UDP, f.udp(1, 2, b"payload"))
    return f.ether(source, target, f.IPV4, packet)


def arp(sender: str, asked: str, *, op: int = 1, target: str = BROADCAST, mac: str = A) -> bytes:
    return f.ether(mac, target, f.ARP, f.arp(mac, sender, asked, op=op))


def group_of(address: str) -> str:
    low = int(ipaddress.IPv6Address(address)) & 0xFFFFFF
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("ff02::1:ff00:0")) | low))


def solicit(
    source: str,
    asked: str,
    *,
    to: str | None = None,
    option: str | None = A,
    more: bytes = b"",
    target: str = "33:33:ff:00:00:0b",
    mac: str = A,
) -> bytes:
    body = f.discovery(135, asked, option) + more
    packet = f.ipv6(source, to or group_of(asked), f.ICMPV6, body, hops=255)
    return f.ether(mac, target, f.IPV6, packet)
