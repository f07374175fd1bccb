"""Runs inside QEMU, where an instruction is a nanosecond: every peer once, figures on the console.

Each line `FIGURE {"peer": ..., "kind": ..., "values": [...]}` is one; `PROBLEM` says what failed.
"""

import json
import sys
import time
import traceback

import comparison
import load
import ovs
import peers
import sandbox
import taps
from tenants import check_policy, make_site

PEERS: dict[str, peers.Peer] = {
    comparison.VETH: peers.connect_veth,
    comparison.BRIDGE: peers.connect_bridge,
    comparison.NFTABLES: peers.connect_nftables,
    comparison.OVS_KERNEL: ovs.connect_kernel,
    comparison.VNET: peers.connect_vnet,
    comparison.IPTABLES: peers.connect_iptables,
}
#: Seconds of guest time; the machine needs thirty times as long.
CONNECT_SECONDS = 0.2
#: Seconds of guest time, which pass at once while nothing runs.
OVS_UPTIME = 12.0


def load_module(name: str) -> None:
    """Only when its turn has come: with br_netfilter, every bridge costs more."""
    sandbox.command("modprobe", name)


def say(peer: str, kind: str, values: list[float]) -> None:
    print("FIGURE", json.dumps({"peer": peer, "kind": kind, "values": values}), flush=True)


def measure_peer(peer: str, rounds: int, count: int) -> None:
    if peer == comparison.IPTABLES:
        load_module("br_netfilter")
    if peer != comparison.VETH:
        with make_site(taps=True) as site, PEERS[peer](site):
            for kind in ("frames", "rr"):
                say(peer, kind, [taps.measure(kind, site, count) for _ in range(rounds)])
    connect = next(figure for figure in load.FIGURES if figure.kind == "crr")
    with make_site() as site, PEERS[peer](site):
        check_policy(site, guarded=peer not in comparison.UNGUARDED)
        values = [load.measure(connect, site, CONNECT_SECONDS) for _ in range(rounds)]
        say(peer, "crr", values)


def main() -> None:
    rounds, count = int(sys.argv[1]), int(sys.argv[2])
    print()  # the firmware leaves its line open
    # Sooner after the boot OVS takes the machine for one without processors.
    time.sleep(OVS_UPTIME)
    for peer in PEERS:
        try:
            measure_peer(peer, rounds, count)
        except Exception as error:
            traceback.print_exc()
            print("PROBLEM", json.dumps({"peer": peer, "error": str(error)}), flush=True)
    print("END", flush=True)


if __name__ == "__main__":
    main()
