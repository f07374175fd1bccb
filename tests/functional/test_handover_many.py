"""Several ports, several VMs at once, and a VM that its user has paused."""

import concurrent.futures
from collections.abc import Iterator

import libvirt
import pytest
from datagrams import COMPLETED, RULES, WHOLE, losses, migrate, other, streams, wait_received
from migrations import SlowMigration

from devstack.cloud import Cloud, wait_for
from devstack.lab import Guest, Lab, Nic, Peer
from devstack.lab.cache import LOGS
from devstack.lab.guest_vm import LIVE_MIGRATION

RATE = 1000


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Lab(wait=60, logs=LOGS) as lab:
        cloud = Cloud(lab)
        cloud.start()
        cloud.put_group("door", RULES)
        yield cloud


@pytest.fixture(scope="module")
def peer(cloud: Cloud) -> Peer:
    return cloud.lab.peer("peer", [f"10.0.{net}.100/24" for net in range(4)])


def test_four_ports(cloud: Cloud, peer: Peer) -> None:
    nics = [Nic(addresses=(f"10.0.{net}.4/24",)) for net in range(4)]
    guest = cloud.lab.guest("four", cloud.lab.hosts[0], nics=nics)
    cloud.boot(guest)
    for net in range(4):
        peer.control.send_udp(f"to-{net}", f"10.0.{net}.4", RATE)
    try:
        wait_received(guest.control, 4)
        for _ in range(2):
            report = migrate(cloud, guest, guest.control, 4)
            assert losses(guest.control) == [WHOLE] * 4, report
            assert (report["frames_lost"], report["frames_duplicated"]) == (0, 0)
    finally:
        for net in range(4):
            peer.control.close_udp(f"to-{net}")
        guest.destroy()


def test_port_that_nobody_hears_of(cloud: Cloud, peer: Peer) -> None:
    """That others know the way to one port does not say that they know it to the next."""
    nics = [Nic(addresses=(f"10.0.{net}.5/24",)) for net in range(2)]
    guest = cloud.lab.guest("unheard", cloud.lab.hosts[0], nics=nics)
    near = cloud.lab.guest("near", cloud.lab.hosts[0], ("10.0.1.6/24",))
    cloud.boot(guest, near)
    senders = [(peer, "10.0.0.5"), (peer, "10.0.1.5"), (near, "10.0.1.5")]
    for number, (sender, address) in enumerate(senders):
        sender.control.send_udp(f"heard-{number}", address, RATE)
    try:
        wait_received(guest.control, 3)
        guest.control.send_udp("answer", "10.0.1.100", 5)  # at last they hear
        with cloud.lab.fabric.hushed(guest.spec.nics[1].mac):
            report = migrate(cloud, guest, guest.control, 3)
            assert losses(guest.control) == [WHOLE] * 3, report
    finally:
        for number in range(2):
            peer.control.close_udp(f"heard-{number}")
        near.destroy()
        guest.destroy()


def test_two_that_change_places(cloud: Cloud, peer: Peer) -> None:
    guests = [
        cloud.lab.guest(f"place-{n}", cloud.lab.hosts[n], (f"10.0.0.{30 + n}/24",))
        for n in range(2)
    ]
    cloud.boot(*guests)
    for guest in guests:
        peer.control.send_udp(guest.name, guest.address, RATE)
    try:
        for guest in guests:
            wait_received(guest.control)

        def move(guest: Guest) -> None:
            migrate(cloud, guest, guest.control)

        for _ in range(2):
            with concurrent.futures.ThreadPoolExecutor() as pool:
                list(pool.map(move, guests))
            assert [losses(guest.control) for guest in guests] == [[WHOLE]] * 2
    finally:
        for guest in guests:
            peer.control.close_udp(guest.name)
            guest.destroy()


def test_there_and_back_at_once(cloud: Cloud, peer: Peer) -> None:
    """Taps stay where they are: what the first migration still holds must not be in the way."""
    guest = cloud.lab.guest("back", cloud.lab.hosts[0], ("10.0.0.42/24",))
    cloud.boot(guest)
    peer.control.send_udp("back", guest.address, RATE)
    try:
        wait_received(guest.control)
        for _ in range(4):
            guest.migrate(other(cloud, guest), unplug=False)
        wait_received(guest.control)
        assert losses(guest.control) == [WHOLE]
        for number in range(4):
            cloud.wait_event(COMPLETED, guest.uuid, after=number)
    finally:
        peer.control.close_udp("back")
        guest.destroy()
        guest.unplug(other(cloud, guest))


def test_post_copy(cloud: Cloud, peer: Peer) -> None:
    guest = cloud.lab.guest("post", cloud.lab.hosts[0], ("10.0.0.41/24",))
    cloud.boot(guest)
    peer.control.send_udp("post", guest.address, RATE)
    try:
        wait_received(guest.control)
        destination = other(cloud, guest)
        flags = LIVE_MIGRATION | libvirt.VIR_MIGRATE_POSTCOPY
        migration = SlowMigration(guest, destination, flags=flags)
        migration.start()
        migration.start_post_copy()
        migration.join(60)
        assert migration.error is None
        report = cloud.wait_event(COMPLETED, guest.uuid)["data"]
        assert any("POSTCOPY" in step["detail"] for step in report["steps"])
        wait_received(guest.control)
        assert losses(guest.control) == [WHOLE]
        assert (report["frames_lost"], report["frames_duplicated"]) == (0, 0)
    finally:
        peer.control.close_udp("post")
        guest.destroy()


def test_paused_by_its_user(cloud: Cloud, peer: Peer) -> None:
    """It arrives as it left; what was sent to it meanwhile waits, but for the one frame that its
    last QEMU has taken, which the report does not hide."""
    guest = cloud.lab.guest("paused", cloud.lab.hosts[0], ("10.0.0.40/24",))
    cloud.boot(guest)
    peer.control.send_udp("paused", guest.address, RATE // 10)
    try:
        wait_received(guest.control)
        guest.domain.suspend()
        source = guest.host
        guest.migrate(other(cloud, guest), unplug=False)
        guest.domain.resume()
        report = cloud.wait_event(COMPLETED, guest.uuid)["data"]
        guest.unplug(source)
        wait_received(guest.control)
        (stream,) = streams(guest.control)
        assert stream["lost"] <= 1
        assert (stream["late"], stream["doubled"]) == (0, 0)
        assert report["frames_duplicated"] is None
        assert report["frames_replayed"] > 0
        wait_for(
            lambda: cloud.api.get(f"/v1/instances/{guest.uuid}")["host"] == guest.host.name,
            "the controller does not know where it is",
        )
    finally:
        peer.control.close_udp("paused")
        guest.destroy()
