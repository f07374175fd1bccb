"""What moves is judged by the destination's own rules, whatever the source's allowed."""

from collections.abc import Iterator

import pytest
from datagrams import COMPLETED
from migrations import SlowMigration

from devstack.cloud import Cloud, wait_for
from devstack.lab import Guest, Host, Lab, Peer
from devstack.lab.cache import LOGS

GROUP = "doors"
#: The guest's ports: allowed everywhere, only at the source, and only at the destination.
BOTH, SOURCE, DESTINATION = 5100, 5200, 5300
COUNT = 20


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Lab(wait=60, logs=LOGS) as lab:
        cloud = Cloud(lab)
        cloud.start()
        yield cloud


def allow(cloud: Cloud, host: Host, port: int) -> None:
    """On one host only."""
    words = f"rule add {GROUP} --direction ingress --protocol tcp --ports {port} --force"
    cloud.vnetctl(host, *words.split())


def received(guest: Guest, port: int) -> int:
    return int(guest.control.group(str(port))["received"])


def wait_more(guest: Guest, port: int) -> None:
    before = received(guest, port)
    wait_for(lambda: received(guest, port) > before + 4 * COUNT, f"port {port} hears nothing")


def dial(peer: Peer, guest: Guest, name: str, port: int, count: int) -> None:
    peer.control.dial(name, guest.address, count, port=port, interval_ms=100)


def is_open(peer: Peer, name: str, count: int) -> bool:
    return bool(peer.control.group(name)["open"] == count)


def test_rules_of_the_destination(cloud: Cloud) -> None:
    source, destination = cloud.lab.hosts
    guest = cloud.lab.guest("judged", source, ("10.0.0.5/24",))
    cloud.boot(guest)
    cloud.put_group(GROUP, [{"direction": "ingress", "protocol": "tcp", "ports": BOTH}])
    allow(cloud, source, SOURCE)
    allow(cloud, destination, DESTINATION)
    peer = cloud.lab.peer("peer", ("10.0.0.100/24",))
    for port in (BOTH, SOURCE, DESTINATION):
        guest.control.listen(str(port), port)
        dial(peer, guest, str(port), port, COUNT)
    for port in (BOTH, SOURCE):
        wait_more(guest, port)
    assert is_open(peer, str(DESTINATION), 0)

    migration = SlowMigration(guest, destination)
    migration.start()
    wait_for(
        lambda: any(
            session["connections_moved"]
            for session in cloud.vnetctl(destination, "migration", "list")
        ),
        "nothing was copied",
    )
    for port in (BOTH, SOURCE):
        dial(peer, guest, f"late-{port}", port, COUNT)
        wait_for(lambda name=f"late-{port}": is_open(peer, name, COUNT), f"{port} is not open")
    migration.speed_up()
    migration.join(60)
    assert migration.error is None
    report = cloud.wait_event(COMPLETED, guest.uuid)["data"]
    assert report["connections_refused"]["policy"] >= 2 * COUNT

    heard = received(guest, SOURCE)
    wait_more(guest, BOTH)
    assert received(guest, SOURCE) == heard
    assert is_open(peer, f"late-{BOTH}", COUNT)
    assert (
        peer.control.group(str(BOTH))["reset"] == peer.control.group(f"late-{BOTH}")["reset"] == 0
    )
    dial(peer, guest, "new", DESTINATION, COUNT)
    wait_for(lambda: is_open(peer, "new", COUNT), "the destination's own rule is not honoured")
