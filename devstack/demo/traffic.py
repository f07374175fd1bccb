"""200 connections between a VM and a plain peer, and what became of them."""

import dataclasses
from collections.abc import Mapping, Sequence

from devstack.cloud import Cloud, wait_for
from devstack.lab import Control, Guest, LabError, Peer

VM_PORT = 5000
PEER_PORT = 7000
#: What the VM may begin; everything else that it sends must belong to a connection.
OUTGOING = {"direction": "egress", "protocol": "tcp", "ports": PEER_PORT}
#: The door: what lets the peer begin connections to the VM.
INCOMING = {"direction": "ingress", "protocol": "tcp", "ports": VM_PORT}
GROUP = "demo"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Connections of one kind; `dialer` began them and counts what comes back."""

    name: str
    dialer: Control
    target: str
    port: int


class Traffic:
    """`count` connections: half begun by the peer, half by the VM, half IPv4, half IPv6.

    `rules` hold with the door closed.
    """

    def __init__(
        self,
        cloud: Cloud,
        guest: Guest,
        peer: Peer,
        count: int = 200,
        *,
        rules: Sequence[Mapping[str, object]] = (OUTGOING,),
    ) -> None:
        self._cloud = cloud
        self._rules = rules
        self._peer = peer
        self._each = count // 4
        guest4, guest6 = (address.partition("/")[0] for address in guest.spec.nics[0].addresses)
        peer4, peer6 = (address.partition("/")[0] for address in peer.addresses)
        self.incoming = (
            Bundle("in4", peer.control, guest4, VM_PORT),
            Bundle("in6", peer.control, guest6, VM_PORT),
        )
        self.outgoing = (
            Bundle("out4", guest.control, peer4, PEER_PORT),
            Bundle("out6", guest.control, peer6, PEER_PORT),
        )

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        return self.incoming + self.outgoing

    def open(self) -> None:
        """Opens the door, then all connections; returns when each carries data both ways."""
        self._cloud.put_group(GROUP, [*self._rules, INCOMING], established="keep")
        self._peer.control.listen("server", PEER_PORT)
        for bundle in self.bundles:
            bundle.dialer.dial(bundle.name, bundle.target, self._each, port=bundle.port)
        self.wait_progress(self.bundles)

    def close_door(self) -> None:
        """Withdraws the rule that admitted the peer's connections, and sees it refuse one."""
        self._cloud.put_group(GROUP, self._rules, established="keep")
        late = self.incoming[0]
        late.dialer.dial("late", late.target, 1, port=late.port)
        self.wait_progress(self.bundles)
        if late.dialer.group("late")["open"]:
            raise LabError("the door is closed, and yet the peer got in")
        late.dialer.close("late")

    def wait_progress(self, bundles: Sequence[Bundle], timeout: float = 60.0) -> None:
        """Returns when every connection of the bundles is open and has received two messages."""
        before = {bundle.name: self.received(bundle) for bundle in bundles}
        for bundle in bundles:

            def moved(bundle: Bundle = bundle) -> bool:
                now = self.received(bundle)
                began = before[bundle.name]
                return len(now) == self._each and all(
                    count >= began.get(local, 0) + 2 for local, count in now.items()
                )

            wait_for(moved, f"not all connections {bundle.name} carry data", timeout)

    def stalled(self, bundle: Bundle, since: dict[str, int]) -> bool:
        """Whether no connection of the bundle has received anything since."""
        return all(count == since.get(local) for local, count in self.received(bundle).items())

    def broken(self) -> dict[str, int]:
        """How many connections ended, by kind of end; empty when all live."""
        ends: dict[str, int] = {}
        for bundle in self.bundles:
            group = bundle.dialer.group(bundle.name)
            for end in ("reset", "timed_out", "closed", "failed", "out_of_order", "corrupt"):
                if group[end]:
                    ends[end] = ends.get(end, 0) + group[end]
        return ends

    def longest_gap_ms(self) -> int:
        """The longest time between two messages of any connection, as the peer saw it."""
        groups = [b.dialer.group(b.name) for b in self.incoming]
        return max(int(group["longest_gap_ms"]) for group in groups)

    @staticmethod
    def received(bundle: Bundle) -> dict[str, int]:
        """Messages received by each open connection, by its local address."""
        connections = bundle.dialer.connections(bundle.name)
        return {c["local"]: c["received"] for c in connections if c["state"] == "open"}
