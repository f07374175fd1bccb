"""What agents talk over fails during a migration: their link, the controller, libvirt."""

import contextlib
from collections.abc import Iterator

import pytest
from fault_scene import COMPLETED, FAILED, Scene, migrate_slowly
from migrations import SlowMigration

from devstack.lab import Lab
from devstack.lab.cache import LOGS

AGENTS = 7471
LINKS = {
    "black hole": "drop",
    "1 Mbit/s": "limit rate over 125 kbytes/second drop",
}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab(wait=60, logs=LOGS) as lab:
        yield Scene(lab)


@pytest.mark.parametrize("link", LINKS)
def test_link_between_the_agents_fails_for_good(scene: Scene, link: str) -> None:
    """What was copied is in the kernel; the rest comes once the link is back, or not at all."""
    destination = scene.other
    completed = scene.count(COMPLETED)
    with contextlib.ExitStack() as fault:

        def spoil(migration: SlowMigration) -> None:
            scene.wait_copied(destination)
            fault.enter_context(scene.lab.fabric.impaired(AGENTS, LINKS[link]))
            migration.speed_up()

        migration = migrate_slowly(scene, spoil)
        assert migration.error is None
        scene.check_alive(destination)
    scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    scene.check_alive(destination)


@pytest.mark.parametrize("link", LINKS)
def test_link_between_the_agents_fails_from_the_beginning(scene: Scene, link: str) -> None:
    """And is well again before the guest goes: nothing is missing."""
    destination = scene.other
    completed = scene.count(COMPLETED)
    with scene.lab.fabric.impaired(AGENTS, LINKS[link]):
        migration = SlowMigration(scene.web, destination)
        migration.start()
        scene.wait_phase(destination, "prepare" if link != "1 Mbit/s" else "precopy")
    scene.wait_copied(destination)
    migration.speed_up()
    migration.join(60)
    assert migration.error is None
    event = scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    assert event["data"]["error"] is None
    scene.check_alive(destination)


def test_connections_between_the_agents_are_cut(scene: Scene) -> None:
    """A new stream begins with all that is needed, in pre-copy and at the end."""
    source, destination = scene.web.host, scene.other
    completed = scene.count(COMPLETED)

    def cut(migration: SlowMigration) -> None:
        for _ in range(3):
            scene.wait_copied(destination)
            assert "ESTAB" in source.run(["ss", "-K", "sport", "=", f":{AGENTS}"]).stdout
        migration.speed_up()
        source.run(["ss", "-K", "sport", "=", f":{AGENTS}"])

    migration = migrate_slowly(scene, cut)
    assert migration.error is None
    event = scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    assert event["data"]["error"] is None
    scene.check_alive(destination)


def test_controller_killed_in_precopy(scene: Scene) -> None:
    """It hears of everything when it is back."""
    destination = scene.other
    completed = scene.count(COMPLETED)

    def kill(migration: SlowMigration) -> None:
        assert scene.cloud.controller is not None
        scene.cloud.controller.kill()
        migration.speed_up()

    migration = migrate_slowly(scene, kill)
    assert migration.error is None
    scene.cloud.start_controller()
    event = scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    assert event["data"]["error"] is None
    scene.check_alive(destination)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_libvirtd_killed_in_precopy(scene: Scene, side: str) -> None:
    """libvirt gives the migration up; the guest stays, and so do its connections."""
    source, destination = scene.web.host, scene.other
    victim = source if side == "source" else destination
    failed = scene.count(FAILED)

    def kill(_: SlowMigration) -> None:
        victim.kill_libvirtd()
        victim.start_libvirtd()

    migration = migrate_slowly(scene, kill)
    assert migration.error is not None
    scene.cloud.wait_event(FAILED, scene.web.uuid, after=failed)
    scene.check_alive(source)
