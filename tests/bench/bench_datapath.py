"""Two guests on one host, connected by each peer in turn: what each lets through.

The guests are network namespaces, so their own stack is in every figure. Within a round all peers
come one after another, each in namespaces just made; every other round goes backwards.
"""

import collections
import sys
import time

import comparison
import load
import ovs
import peers
import result
import sandbox
from tenants import check_policy, make_site

PEERS: dict[str, peers.Peer] = {
    comparison.VETH: peers.connect_veth,
    comparison.BRIDGE: peers.connect_bridge,
    comparison.NFTABLES: peers.connect_nftables,
    comparison.IPTABLES: peers.connect_iptables,
    comparison.OVS_PACKET: ovs.connect_packet,
    comparison.OVS_XDP: ovs.connect_xdp,
    comparison.VNET: peers.connect_vnet,
}

#: Taking a namespace away goes on in the background for a while.
SETTLE = 0.3


def measure_peer(peer: str, seconds: float) -> dict[load.Figure, float]:
    """Every figure of one peer, in namespaces of its own."""
    with make_site() as site, PEERS[peer](site):
        check_policy(site, guarded=peer not in comparison.UNGUARDED)
        time.sleep(SETTLE)
        return {figure: load.measure(figure, site, seconds) for figure in load.FIGURES}


def describe_variants() -> None:
    """Which of their forms the peers take on this kernel."""
    with make_site() as site:
        family = peers.nftables_family(site)
        note = ", through br_netfilter: no conntrack in the bridge family" * (family == "inet")
        print(f"{comparison.NFTABLES}: family {family}{note}")
        print(f"{comparison.IPTABLES}: {peers.iptables_flavour(site)}")


def main() -> None:
    rounds, seconds = (2, 0.8) if result.is_quick() else (7, 2.0)
    measured: dict[tuple[str, load.Figure], list[float]] = collections.defaultdict(list)
    failed: dict[str, str] = {}
    load.build()
    describe_variants()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for peer in list(PEERS)[:: -1 if number % 2 else 1]:
            if peer in failed:
                continue
            try:
                figures = measure_peer(peer, seconds)
            except sandbox.BenchError as error:
                failed[peer] = str(error)
                continue
            for figure, value in figures.items():
                measured[peer, figure].append(value)
    result.write("datapath", comparison.make_rows(measured, list(PEERS)))
    if failed:
        text = "\n".join(f"{peer}: {error}" for peer, error in failed.items())
        raise sandbox.BenchError(f"not measured:\n{text}")


if __name__ == "__main__":
    sandbox.run(main)
