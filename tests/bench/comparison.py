"""Rows of the datapath's bench: each peer's figures, and what vnet is held to. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence

from load import FIGURES, Figure
from result import Row

VETH = "bare veth pair"
BRIDGE = "Linux bridge"
NFTABLES = "bridge + nftables"
IPTABLES = "bridge + br_netfilter + iptables"
OVS_PACKET = "OVS userspace + conntrack, AF_PACKET with TSO"
OVS_XDP = "OVS userspace + conntrack, AF_XDP"
OVS_KERNEL = "OVS kernel datapath + conntrack"
VNET = "vnet"

#: These know no policy.
UNGUARDED = (VETH, BRIDGE)

#: By peer and figure, one value a round.
Measured = Mapping[tuple[str, Figure], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Goal:
    """vnet reaches at least `ratio` of the peer's figure."""

    peer: str
    kinds: tuple[str, ...]
    ratio: float


GOALS = (
    Goal(VETH, ("rr", "crr", "udp", "stream"), 0.95),
    Goal(NFTABLES, ("rr", "crr"), 1.15),
    Goal(IPTABLES, ("rr", "crr"), 1.3),
    Goal(OVS_PACKET, ("rr",), 4.0),
    Goal(OVS_XDP, ("rr",), 4.0),
)


def find_goal(peer: str, kind: str, goals: Sequence[Goal]) -> float | None:
    for goal in goals:
        if goal.peer == peer and kind in goal.kinds:
            return goal.ratio
    return None


def make_rows(measured: Measured, peers: Sequence[str]) -> list[Row]:
    """For each figure: vnet against each peer that was measured, then the peers themselves."""
    rows = []
    for figure in FIGURES:
        own = measured.get((VNET, figure), ())
        for peer in peers:
            values = measured.get((peer, figure), ())
            if peer == VNET or not values or not own:
                continue
            rows.append(
                Row(
                    f"{figure.name}: {VNET}, of {peer}",
                    figure.unit,
                    own,
                    peer,
                    values,
                    find_goal(peer, figure.kind, GOALS),
                    goal_is_ceiling=False,
                )
            )
        rows += [
            Row(f"{figure.name}: {peer}", figure.unit, values)
            for peer in peers
            if peer != VNET and (values := measured.get((peer, figure), ()))
        ]
    return rows


#: In the order in which they are measured: with br_netfilter loaded, every bridge costs more.
EXACT_PEERS = {
    "veth": VETH,
    "bridge": BRIDGE,
    "nftables": NFTABLES,
    "ovs": OVS_KERNEL,
    "vnet": VNET,
    "iptables": IPTABLES,
}
#: What taps.c measures, and whether frames have a virtio header.
TAP_KINDS = {
    "frames": ("frames", False),
    "rr": ("rr", False),
    "frames-virtio": ("frames", True),
    "rr-virtio": ("rr", True),
}
#: From tap to tap, and the connect rate between namespaces, where an instruction is a nanosecond.
EXACT_NAMES = {
    "frames": "UDP frames tap to tap",
    "rr": "UDP request/response tap to tap",
    "frames-virtio": "UDP frames tap to tap, with virtio's header",
    "rr-virtio": "UDP request/response tap to tap, with virtio's header",
    "crr": "TCP connect/request/close between namespaces",
}
_BETWEEN_TAPS = tuple(TAP_KINDS)
EXACT_GOALS = (
    Goal(OVS_KERNEL, _BETWEEN_TAPS, 1.75),
    Goal(OVS_KERNEL, ("crr",), 1.2),
    Goal(NFTABLES, _BETWEEN_TAPS, 1.5),
    Goal(BRIDGE, _BETWEEN_TAPS, 1.0),
)
#: A frame's cost is kept under these names.
FRAME_NAMES = {
    "frames": "instructions a frame",
    "frames-virtio": "instructions a frame with virtio's header",
}


def make_exact_rows(found: Mapping[tuple[str, str], Sequence[float]]) -> list[Row]:
    """The same for the exact bench, and the instructions that a frame costs."""
    rows = []
    for kind, name in EXACT_NAMES.items():
        own = found.get((VNET, kind), ())
        peers = {peer: values for (peer, of), values in found.items() if of == kind}
        rows += [
            Row(
                f"{name}: {VNET}, of {peer}",
                "1/s",
                own,
                peer,
                values,
                find_goal(peer, kind, EXACT_GOALS),
                goal_is_ceiling=False,
            )
            for peer, values in peers.items()
            if peer != VNET and own
        ]
        rows += [Row(f"{name}: {peer}", "1/s", values) for peer, values in peers.items()]
    rows += [
        Row(f"{FRAME_NAMES[kind]}: {peer}", "1", [1e9 / value for value in values])
        for (peer, kind), values in found.items()
        if kind in FRAME_NAMES
    ]
    return rows
