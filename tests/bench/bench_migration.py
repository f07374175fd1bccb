"""What a live migration does to a VM's frames: real QEMU and libvirt, two hosts, one peer.

The peer sends 10,000 numbered datagrams a second to the VM, and then the VM to the peer, while the
VM moves there and back. In turn with the same without the hand-over of frames, which is what
libvirt and QEMU do by themselves: there the VM's new place is learned from its own frames.

Then with peers on all three hosts and no word of the move between them: see silence.py.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import result
from silence import Silence

from devstack.cloud import Cloud, wait_for
from devstack.lab import Control, Guest, Lab, Peer
from devstack.lab.cache import LOGS

RATE = 10000
#: Migrations each way of each kind, and how many are made before the kind changes.
MIGRATIONS = 4 if result.is_quick() else 20
TURN = 2 if result.is_quick() else 5
COMPLETED = "vnet.instance.migration.completed"
RULES = [
    {"direction": "ingress", "protocol": "udp", "ports": 5001},
    {"direction": "egress", "protocol": "udp", "ports": 5001},
]
FAULTS = ("lost", "doubled", "late")
WITHOUT = "QEMU alone"


class Bench:
    """One VM and one peer. Counts of each migration, by whether frames are handed over."""

    def __init__(self, cloud: Cloud, guest: Guest, peer: Peer) -> None:
        self.cloud = cloud
        self.guest = guest
        self.peer = peer
        self.counts: dict[tuple[bool, str, str], list[float]] = {}
        self.moves = 0

    def restart(self, *, hand_over: bool) -> None:
        for host in self.cloud.lab.hosts:
            self.cloud.configure_agent(host, migration={"hand_over_frames": hand_over})
            self.cloud.agents[host.name].stop()
            self.cloud.start_agent(host)

    def turn(self, *, hand_over: bool) -> None:
        self.restart(hand_over=hand_over)
        for name, sender, receiver, address in (
            ("to the VM", self.peer.control, self.guest.control, self.guest.address),
            ("from the VM", self.guest.control, self.peer.control, self.peer.address),
        ):
            with streaming(sender, receiver, address):
                for _ in range(TURN):
                    self.move(name, receiver, hand_over=hand_over)

    def move(self, name: str, receiver: Control, *, hand_over: bool) -> None:
        before = stream(receiver)
        (there,) = (host for host in self.cloud.lab.hosts if host is not self.guest.host)
        self.guest.migrate(there)
        event = self.cloud.wait_event(COMPLETED, self.guest.uuid, after=self.moves)
        self.moves += 1
        wait_more(receiver)
        after = stream(receiver)
        for fault in FAULTS:
            self.note(hand_over, name, fault, after[fault] - before[fault])
        report = event["data"]
        pause, gap = report["vcpu_pause_ms"], report["network_gap_ms"]
        if name == "to the VM" and pause is not None:
            self.note(hand_over, name, "pause", pause)
            self.note(hand_over, name, "final delta", report["final_delta_ms"])
            if gap is not None:
                self.note(hand_over, name, "gap", gap)
                self.note(hand_over, name, "gap above the pause", gap - pause)
                self.note(hand_over, name, "replayed", report["frames_replayed"])

    def note(self, hand_over: bool, name: str, what: str, value: float) -> None:
        self.counts.setdefault((hand_over, name, what), []).append(value)

    def rows(self) -> list[result.Row]:
        rows = []
        for name in ("to the VM", "from the VM"):
            for fault in FAULTS:
                mine, others = (self.counts[kind, name, fault] for kind in (True, False))
                rows += [
                    result.Row(f"frames {name} {fault}, the worst", "frames", [max(mine)], goal=0),
                    result.Row(f"frames {name} {fault}", "frames", mine),
                    result.Row(f"frames {name} {fault}, {WITHOUT}", "frames", others),
                ]
        goals = {"gap above the pause": 20.0, "final delta": 50.0}
        for what, unit in (
            ("pause", "ms"),
            ("gap", "ms"),
            ("gap above the pause", "ms"),
            ("final delta", "ms"),
            ("replayed", "frames"),
        ):
            values = self.counts[True, "to the VM", what]
            rows.append(result.Row(what, unit, values, goal=goals.get(what)))
        rows.append(
            result.Row(f"pause, {WITHOUT}", "ms", self.counts[False, "to the VM", "pause"])
        )
        return rows


def stream(receiver: Control) -> dict[str, Any]:
    """The newest."""
    return dict(receiver.stats()["udp"]["streams"][-1])


def wait_more(receiver: Control) -> None:
    """What was sent before has arrived, or never will."""
    before = stream(receiver)["received"]
    wait_for(lambda: stream(receiver)["received"] > before + RATE // 4, "the stream stands still")


@contextlib.contextmanager
def streaming(sender: Control, receiver: Control, address: str) -> Iterator[None]:
    streams = len(receiver.stats()["udp"]["streams"])
    sender.send_udp("stream", address, RATE)
    try:
        wait_for(lambda: len(receiver.stats()["udp"]["streams"]) > streams, "nothing arrives")
        wait_more(receiver)
        yield
    finally:
        sender.close_udp("stream")


def main() -> None:
    with Lab(wait=60, logs=LOGS) as lab:
        cloud = Cloud(lab)
        cloud.start()
        cloud.put_group("door", RULES)
        guest = lab.guest("moves", lab.hosts[0], ("10.0.0.5/24",))
        peer = lab.peer("peer", ("10.0.0.100/24",))
        cloud.boot(guest)
        bench = Bench(cloud, guest, peer)
        for _ in range(MIGRATIONS // TURN):
            bench.turn(hand_over=True)
            bench.turn(hand_over=False)
        bench.restart(hand_over=True)
        silence = Silence(cloud, guest, peer)
        silence.run(MIGRATIONS)
    result.write("migration", [*bench.rows(), *silence.rows()])


if __name__ == "__main__":
    main()
