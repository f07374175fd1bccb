"""Ten VMs that move at once, and one that goes to its host's disk and comes back."""

import concurrent.futures
from collections.abc import Iterator

import pytest

from devstack.cloud import Cloud, wait_for
from devstack.demo.traffic import Traffic
from devstack.lab import Guest, Lab, Peer
from devstack.lab.cache import LOGS

COMPLETED = "vnet.instance.migration.completed"
GUESTS = 10
#: Of each guest.
CONNECTIONS = 5


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Lab(wait=60, logs=LOGS) as lab:
        cloud = Cloud(lab)
        cloud.start()
        yield cloud


def test_ten_at_once(cloud: Cloud) -> None:
    here, there = cloud.lab.hosts
    peer = cloud.lab.peer("peer", ("10.0.0.100/24",))
    guests = [cloud.lab.guest(f"ten-{n}", here, (f"10.0.0.{10 + n}/24",)) for n in range(GUESTS)]
    try:
        cloud.boot(*guests)
        cloud.put_group("open", [{"direction": "ingress"}, {"direction": "egress"}])
        for guest in guests:
            peer.control.dial(guest.name, guest.address, CONNECTIONS)
        for guest in guests:
            wait_for(lambda name=guest.name: is_whole(peer, name), f"{guest.name} does not answer")
        with concurrent.futures.ThreadPoolExecutor(GUESTS) as pool:
            list(pool.map(lambda guest: guest.migrate(there), guests))
        for guest in guests:
            report = cloud.wait_event(COMPLETED, guest.uuid)["data"]
            assert report["connections_moved"] >= CONNECTIONS, report
            assert report["error"] is None
        before = {guest.name: received(peer, guest) for guest in guests}
        for guest in guests:
            wait_for(
                lambda guest=guest: received(peer, guest) > before[guest.name] + 2 * CONNECTIONS,
                f"{guest.name} carries nothing",
            )
            assert is_whole(peer, guest.name)
        assert {port["instance"] for port in cloud.ports(there)} >= {g.uuid for g in guests}
        assert cloud.ports(here) == []
    finally:
        cloud.api.delete("/v1/groups/open")
        for guest in guests:
            guest.destroy()
        peer.stop()


def received(peer: Peer, guest: Guest) -> int:
    return int(peer.control.group(guest.name)["received"])


def is_whole(peer: Peer, name: str) -> bool:
    """All connections of the group are open, and none of them was hurt."""
    group = peer.control.group(name)
    hurt = ("failed", "reset", "timed_out", "closed", "out_of_order", "corrupt")
    return group["open"] == CONNECTIONS and not any(group[kind] for kind in hurt)


def test_managed_save_and_restore(cloud: Cloud) -> None:
    """It is no migration, and its connections are there when it is back."""
    guest = cloud.lab.guest("saved", cloud.lab.hosts[0], ("10.0.0.5/24", "fd00::5/64"))
    peer = cloud.lab.peer("saver", ("10.0.0.101/24", "fd00::101/64"))
    cloud.boot(guest)
    try:
        traffic = Traffic(cloud, guest, peer, count=20)
        traffic.open()
        traffic.close_door()
        guest.domain.managedSave()
        assert not guest.active
        guest.domain.create()
        traffic.wait_progress(traffic.bundles)
        assert traffic.broken() == {}
        wait_for(lambda: len(life(cloud, guest)) == 3, "the controller did not hear of it")
        assert life(cloud, guest) == ["started", "stopped", "started"]
        listed = cloud.vnetctl(guest.host, "migration", "list")
        assert guest.uuid not in {migration["instance"] for migration in listed}
    finally:
        guest.destroy()
        peer.stop()


def life(cloud: Cloud, guest: Guest) -> list[str]:
    kinds = [
        event["type"].removeprefix("vnet.instance.") for event in cloud.api.events(guest.uuid)
    ]
    return [kind for kind in kinds if kind in ("started", "stopped")]
