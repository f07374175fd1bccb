"""What goes wrong during a migration, with a VM under traffic: its connections live wherever
libvirt leaves it running."""

import dataclasses
import pathlib
from collections.abc import Iterator

import psutil
import pytest
from fault_scene import COMPLETED, FAILED, Scene, migrate_slowly
from migrations import SlowMigration, kill_at_switchover, qemu_pid

from devstack.cloud import wait_for
from devstack.lab import Lab
from devstack.lab.cache import LOGS

#: The least that [datapath] connection_quota may be.
ROOM = 64


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab(wait=60, logs=LOGS) as lab:
        yield Scene(lab)


def test_abort_by_the_operator(scene: Scene) -> None:
    source = scene.web.host
    failed = scene.count(FAILED)
    migration = migrate_slowly(scene, lambda _: scene.web.domain.abortJob())
    assert migration.error is not None
    scene.cloud.wait_event(FAILED, scene.web.uuid, after=failed)
    scene.check_alive(source)


def test_destination_qemu_killed_in_precopy(scene: Scene) -> None:
    source, destination = scene.web.host, scene.other
    failed = scene.count(FAILED)
    migration = migrate_slowly(
        scene, lambda _: psutil.Process(qemu_pid(destination, scene.web)).kill()
    )
    assert migration.error is not None
    scene.cloud.wait_event(FAILED, scene.web.uuid, after=failed)
    scene.check_alive(source)


def test_destination_qemu_killed_at_switchover(scene: Scene, tmp_path: pathlib.Path) -> None:
    source, destination = scene.web.host, scene.other
    failed = scene.count(FAILED)

    def kill(migration: SlowMigration) -> None:
        kill_at_switchover(migration, source, destination, tmp_path / "ready")

    migration = migrate_slowly(scene, kill)
    assert migration.error is not None
    scene.cloud.wait_event(FAILED, scene.web.uuid, after=failed)
    scene.check_alive(source)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_agent_killed_in_precopy(scene: Scene, side: str) -> None:
    source, destination = scene.web.host, scene.other
    victim = source if side == "source" else destination
    completed = scene.count(COMPLETED)

    def kill_and_restart(migration: SlowMigration) -> None:
        scene.cloud.agents[victim.name].kill()
        scene.cloud.start_agent(victim)
        migration.speed_up()

    migration = migrate_slowly(scene, kill_and_restart)
    assert migration.error is None
    scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    scene.check_alive(destination)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_agent_killed_and_away_until_the_end(scene: Scene, side: str) -> None:
    """What was copied before is in the kernel: the connections live with no agent at all."""
    source, destination = scene.web.host, scene.other
    victim = source if side == "source" else destination
    completed = scene.count(COMPLETED)

    def kill(migration: SlowMigration) -> None:
        scene.wait_copied(destination)
        scene.cloud.agents[victim.name].kill()
        migration.speed_up()

    migration = migrate_slowly(scene, kill)
    assert migration.error is None
    scene.traffic.wait_progress(scene.traffic.bundles, timeout=90)
    assert scene.traffic.broken() == {}
    scene.cloud.start_agent(victim)
    scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    scene.check_alive(destination)


def test_destination_without_room(scene: Scene) -> None:
    """The newest connections live; others are counted, and the VM moves all the same."""
    destination = scene.other
    completed = scene.count(COMPLETED)
    scene.cloud.agents[destination.name].kill()
    scene.cloud.configure_agent(destination, datapath={"connection_quota": ROOM})
    scene.cloud.start_agent(destination)
    out = scene.traffic.outgoing[0]
    newest = ROOM - 8
    out.dialer.dial("more", out.target, newest, port=out.port)
    wait_for(lambda: out.dialer.group("more")["open"] == newest, "they did not open")

    migration = migrate_slowly(scene, lambda slow: slow.speed_up())
    assert migration.error is None
    report = scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)["data"]
    assert report["connections_moved"] == ROOM
    assert report["connections_refused"]["quota"] > 0
    assert report["error"] is None
    assert scene.web.host is destination
    more = dataclasses.replace(out, name="more")
    before = scene.traffic.received(more)
    wait_for(
        lambda: all(
            count > before[local] + 2 for local, count in scene.traffic.received(more).items()
        ),
        "the newest connections carry nothing",
    )
    group = out.dialer.group("more")
    assert (group["open"], group["reset"], group["timed_out"]) == (newest, 0, 0)
