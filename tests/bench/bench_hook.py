"""What the libvirt hook costs a VM's start: with hook and agent, and without, in turn.

Two hosts of the lab, one with the hook and one without; the VM is started paused, so that only
libvirt's and QEMU's own work is in the figure, and destroyed again.
"""

import time

import libvirt
import result

from devstack.cloud import Cloud
from devstack.cloud.cloud import HOOK
from devstack.lab import Guest, Lab


def measure_start(guest: Guest) -> tuple[float, float]:
    """Milliseconds of one start and of one destroy."""
    began = time.perf_counter()
    guest.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    started = time.perf_counter()
    guest.domain.destroy()
    return (started - began) * 1e3, (time.perf_counter() - started) * 1e3


def main() -> None:
    rounds = 5 if result.is_quick() else 20
    with Lab() as lab:
        cloud = Cloud(lab, {"controller": {"url": ""}})
        hooked, plain = lab.hosts
        hooked.install_hook(["/usr/bin/python3", "-I", "-S", str(HOOK)])
        cloud.configure_agent(hooked)
        cloud.start_agent(hooked)
        guests = [
            lab.guest("hooked", hooked, ("10.0.0.5/24",)),
            lab.guest("plain", plain, ("10.0.0.6/24",)),
        ]
        times: list[list[tuple[float, float]]] = [[], []]
        for guest in guests:
            guest.define()
            guest.plug(guest.host)
            measure_start(guest)
        for _ in range(rounds):
            for guest, found in zip(guests, times, strict=True):
                found.append(measure_start(guest))
    starts = [[start for start, _ in found] for found in times]
    stops = [[stop for _, stop in found] for found in times]
    result.write(
        "hook",
        [
            result.Row("VM start with the hook", "ms", starts[0], "no hook", starts[1]),
            result.Row("VM start without it", "ms", starts[1]),
            result.Row("VM destroy with the hook", "ms", stops[0], "no hook", stops[1]),
            result.Row("VM destroy without it", "ms", stops[1]),
        ],
    )


if __name__ == "__main__":
    main()
