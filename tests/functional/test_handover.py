"""Frames of a VM that moves: each reaches it once, and in order, whoever sends it from where."""

import itertools
import os
import pathlib
from collections.abc import Iterator

import pytest
from datagrams import RULES, WHOLE, losses, migrate, other, streams, wait_received
from migrations import SlowMigration, kill_at_switchover

from devstack.cloud import Cloud, wait_for
from devstack.lab import Guest, Lab, Peer
from devstack.lab.cache import LOGS

FAILED = "vnet.instance.migration.failed"
#: `make test-handover` moves it more often, and under more datagrams a second: so many that the
#: guest takes them only on a machine that has nothing else to do.
MIGRATIONS = int(os.environ.get("VNET_MIGRATIONS", "4"))
RATE = int(os.environ.get("VNET_RATE", "2000"))
ADDRESSES = itertools.count(20)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(wait=60, logs=LOGS) as lab:
        yield lab


@pytest.fixture(scope="module")
def cloud(lab: Lab) -> Cloud:
    cloud = Cloud(lab)
    cloud.start()
    cloud.put_group("door", RULES)
    return cloud


@pytest.fixture(scope="module")
def peer(cloud: Cloud) -> Peer:
    return cloud.lab.peer("peer", ("10.0.0.100/24",))


@pytest.fixture
def mover(cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[Guest]:
    # Addresses of their own: the peer remembers the MAC of the last one for a while.
    address = f"10.0.0.{next(ADDRESSES)}/24"
    yield from boot(cloud, request.node.name.removeprefix("test_")[:20], address)


def boot(cloud: Cloud, name: str, address: str, on: int = 0) -> Iterator[Guest]:
    guest = cloud.lab.guest(name.replace("_", "-"), cloud.lab.hosts[on], (address,))
    cloud.boot(guest)
    yield guest
    guest.destroy()


def test_to_the_vm(cloud: Cloud, mover: Guest, peer: Peer) -> None:
    peer.control.send_udp("to-vm", mover.address, RATE)
    try:
        wait_received(mover.control)
        for _ in range(MIGRATIONS):
            report = migrate(cloud, mover, mover.control)
            assert losses(mover.control) == [WHOLE], report
            assert report["frames_replayed"] > 0
            assert (report["frames_lost"], report["frames_duplicated"]) == (0, 0)
            assert report["network_gap_ms"] is not None
    finally:
        peer.control.close_udp("to-vm")


def test_from_the_vm(cloud: Cloud, mover: Guest, peer: Peer) -> None:
    before = len(streams(peer.control))
    mover.control.send_udp("from-vm", peer.address, RATE)
    wait_received(peer.control, 1, before)
    for _ in range(MIGRATIONS):
        migrate(cloud, mover, peer.control, 1, before)
        assert losses(peer.control)[before:] == [WHOLE]


def test_all_around_in_silence(cloud: Cloud, mover: Guest, peer: Peer) -> None:
    """Peers on both hosts and on a third, of which none hears that the VM has moved."""
    guests = [boot(cloud, "near", "10.0.0.6/24", 0), boot(cloud, "far", "10.0.0.7/24", 1)]
    near, far = (next(each) for each in guests)
    mine = len(streams(peer.control))
    mover.control.send_udp("answer", peer.address, 100)
    senders = (peer.control, near.control, far.control)
    for control in senders:
        control.send_udp("around", mover.address, 500)
    try:
        wait_received(mover.control, 3)
        wait_received(peer.control, 1, mine)
        with cloud.lab.fabric.hushed():
            for _ in range(MIGRATIONS // 2):
                report = migrate(cloud, mover, mover.control, 3)
                wait_received(peer.control, 1, mine)
                assert losses(mover.control) == [WHOLE] * 3, report
                assert losses(peer.control)[mine:] == [WHOLE]
    finally:
        peer.control.close_udp("around")
        for each in guests:
            next(each, None)


def test_vm_that_stays_after_all(
    cloud: Cloud, mover: Guest, peer: Peer, tmp_path: pathlib.Path
) -> None:
    """Its new QEMU dies when the old one has paused: what was taken from the tap is put back."""
    peer.control.send_udp("to-vm", mover.address, 1000)
    try:
        wait_received(mover.control)
        source, destination = mover.host, other(cloud, mover)
        migration = SlowMigration(mover, destination)
        migration.start()
        wait_for(
            lambda: any(
                each["phase"] == "precopy" and each["instance"] == mover.uuid
                for each in cloud.vnetctl(destination, "migration", "list")
            ),
            "no pre-copy",
        )
        kill_at_switchover(migration, source, destination, tmp_path / "ready")
        migration.join(60)
        assert migration.error is not None
        cloud.wait_event(FAILED, mover.uuid)
        wait_received(mover.control)
        (stream,) = streams(mover.control)
        assert (stream["lost"], stream["doubled"]) == (0, 0)
    finally:
        peer.control.close_udp("to-vm")


def test_control_without_hand_over(cloud: Cloud, mover: Guest, peer: Peer) -> None:
    """What the tests above count is lost without it."""
    for host in cloud.lab.hosts:
        cloud.configure_agent(host, migration={"hand_over_frames": False})
        cloud.agents[host.name].stop()
        cloud.start_agent(host)
    peer.control.send_udp("to-vm", mover.address, RATE)
    try:
        wait_received(mover.control)
        report = migrate(cloud, mover, mover.control)
        assert losses(mover.control)[0]["lost"] > 0
        assert report["frames_lost"] is None
    finally:
        peer.control.close_udp("to-vm")
