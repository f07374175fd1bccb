"""Runs inside QEMU, where an instruction is a nanosecond: each peer once, figures on the console.

    exact_guest.py ROUNDS COUNT KINDS PEERS

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
    "veth": peers.connect_veth,
    "bridge": peers.connect_bridge,
    "nftables": peers.connect_nftables,
    "ovs": ovs.connect_kernel,
    "vnet": peers.connect_vnet,
    "iptables": peers.connect_iptables,
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


def measure_taps(word: str, rounds: int, count: int, kinds: list[str]) -> None:
    for virtio in (False, True):
        wanted = [kind for kind, (_, of) in comparison.TAP_KINDS.items() if of == virtio]
        between = [kind for kind in wanted if kind in kinds]
        if not between:
            continue
        with (
            make_site(taps=True) as site,
            taps.open_taps(site, virtio=virtio) as ends,
            PEERS[word](site),
        ):
            for kind in between:
                load_kind, _ = comparison.TAP_KINDS[kind]
                values = [ends.measure(load_kind, count) for _ in range(rounds)]
                say(comparison.EXACT_PEERS[word], kind, values)


def measure_peer(word: str, rounds: int, count: int, kinds: list[str]) -> None:
    peer = comparison.EXACT_PEERS[word]
    if peer == comparison.IPTABLES:
        load_module("br_netfilter")
    if peer != comparison.VETH:
        measure_taps(word, rounds, count, kinds)
    if "crr" not in kinds:
        return
    connect = next(figure for figure in load.FIGURES if figure.kind == "crr")
    with make_site() as site, PEERS[word](site):
        check_policy(site, guarded=peer not in comparison.UNGUARDED)
        values = [load.measure(connect, site, CONNECT_SECONDS) for _ in range(rounds)]
        say(peer, "crr", values)


def main() -> None:
    rounds, count = int(sys.argv[1]), int(sys.argv[2])
    kinds, words = sys.argv[3].split(","), sys.argv[4].split(",")
    print()  # the firmware leaves its line open
    # Sooner after the boot OVS takes the machine for one without processors.
    time.sleep(OVS_UPTIME)
    for word in words:
        try:
            measure_peer(word, rounds, count, kinds)
        except Exception as error:
            traceback.print_exc()
            problem = {"peer": comparison.EXACT_PEERS[word], "error": str(error)}
            print("PROBLEM", json.dumps(problem), flush=True)
    print("END", flush=True)


if __name__ == "__main__":
    main()
