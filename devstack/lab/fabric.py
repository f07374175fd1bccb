"""The physical network: one bridge for data, one for management, in a namespace of their own.

Nothing of it is in the machine's own namespace, nothing forwards between the two networks, and
the bridges have no addresses, so that no frame can leave the lab.
"""

import contextlib
import json
from collections.abc import Iterator

from .errors import LabError
from .netns import Namespace
from .state import State

DATA = "data"
MANAGEMENT = "mgmt"
#: TEST-NET-1 (RFC 5737), inside the lab only; the controller's namespace has .1, hosts .11 on.
MANAGEMENT_PREFIX = "192.0.2"


class Fabric:
    """The switch of the lab's machine room."""

    def __init__(self, state: State, mtu: int = 1500) -> None:
        self._namespace = Namespace(state, "fabric")
        self._mtu = mtu

    def create(self) -> None:
        self._namespace.create()
        for family in ("all", "default"):
            self._namespace.run(["sysctl", "-qw", f"net.ipv6.conf.{family}.disable_ipv6=1"])
        for name in (DATA, MANAGEMENT):
            self._namespace.ip(
                f"link add {name} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
                f"link set {name} mtu {self._mtu} up",
            )

    def remove(self) -> None:
        self._namespace.remove()

    def connect(self, namespace: Namespace, device: str, network: str) -> None:
        """Puts a cable between `device`, made in `namespace`, and the bridge of `network`."""
        port = self._port(namespace, network)
        self._namespace.ip(
            f"link add {port} mtu {self._mtu} type veth "
            f"peer name {device} mtu {self._mtu} netns {namespace.path}",
            f"link set {port} master {network} up",
        )
        namespace.ip(f"link set {device} up")

    @contextlib.contextmanager
    def hushed(self, mac: str | None = None) -> Iterator[None]:
        """Meanwhile no broadcast and no multicast passes the data network, or none of one MAC, and
        the switch learns from none where a MAC is."""
        sender = "" if mac is None else f"ether saddr {mac} "
        ports = self._ports_of(DATA)
        with self._ruled("hush", f"{ports} {sender}meta pkttype {{ broadcast, multicast }} drop"):
            yield

    @contextlib.contextmanager
    def impaired(self, port: int, verdict: str) -> Iterator[None]:
        """Meanwhile TCP from and to `port` on the management network fares as nft's statement
        says: `drop`, `limit rate over 125 kbytes/second drop`."""
        ports = self._ports_of(MANAGEMENT)
        rules = [f"{ports} tcp {side} {port} {verdict}" for side in ("sport", "dport")]
        with self._ruled("impair", *rules):
            yield

    def _ports_of(self, network: str) -> str:
        listing = self._namespace.run(["ip", "-json", "link", "show", "master", network]).stdout
        names = ", ".join(f'"{port["ifname"]}"' for port in json.loads(listing))
        return f"iifname {{ {names} }}"

    @contextlib.contextmanager
    def _ruled(self, name: str, *rules: str) -> Iterator[None]:
        """Frames pass by these rules before the bridges see them."""
        table = f"bridge {name}"
        chain = f"add chain {table} entry {{ type filter hook prerouting priority -300; }}"
        added = (f"add rule {table} entry {rule}" for rule in rules)
        self._nft("\n".join([f"add table {table}", chain, *added]))
        try:
            yield
        finally:
            self._nft(f"delete table {table}")

    def _nft(self, script: str) -> None:
        done = self._namespace.run(["nft", script])
        if done.returncode:
            raise LabError(f"the fabric takes no rules: {done.stderr.strip()}")

    def disconnect(self, namespace: Namespace, network: str) -> None:
        """Pulls the cable; the device at its other end goes too."""
        self._namespace.ip(f"link del {self._port(namespace, network)}")

    @staticmethod
    def _port(namespace: Namespace, network: str) -> str:
        return f"{namespace.name}-{network}"
