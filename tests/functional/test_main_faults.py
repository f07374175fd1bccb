"""What goes wrong during a migration, with a VM under traffic: its connections live wherever
libvirt leaves it running."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from migrations import SlowMigration, kill_at_switchover, qemu_pid

from devstack.cloud import Cloud, wait_for
from devstack.demo.traffic import Traffic
from devstack.lab import Host, Lab
from devstack.lab.cache import LOGS

FAILED = "vnet.instance.migration.failed"
COMPLETED = "vnet.instance.migration.completed"


class Scene:
    """One VM under traffic, on two hosts with the product."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cloud = Cloud(lab)
        self.cloud.start()
        self.web = lab.guest("web", lab.hosts[0], ("10.0.0.5/24", "fd00::5/64"))
        self.cloud.boot(self.web)
        self.peer = lab.peer("peer", ("10.0.0.100/24", "fd00::100/64"))
        self.traffic = Traffic(self.cloud, self.web, self.peer, count=40)
        self.traffic.open()
        self.traffic.close_door()

    @property
    def other(self) -> Host:
        (other,) = (host for host in self.lab.hosts if host is not self.web.host)
        return other

    def check_alive(self, host: Host) -> None:
        """The VM runs on this host, by libvirt and by the controller, with all its connections."""
        assert self.web.host is host
        assert self.web.active
        self.traffic.wait_progress(self.traffic.bundles, timeout=90)
        assert self.traffic.broken() == {}
        wait_for(
            lambda: self.cloud.api.get(f"/v1/instances/{self.web.uuid}")["host"] == host.name,
            f"the controller does not say that web runs on {host.name}",
        )
        ports = wait_for(
            lambda: [
                port
                for port in self.cloud.ports(host)
                if port["instance"] == self.web.uuid and port["role"] == "active"
            ],
            f"{host.name} does not have the port as active",
        )
        assert len(ports) == 1

    def count(self, kind: str) -> int:
        return sum(event["type"] == kind for event in self.cloud.api.events(self.web.uuid))

    def wait_phase(self, host: Host, phase: str) -> None:
        """Returns when the newest session on a host is in this phase."""

        def reached() -> bool:
            sessions = self.cloud.vnetctl(host, "migration", "list")
            return bool(sessions) and any(
                session["phase"] == phase and session["instance"] == self.web.uuid
                for session in sessions
            )

        wait_for(reached, f"no migration on {host.name} came to {phase}")


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab(wait=60, logs=LOGS) as lab:
        yield Scene(lab)


def migrate_slowly(scene: Scene, meanwhile: Callable[[SlowMigration], Any]) -> SlowMigration:
    migration = SlowMigration(scene.web, scene.other)
    destination = scene.other
    migration.start()
    scene.wait_phase(destination, "precopy")
    meanwhile(migration)
    migration.join(60)
    assert not migration.is_alive()
    return migration


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

    def kill(migration: SlowMigration) -> None:
        wait_for(
            lambda: any(
                session["connections_moved"]
                for session in scene.cloud.vnetctl(destination, "migration", "list")
                if session["phase"] == "precopy"
            ),
            "nothing was copied",
        )
        scene.cloud.agents[victim.name].kill()
        migration.speed_up()

    migration = migrate_slowly(scene, kill)
    assert migration.error is None
    scene.traffic.wait_progress(scene.traffic.bundles, timeout=90)
    assert scene.traffic.broken() == {}
    scene.cloud.start_agent(victim)
    scene.check_alive(destination)
