"""Migrations that last until a test has done its worst, and what it does to them."""

import contextlib
import pathlib
import subprocess
import sys
import threading

import libvirt
import psutil

from devstack.cloud import wait_for
from devstack.lab import Guest, Host
from devstack.lab.guest_vm import LIVE_MIGRATION

#: So slow that the pre-copy does not end, in MiB/s.
SLOW = 1
FAST = 1000


class SlowMigration(threading.Thread):
    """A live migration in the background that stays in pre-copy until `speed_up`.

    That should not be long: on a busy machine, a minute of pre-copy under TCG now and then ends
    with a panic of the guest's kernel at the destination.
    """

    def __init__(
        self, guest: Guest, destination: Host, *, flags: int = LIVE_MIGRATION, unplug: bool = True
    ) -> None:
        super().__init__(daemon=True)
        self._flags = flags
        self._unplug = unplug
        self.error: libvirt.libvirtError | None = None
        self.guest = guest
        self.destination = destination

    def run(self) -> None:
        try:
            self.guest.migrate(
                self.destination, flags=self._flags, unplug=self._unplug, bandwidth=SLOW
            )
        except libvirt.libvirtError as error:
            self.error = error

    def start_post_copy(self) -> None:
        """The guest goes on at the destination, where its memory comes page by page."""
        domain = self.guest.domain
        wait_for(lambda: domain.jobStats().get("memory_processed"), "libvirt sends no memory")
        domain.migrateStartPostCopy()

    def speed_up(self) -> None:
        """Only once memory is on its way: libvirt sets the migration's own speed before that."""
        with contextlib.suppress(libvirt.libvirtError):  # it may have ended meanwhile
            domain = self.guest.domain
            wait_for(lambda: domain.jobStats().get("memory_processed"), "libvirt sends no memory")
            domain.migrateSetMaxSpeed(FAST)


def qemu_pid(host: Host, guest: Guest) -> int:
    """The pid, as seen from here, of the guest's QEMU on a host, once it runs."""
    return wait_for(lambda: find_qemu(host, guest), f"no QEMU of {guest.name} on {host.name}")


def find_qemu(host: Host, guest: Guest) -> int:
    """0 when there is none. The network namespace tells whose it is."""
    wanted = f"guest={guest.name},"
    network = host.namespace.path.stat().st_ino
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(wanted) for word in process.info["cmdline"] or ()):
            with contextlib.suppress(FileNotFoundError):
                if pathlib.Path(f"/proc/{process.pid}/ns/net").stat().st_ino == network:
                    return process.pid
    return 0


def kill_at_switchover(
    migration: SlowMigration, source: Host, destination: Host, ready: pathlib.Path
) -> None:
    """Lets it come to its end, and kills the destination's QEMU when the guest has paused."""
    script = pathlib.Path(__file__).with_name("switchover.py")
    guest = migration.guest
    pid = qemu_pid(destination, guest)
    argv = [sys.executable, str(script), source.uri, guest.uuid, str(pid), str(ready)]
    with subprocess.Popen(argv) as killer:
        wait_for(ready.exists, "the killer did not start")
        migration.speed_up()
        assert killer.wait(60) == 0
