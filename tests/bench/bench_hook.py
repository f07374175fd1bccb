"""What the libvirt hook costs: a call of it, and a VM's start with hook and agent and without.

A call is timed from the start of its process to its end, inside the host, with the agent running,
hung (stopped by a signal), and gone; and beside it an interpreter that does nothing. For the VM's
start there are two hosts of the lab in turn, one with the hook and one without; it is started
paused, so that only libvirt's and QEMU's own work is in the figure, and destroyed again.
"""

import dataclasses
import signal
import time

import libvirt
import result

from devstack.cloud import Cloud
from devstack.cloud.cloud import HOOK_COMMAND
from devstack.lab import Guest, Host, Lab, Process
from vnet_agent.hooks.libvirt_hook import TIMEOUT_MS

EMPTY = "an interpreter that does nothing"
#: HOOK_COMMAND with nothing to run.
IDLE = [*HOOK_COMMAND[:-1], "-c", "pass"]
#: Beyond the hook's own limit: what its process's end may take.
ENDING_MS = 20
#: Runs inside the host: XML ARGV..., prints milliseconds.
CALLER = """
import subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[2:], input=sys.argv[1].encode(), check=True, stdout=subprocess.DEVNULL)
print((time.perf_counter() - began) * 1e3)
"""


def measure_call(host: Host, xml: str, argv: list[str]) -> float:
    """Milliseconds of one call."""
    done = host.run(["/usr/bin/python3", "-c", CALLER, xml, *argv])
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr}")
    return float(done.stdout)


@dataclasses.dataclass
class Calls:
    """Milliseconds of calls; `absent` ones have an idle interpreter of their own rounds."""

    idle: list[float] = dataclasses.field(default_factory=list)
    answered: list[float] = dataclasses.field(default_factory=list)
    hung: list[float] = dataclasses.field(default_factory=list)
    absent: list[float] = dataclasses.field(default_factory=list)
    idle_beside_absent: list[float] = dataclasses.field(default_factory=list)


def measure_calls(host: Host, agent: Process, guest: Guest, rounds: int) -> Calls:
    """All kinds in turn; the agent is gone for the second half of the rounds, and stays so."""
    xml = guest.domain.XMLDesc()
    hook = [*HOOK_COMMAND, guest.name, "prepare", "begin", "-"]
    calls = Calls()
    for _ in range(rounds):
        calls.idle.append(measure_call(host, "", IDLE))
        calls.answered.append(measure_call(host, xml, hook))
        agent.signal(signal.SIGSTOP)
        calls.hung.append(measure_call(host, xml, hook))
        agent.signal(signal.SIGCONT)
    agent.stop()
    for _ in range(rounds):
        calls.idle_beside_absent.append(measure_call(host, "", IDLE))
        calls.absent.append(measure_call(host, xml, hook))
    return calls


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
        hooked.install_hook(HOOK_COMMAND)
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
        calls = measure_calls(hooked, agent, guests[0], rounds)
    starts = [[start for start, _ in found] for found in times]
    stops = [[stop for _, stop in found] for found in times]
    result.write(
        "hook",
        [
            result.Row("a call, answered by the agent", "ms", calls.answered, EMPTY, calls.idle),
            result.Row("a call, the agent hung", "ms", calls.hung, goal=TIMEOUT_MS + ENDING_MS),
            result.Row(
                "a call, the agent absent", "ms", calls.absent, EMPTY, calls.idle_beside_absent
            ),
            result.Row(EMPTY, "ms", calls.idle + calls.idle_beside_absent),
            result.Row("VM start with the hook", "ms", starts[0], "no hook", starts[1]),
            result.Row("VM start without it", "ms", starts[1]),
            result.Row("VM destroy with the hook", "ms", stops[0], "no hook", stops[1]),
            result.Row("VM destroy without it", "ms", stops[1]),
        ],
    )


if __name__ == "__main__":
    main()
