"""What the libvirt hook costs: a call of it, and a VM's start with hook and agent and without.

A call is timed from the start of its process to its end, inside the host, with the agent running,
hung (stopped by a signal), and gone; and beside it an interpreter that does nothing. For the VM's
start there are two hosts of the lab in turn, one with the hook and one without; it is started
paused, so that only libvirt's and QEMU's own work is in the figure, and destroyed again.
"""

import json
import signal
import time

import libvirt
import result

from devstack.cloud import Cloud
from devstack.cloud.cloud import HOOK
from devstack.lab import Guest, Host, Lab

EMPTY = "an interpreter that does nothing"
PYTHON = ["/usr/bin/python3", "-I", "-S"]
COMMAND = [*PYTHON, str(HOOK)]
#: Runs inside the host: ROUNDS XML ARGV..., answers milliseconds.
CALLER = """
import json, subprocess, sys, time
found = []
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    subprocess.run(sys.argv[3:], input=sys.argv[2].encode(), check=True, stdout=subprocess.DEVNULL)
    found.append((time.perf_counter() - began) * 1e3)
print(json.dumps(found))
"""


def measure_calls(host: Host, rounds: int, xml: str, argv: list[str]) -> list[float]:
    """Milliseconds of each call."""
    done = host.run(["/usr/bin/python3", "-c", CALLER, str(rounds), xml, *argv])
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr}")
    return [float(value) for value in json.loads(done.stdout)]


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
        hooked.install_hook(COMMAND)
        cloud.configure_agent(hooked)
        agent = cloud.start_agent(hooked)
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
        xml = guests[0].domain.XMLDesc()
        call = [*COMMAND, guests[0].name, "prepare", "begin", "-"]
        idle = measure_calls(hooked, rounds, "", [*PYTHON, "-c", "pass"])
        answered = measure_calls(hooked, rounds, xml, call)
        agent.signal(signal.SIGSTOP)
        hung = measure_calls(hooked, rounds, xml, call)
        agent.signal(signal.SIGCONT)
        agent.stop()
        absent = measure_calls(hooked, rounds, xml, call)
    starts = [[start for start, _ in found] for found in times]
    stops = [[stop for _, stop in found] for found in times]
    result.write(
        "hook",
        [
            result.Row("a call, answered by the agent", "ms", answered, EMPTY, idle),
            result.Row("a call, the agent absent", "ms", absent, EMPTY, idle),
            # vnet_agent.hooks.libvirt_hook.TIMEOUT_MS, and what a process's end may take.
            result.Row("a call, the agent hung", "ms", hung, goal=220),
            result.Row(EMPTY, "ms", idle),
            result.Row("VM start with the hook", "ms", starts[0], "no hook", starts[1]),
            result.Row("VM start without it", "ms", starts[1]),
            result.Row("VM destroy with the hook", "ms", stops[0], "no hook", stops[1]),
            result.Row("VM destroy without it", "ms", stops[1]),
        ],
    )


if __name__ == "__main__":
    main()
