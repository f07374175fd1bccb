"""Numbered datagrams to VMs that move, and what their receivers say of them."""

from typing import Any

from devstack.cloud import Cloud, wait_for
from devstack.lab import Control, Guest, Host

COMPLETED = "vnet.instance.migration.completed"
#: Datagrams to the VM's port, and from it.
RULES = [
    {"direction": "ingress", "protocol": "udp", "ports": 5001},
    {"direction": "egress", "protocol": "udp", "ports": 5001},
]
WHOLE = {"lost": 0, "late": 0, "doubled": 0}


def other(cloud: Cloud, guest: Guest) -> Host:
    (host,) = (host for host in cloud.lab.hosts if host is not guest.host)
    return host


def streams(receiver: Control) -> list[dict[str, Any]]:
    return [dict(stream) for stream in receiver.stats()["udp"]["streams"]]


def wait_received(receiver: Control, senders: int = 1, after: int = 0) -> None:
    """Every stream behind the first `after` goes on: what came before has arrived."""
    wait_for(lambda: len(streams(receiver)) >= after + senders, "not everybody is heard")
    before = {each["stream"]: each["received"] for each in streams(receiver)[after:]}

    def moved() -> bool:
        now = {each["stream"]: each["received"] for each in streams(receiver)}
        return all(now[stream] > count + 100 for stream, count in before.items())

    wait_for(moved, "a stream stands still")


def losses(receiver: Control) -> list[dict[str, int]]:
    return [{name: each[name] for name in WHOLE} for each in streams(receiver)]


def migrate(
    cloud: Cloud, guest: Guest, receiver: Control, senders: int = 1, after: int = 0
) -> dict[str, Any]:
    """There, and wait until all has arrived; the report. The source's tap goes last: while Nova
    asks Neutron and the rest, a guest under TCG may not have said a word yet."""
    before = sum(event["type"] == COMPLETED for event in cloud.api.events(guest.uuid))
    source = guest.host
    guest.migrate(other(cloud, guest), unplug=False)
    wait_received(receiver, senders, after)
    guest.unplug(source)
    completed = cloud.wait_event(COMPLETED, guest.uuid, after=before)
    return dict(completed["data"])
