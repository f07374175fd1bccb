"""Faults at the moment when a migration comes to a phase that is over in milliseconds."""

import threading
import time
from collections.abc import Callable

from fault_scene import Scene
from migrations import SlowMigration

from devstack.lab import Host


class AtPhase(threading.Thread):
    """Does its worst once the agent of a host writes that its session is in this phase."""

    def __init__(self, scene: Scene, host: Host, phase: str, worst: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._log = scene.cloud.agents[host.name].log
        self._from = self._log.stat().st_size
        side = "source" if host is scene.web.host else "destination"
        self._line = f" of {scene.web.name} ({side}): {phase}".encode()
        self._worst = worst
        self.done = False

    def run(self) -> None:
        deadline = time.monotonic() + 60
        with open(self._log, "rb") as log:
            log.seek(self._from)
            seen = b""
            while self._line not in seen and time.monotonic() < deadline:
                time.sleep(0.0005)
                seen = seen[-len(self._line) :] + log.read()
        if self._line in seen:
            self._worst()
            self.done = True


def move(
    scene: Scene, host: Host, phase: str, worst: Callable[[], object], *, unplug: bool = True
) -> SlowMigration:
    """Moves the VM, with the worst at a phase of the host's session; returns when it is done."""
    destination = scene.other
    killer = AtPhase(scene, host, phase, worst)
    migration = SlowMigration(scene.web, destination, unplug=unplug)
    killer.start()
    migration.start()
    if phase == "prepare":
        killer.join(60)
    else:
        scene.wait_copied(destination)
        migration.speed_up()
        killer.join(60)
    assert killer.done, f"{host.name} was never in {phase}"
    return migration


def finish(scene: Scene, migration: SlowMigration, phase: str) -> None:
    """After the worst at that phase."""
    if phase == "prepare":
        scene.wait_copied(migration.destination)
        migration.speed_up()
    migration.join(60)
    assert not migration.is_alive()
