"""The peers of the datapath's bench that Linux and vnet bring; OVS has a file of its own.

Each is a context manager that connects the two guests of a site and takes away what is not in the
site's namespaces.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping

from rulesets import iptables_rules, nftables_rules
from sandbox import BPFFS, BenchError
from tenants import GUESTS, Guest, Site, address_guest, make_rules, wire_guests

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import Policy
from vnet_agent.model.port import Role

Peer = Callable[[Site], contextlib.AbstractContextManager[None]]

#: As many connections as a port may hold by default.
QUOTA = 65536


@contextlib.contextmanager
def connect_veth(site: Site) -> Iterator[None]:
    """The limit: one cable, no node between."""
    site.guests[0].ip(f"link add eth0 type veth peer name eth0 netns {GUESTS[1].name}")
    for guest, place in zip(GUESTS, site.guests, strict=True):
        address_guest(guest, place)
    yield


def _make_bridge(site: Site, *, netfilter: bool) -> None:
    wire_guests(site)
    site.node.ip(
        "link add br0 type bridge stp_state 0 mcast_snooping 0",
        *(f"link set {guest.tap} master br0" for guest in GUESTS),
        "link set br0 up",
    )
    # Where the kernel has br_netfilter it is on in every new namespace, rules or none.
    for family in ("iptables", "ip6tables", "arptables"):
        # A kernel without it has no such file, and no peer that needs it.
        with contextlib.suppress(FileNotFoundError):
            site.node.set(
                f"net/bridge/bridge-nf-call-{family}", str(int(netfilter and family == "iptables"))
            )


@contextlib.contextmanager
def connect_bridge(site: Site) -> Iterator[None]:
    _make_bridge(site, netfilter=False)
    yield


def nftables_family(site: Site) -> str:
    """`bridge` where the kernel tracks connections in that family, otherwise `inet`."""
    probe = (
        "table bridge probe {\nchain c {\n"
        "type filter hook forward priority 0\nct state new accept\n}\n}\n"
    )
    try:
        site.node.run("nft", "--check", "--file", "-", text=probe)
    except BenchError:
        return "inet"
    return "bridge"


@contextlib.contextmanager
def connect_nftables(site: Site) -> Iterator[None]:
    family = nftables_family(site)
    _make_bridge(site, netfilter=family == "inet")
    site.node.run("nft", "--file", "-", text=nftables_rules(GUESTS, make_rules(), family))
    yield


@contextlib.contextmanager
def connect_iptables(site: Site) -> Iterator[None]:
    _make_bridge(site, netfilter=True)
    restore = f"{iptables_flavour(site)}-restore"
    site.node.run(restore, text=iptables_rules(GUESTS, make_rules()))
    yield


def iptables_flavour(site: Site) -> str:
    """Debian's default speaks to nf_tables; not every kernel takes all matches that way."""
    try:
        text = (
            "*filter\n-A FORWARD -m physdev --physdev-is-bridged -m mac "
            "--mac-source 52:54:00:00:00:0a -m state --state NEW -j ACCEPT\nCOMMIT\n"
        )
        site.node.run("iptables-nft-restore", "--test", text=text)
    except BenchError:
        return "iptables-legacy"
    return "iptables-nft"


@contextlib.contextmanager
def connect_vnet(site: Site) -> Iterator[None]:
    wire_guests(site)
    with connect_ports(site, dict.fromkeys(GUESTS, Policy(rules=make_rules()))):
        yield


@contextlib.contextmanager
def connect_ports(
    site: Site,
    policies: Mapping[Guest, Policy],
    *,
    unknown: Guest | None = None,
    unguarded: Guest | None = None,
) -> Iterator[EbpfDriver]:
    """A port for each guest, whose tap is there; of one the addresses are not known, of one the
    port security is off."""
    driver = EbpfDriver(pin_dir=str(BPFFS / "vnet"), max_ports=16)
    with site.node.inside():
        driver.open()
        try:
            for guest, policy in policies.items():
                driver.set_port(
                    guest.uuid,
                    instance=guest.uuid,
                    mac=guest.mac,
                    addresses=() if guest == unknown else (guest.address,),
                    network=0,
                    bridged=False,
                    role=Role.ACTIVE,
                    generation=1,
                    quota=QUOTA,
                    port_security=guest != unguarded,
                )
                driver.set_policy(guest.uuid, policy)
                driver.attach(guest.uuid, socket.if_nametoindex(guest.tap))
            yield driver
        finally:
            driver.destroy()
