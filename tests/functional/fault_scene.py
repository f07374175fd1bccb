"""A VM under traffic that moves while a test does its worst."""

from collections.abc import Callable
from typing import Any

from migrations import SlowMigration

from devstack.cloud import Cloud, wait_for
from devstack.demo.traffic import Traffic
from devstack.lab import Host, Lab

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

    def wait_copied(self, host: Host) -> None:
        """Returns when connections have come to the destination of the migration that goes on."""
        wait_for(
            lambda: any(
                session["connections_moved"]
                for session in self.cloud.vnetctl(host, "migration", "list")
                if session["phase"] == "precopy"
            ),
            "nothing was copied",
        )

    def wait_phase(self, host: Host, phase: str) -> None:
        """Returns when the newest session on a host is in this phase."""

        def reached() -> bool:
            sessions = self.cloud.vnetctl(host, "migration", "list")
            return bool(sessions) and any(
                session["phase"] == phase and session["instance"] == self.web.uuid
                for session in sessions
            )

        wait_for(reached, f"no migration on {host.name} came to {phase}")


def migrate_slowly(scene: Scene, meanwhile: Callable[[SlowMigration], Any]) -> SlowMigration:
    migration = SlowMigration(scene.web, scene.other)
    destination = scene.other
    migration.start()
    scene.wait_phase(destination, "precopy")
    meanwhile(migration)
    migration.join(60)
    assert not migration.is_alive()
    return migration
