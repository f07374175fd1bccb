"""What every peer of the datapath's bench connects and guards: two guests and their rules.

Each peer says the same policy in its own words: the guests may open anything, and to them 99
rules are open, of which only the last ones admit the load. So a peer that tries rules in order
tries nearly all of them for each new connection, as it would in the worst case of real policies.
"""

import contextlib
import dataclasses
import socket
from collections.abc import Iterator

from sandbox import BenchError, Netns

from vnet_agent.model.policy import Direction, Rule

TCP_PORT = 7000
UDP_PORT = 7001
#: No rule opens it.
CLOSED_PORT = 7002


@dataclasses.dataclass(frozen=True)
class Guest:
    """`tap` is the host's end of its only interface; `uuid` is the port's."""

    name: str
    mac: str
    address: str
    uuid: str

    @property
    def tap(self) -> str:
        return f"tap-{self.name}"


GUESTS = (
    Guest("a", "52:54:00:00:00:0a", "10.9.0.1", "0a000000-0000-4000-8000-000000000001"),
    Guest("b", "52:54:00:00:00:0b", "10.9.0.2", "0b000000-0000-4000-8000-000000000002"),
)


def make_rules() -> tuple[Rule, ...]:
    """100 rules for IPv4: 96 that the load does not match, of every usual kind, and 4 it does."""
    rules = []
    for number in range(24):
        for remote, protocol, low, high in (
            (None, "tcp", 100 + number, 100 + number),
            (f"172.16.{number}.0/24", "tcp", 8000 + 8 * number, 8007 + 8 * number),
            (f"192.168.9.{number}/32", "udp", 53, 53),
            (f"172.{32 + number}.0.0/16", None, 0, 0),
        ):
            ports = (low, high) if low else None
            rules.append(_ingress(protocol, ports, remote))
    return (
        *rules,
        Rule(direction=Direction.EGRESS, ethertype="ipv4"),
        _ingress("icmp", None, None),
        _ingress("udp", (UDP_PORT, UDP_PORT), None),
        _ingress("tcp", (TCP_PORT, TCP_PORT), "10.9.0.0/24"),
    )


def _ingress(protocol: str | None, ports: tuple[int, int] | None, remote: str | None) -> Rule:
    return Rule(
        direction=Direction.INGRESS,
        ethertype="ipv4",
        protocol=protocol,
        ports=ports,
        remote=remote,
    )


@dataclasses.dataclass(frozen=True)
class Site:
    """The host's namespace and the guests', in the order of GUESTS; with `taps` the guests are
    behind taps that a program opens, and their namespaces stay empty."""

    node: Netns
    guests: tuple[Netns, Netns]
    taps: bool = False


@contextlib.contextmanager
def make_site(*, taps: bool = False) -> Iterator[Site]:
    """Three new namespaces, not connected yet: nothing of the peer before stays in them."""
    with Netns("node") as node, Netns("a") as a, Netns("b") as b:
        for place in (a, b):
            # Thousands of connections a second from one address.
            place.set("net/ipv4/ip_local_port_range", "1024 65535")
            place.set("net/ipv4/tcp_tw_reuse", "1")
        yield Site(node, (a, b), taps)


def wire_guests(site: Site) -> None:
    """A veth pair from each guest to its tap in the node, or the taps that are there already.

    Taps are without a queueing discipline, as libvirt leaves them.
    """
    for guest, place in zip(GUESTS, site.guests, strict=True):
        if site.taps:
            site.node.ip(f"link set {guest.tap} up")
            site.node.run("tc", "qdisc", "replace", "dev", guest.tap, "root", "noqueue")
            continue
        wire_guest(site.node, guest)
        address_guest(guest, place)


def wire_guest(node: Netns, guest: Guest) -> None:
    """Its tap in the node, the other end in the guest's namespace."""
    node.ip(
        f"link add {guest.tap} type veth peer name eth0 netns {guest.name}",
        f"link set {guest.tap} up",
    )


def address_guest(guest: Guest, place: Netns) -> None:
    place.ip(
        f"link set eth0 address {guest.mac}",
        f"address add {guest.address}/24 dev eth0",
        "link set eth0 up",
    )


def check_policy(site: Site, *, guarded: bool) -> None:
    """BenchError unless the closed port of guest b is closed when the peer guards it: a peer that
    lets everything pass would win."""
    client, server = site.guests
    with server.inside():
        listener = socket.create_server((GUESTS[1].address, CLOSED_PORT))
    with listener, client.inside():
        try:
            socket.create_connection((GUESTS[1].address, CLOSED_PORT), timeout=0.3).close()
        except TimeoutError:
            reached = False
        else:
            reached = True
    if reached == guarded:
        raise BenchError(f"the closed port is {'open' if reached else 'out of reach'}")
