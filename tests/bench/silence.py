"""How soon peers reach a VM that has moved when nothing tells them so.

With every broadcast and multicast dropped between the hosts there is no RARP and no gratuitous
ARP. One peer is on the host that the VM leaves, one on the host that it comes to, one on a third;
each sends numbered datagrams, and so does the VM to each. The longest gap of each stream is told
less that of a stream that the VM sends to itself: the guest stands still longer than its pause,
since QEMU's TCG translates all of its code anew. The guest's clock does not run in the pause: what
peers see is told less that too.
"""

import contextlib
from typing import Any

import result

from devstack.cloud import Cloud, wait_for
from devstack.lab import Control, Guest, Host, Peer

#: Datagrams a second of each.
RATE = 100
COMPLETED = "vnet.instance.migration.completed"
PLACES = ("on the host it leaves", "on the host it comes to", "on a third host")
GOAL = 100.0
STILL = "still"


class Silence:
    def __init__(self, cloud: Cloud, guest: Guest, peer: Peer) -> None:
        self._cloud = cloud
        self._guest = guest
        self._peer = peer
        self._gaps: dict[str, list[float]] = {}
        self._neighbours = {
            host.name: cloud.lab.guest(f"near-{host.name}", host, (f"10.0.0.{number}/24",))
            for number, host in enumerate(cloud.lab.hosts, 6)
        }
        cloud.boot(*self._neighbours.values())

    def run(self, migrations: int) -> None:
        for _ in range(migrations):
            self._move()

    def _move(self) -> None:
        here = self._guest.host
        (there,) = (host for host in self._cloud.lab.hosts if host is not here)
        neighbours = [self._neighbours[host.name] for host in (here, there)]
        peers = [*neighbours, self._peer]
        mine = self._guest.control
        heard = {mine: (len(streams(mine)), len(peers) + 1)}
        heard |= {each.control: (len(streams(each.control)), 1) for each in peers}
        with contextlib.ExitStack() as stack:
            senders = [(each.control, "there", self._guest.address) for each in peers]
            senders += [(mine, f"back-{n}", each.address) for n, each in enumerate(peers)]
            senders.append((mine, "self", "127.0.0.1"))
            for sender, name, address in senders:
                sender.send_udp(name, address, RATE)
                stack.callback(sender.close_udp, name)
            pause = self._migrate(there, heard)
            still = longest_gap(mine, "127.0.0.1")
            self._gaps.setdefault(STILL, []).append(still)
            for place, each in zip(PLACES, peers, strict=True):
                away = longest_gap(each.control, self._guest.address)
                gaps = {
                    f"to the VM, peer {place}": longest_gap(mine, each.address) - still,
                    f"from the VM, peer {place}": away - still - pause,
                }
                for name, gap in gaps.items():
                    self._gaps.setdefault(name, []).append(max(0.0, gap))

    def _migrate(self, there: Host, heard: dict[Control, tuple[int, int]]) -> float:
        """Returns the pause in ms, when all streams have been heard before and after."""
        before, here = self._completed(), self._guest.host
        wait_heard(heard)
        with self._cloud.lab.fabric.hushed():
            self._guest.migrate(there, unplug=False)
            wait_heard(heard)
            report = self._cloud.wait_event(COMPLETED, self._guest.uuid, after=before)["data"]
        self._guest.unplug(here)
        return float(report["vcpu_pause_ms"])

    def _completed(self) -> int:
        events = self._cloud.api.events(self._guest.uuid)
        return sum(event["type"] == COMPLETED for event in events)

    def rows(self) -> list[result.Row]:
        still = result.Row("in silence the guest stands still", "ms", self._gaps.pop(STILL))
        return [still] + [
            result.Row(f"recovery in silence {name}", "ms", gaps, goal=GOAL)
            for name, gaps in self._gaps.items()
        ]


def streams(receiver: Control) -> list[dict[str, Any]]:
    return list(receiver.stats()["udp"]["streams"])


def longest_gap(receiver: Control, sender: str) -> float:
    """Of the sender's newest stream, in ms."""
    found = [each for each in streams(receiver) if each["from"].startswith(f"{sender}:")]
    return float(found[-1]["longest_gap_ms"])


def wait_heard(receivers: dict[Control, tuple[int, int]]) -> None:
    """Until each receiver has so many old streams and so many new ones, and each of those has
    brought a hundred datagrams more."""
    for receiver, (old, new) in receivers.items():
        wait_for(lambda r=receiver, n=old + new: len(streams(r)) >= n, "nothing arrives")
        before = [stream["received"] for stream in streams(receiver)[old:]]
        wait_for(lambda r=receiver, o=old, b=before: has_more(r, o, b), "a stream stands still")


def has_more(receiver: Control, old: int, before: list[int]) -> bool:
    newest = streams(receiver)[old:]
    return all(s["received"] > was + 100 for s, was in zip(newest, before, strict=True))
