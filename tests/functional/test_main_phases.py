"""What dies in each phase of a migration, and where the VM runs afterwards with its connections.

Pre-copy, which lasts, has its faults in test_main_faults.py and test_main_links.py.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

import libvirt
import pytest
from fault_scene import COMPLETED, FAILED, Scene
from migrations import qemu_pid
from phases import finish, move

from devstack.cloud import wait_for
from devstack.lab import Host, Lab
from devstack.lab.cache import LOGS

PHASES = ["prepare", "handover", "active", "drain"]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab(wait=60, logs=LOGS) as lab:
        yield Scene(lab)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("side", ["source", "destination"])
def test_agent_killed(scene: Scene, side: str, phase: str) -> None:
    """Its next life takes the session up where the VM is by then."""
    destination = scene.other
    victim = scene.web.host if side == "source" else destination
    completed = scene.count(COMPLETED)
    migration = move(scene, victim, phase, scene.cloud.agents[victim.name].kill)
    scene.cloud.start_agent(victim)
    finish(scene, migration, phase)
    assert migration.error is None
    scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    scene.check_alive(destination)
    assert scene.count(COMPLETED) == completed + 1


@pytest.mark.parametrize("phase", PHASES)
def test_controller_killed(scene: Scene, phase: str) -> None:
    """Only to find the source takes a controller, where the agents were not told of each other."""
    destination = scene.other
    completed = scene.count(COMPLETED)
    assert scene.cloud.controller is not None
    migration = move(scene, destination, phase, scene.cloud.controller.kill)
    if phase == "prepare":
        scene.cloud.start_controller()
    finish(scene, migration, phase)
    assert migration.error is None
    if phase != "prepare":
        scene.cloud.start_controller()
    event = scene.cloud.wait_event(COMPLETED, scene.web.uuid, after=completed)
    assert event["data"]["error"] is None
    scene.check_alive(destination)
    assert scene.count(COMPLETED) == completed + 1


def running_on(scene: Scene) -> list[Host]:
    """Where libvirt runs the VM."""
    hosts = []
    for host in scene.lab.hosts:
        with contextlib.suppress(libvirt.libvirtError):
            domain = host.connect().lookupByUUIDString(scene.web.uuid)
            if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
                hosts.append(host)
    return hosts


def leave_running_on(scene: Scene, owner: Host) -> None:
    """What an operator does with what libvirt left of the VM on another host."""
    (other,) = (host for host in scene.lab.hosts if host is not owner)
    with contextlib.suppress(libvirt.libvirtError):
        left = other.connect().lookupByUUIDString(scene.web.uuid)
        with contextlib.suppress(libvirt.libvirtError):
            left.destroy()
        left.undefine()
    scene.web.host = owner
    scene.web.unplug(other)


# Not the destination's once the guest runs there: libvirt then lets it run on both hosts.
@pytest.mark.parametrize(
    ("side", "phase"),
    [
        ("source", "prepare"),
        ("source", "handover"),
        ("source", "active"),
        ("destination", "prepare"),
        ("destination", "handover"),
    ],
)
def test_libvirtd_killed(scene: Scene, side: str, phase: str) -> None:
    """libvirt decides where the VM goes on, and its connections are there."""
    source, destination = scene.web.host, scene.other
    victim = source if side == "source" else destination
    migration = move(scene, victim, phase, victim.kill_libvirtd)
    migration.join(60)
    victim.start_libvirtd()
    (owner,) = wait_for(lambda: running_on(scene), "it runs nowhere")
    scene.web.host = owner
    scene.check_alive(owner)
    leave_running_on(scene, owner)
    scene.check_alive(owner)


@pytest.mark.parametrize("phase", ["prepare", "handover"])
def test_abort_by_the_operator(scene: Scene, phase: str) -> None:
    """libvirt may have passed the point of no return."""
    source, destination = scene.web.host, scene.other

    def abort() -> None:
        with contextlib.suppress(libvirt.libvirtError):
            source.connect().lookupByUUIDString(scene.web.uuid).abortJob()

    migration = move(scene, source, phase, abort)
    migration.join(60)
    assert not migration.is_alive()
    owner = destination if migration.error is None else source
    scene.check_alive(owner)
    leave_running_on(scene, owner)


def test_destination_qemu_killed_in_prepare(scene: Scene) -> None:
    source, destination = scene.web.host, scene.other
    failed = scene.count(FAILED)

    def kill() -> None:
        os.kill(qemu_pid(destination, scene.web), signal.SIGKILL)

    migration = move(scene, destination, "prepare", kill)
    migration.join(60)
    assert migration.error is not None
    scene.cloud.wait_event(FAILED, scene.web.uuid, after=failed)
    scene.check_alive(source)
