"""The disk that an agent keeps its journal and its sessions on is full during a migration."""

from collections.abc import Iterator

import pytest
from fault_scene import COMPLETED, Scene, migrate_slowly

from devstack.lab import Host, Lab
from devstack.lab.cache import LOGS

STATE = "/var/lib/vnet"
FILLING = f"{STATE}/filling"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab(wait=60, logs=LOGS) as lab:
        for host in lab.hosts:
            host.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", STATE])
        yield Scene(lab)


def fill(host: Host) -> None:
    done = host.run(["dd", "if=/dev/zero", f"of={FILLING}", "bs=4096"])
    assert "No space left" in done.stderr


@pytest.mark.parametrize("side", ["source", "destination"])
def test_full_disk(scene: Scene, side: str) -> None:
    """The VM moves with its connections; what could not be written is, once there is room."""
    destination = scene.other
    victim = scene.web.host if side == "source" else destination
    completed = scene.count(COMPLETED)
    fill(victim)
    try:
        migration = migrate_slowly(scene, lambda slow: slow.speed_up())
        assert migration.error is None
        scene.traffic.wait_progress(scene.traffic.bundles, timeout=90)
        assert scene.traffic.broken() == {}
        assert "full" in scene.cloud.vnetctl(victim, "status")["events_error"]
    finally:
        victim.run(["rm", FILLING])
    event = scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    assert event["data"]["error"] is None
    scene.check_alive(destination)
    assert scene.count(COMPLETED) == completed + 1
