"""Kills a process the moment libvirt says that a guest was paused for the end of a migration.

    python switchover.py LIBVIRT_URI DOMAIN_UUID PID READY_FILE

A process of its own, since libvirt's event loop must be registered before any connection is made.
"""

import os
import pathlib
import signal
import sys
from typing import Any

import libvirt


def main() -> None:
    uri, uuid, pid, ready = sys.argv[1:]
    done = False

    def on_lifecycle(
        connection: Any, domain: Any, event: int, detail: int, opaque: object
    ) -> None:
        nonlocal done
        if domain.UUIDString() == uuid and (event, detail) == (
            libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
            libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED,
        ):
            os.kill(int(pid), signal.SIGKILL)
            done = True

    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(uri)
    connection.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle, None
    )
    pathlib.Path(ready).touch()
    while not done:
        libvirt.virEventRunDefaultImpl()


if __name__ == "__main__":
    main()
