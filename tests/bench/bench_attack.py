"""What a port's flood does to others: their traffic beside it, against the same without.

Guests a and b talk to each other. Guest c floods guest d from a CPU of its own, as fast as it can.
The tuple-space explosion goes to d's policy of three rules, which drops it; c's port security is
off then, or c's own quota would stop most of it. SYNs from any address to a port that d opens fill
c's quota and d's. A spinning CPU in the place of c shows what is the machine's and not the
datapath's.
"""

import collections
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import load
import result
import sandbox
from peers import connect_ports
from tenants import (
    GUESTS,
    Guest,
    Site,
    address_guest,
    make_rules,
    make_site,
    wire_guest,
    wire_guests,
)

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import ALLOW_ALL, Direction, Policy, Rule

ATTACKER = Guest("c", "52:54:00:00:00:0c", "10.9.0.3", "0c000000-0000-4000-8000-000000000003")
TARGET = Guest("d", "52:54:00:00:00:0d", "10.9.0.4", "0d000000-0000-4000-8000-000000000004")
#: Allow three, drop the rest; by address, by port and by both.
THREE = tuple(
    Rule(direction=Direction.INGRESS, ethertype="ipv4", protocol="tcp", **what)
    for what in (
        {"remote": "10.9.0.7/32"},
        {"ports": (443, 443)},
        {"remote": "10.8.0.0/16", "ports": (80, 80)},
    )
)
OPEN = (Rule(direction=Direction.INGRESS, protocol="tcp", ports=(7000, 7000)),)

IDLE, BUSY = "idle", "beside a busy CPU"
#: What the flood is by its name in the table: its kind, and the rules of its target.
FLOODS = {
    BUSY: ("spin", THREE),
    "beside a tuple-space explosion": ("explosion", THREE),
    "beside a SYN flood": ("syn", OPEN),
}
STREAM = next(figure for figure in load.FIGURES if figure.kind == "stream")
REQUESTS = next(figure for figure in load.FIGURES if figure.kind == "rr")
CONNECTS = next(figure for figure in load.FIGURES if figure.kind == "crr")
#: Of what it is when idle, at least.
GOALS = {STREAM: 0.9, REQUESTS: 0.9, CONNECTS: 0.8}


@contextlib.contextmanager
def flooded(kind: str, place: sandbox.Netns, seconds: float) -> Iterator[None]:
    """While c floods from `place`, at most so many seconds."""
    cpu = sorted(os.sched_getaffinity(0))[-1]
    program = load.compile_static(load.SOURCE.with_name("flood.c"))
    process = subprocess.Popen(
        [
            *(str(program), kind, str(place.path), ATTACKER.mac, TARGET.mac, TARGET.address),
            *(str(seconds), str(cpu)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "on\n":
            raise sandbox.BenchError("the flood did not begin")
        yield
        if process.poll() is not None:
            raise sandbox.BenchError("the flood ended before what is measured beside it")
    finally:
        process.kill()
        process.wait()


def measure(site: Site, seconds: float) -> dict[load.Figure, float]:
    return {figure: load.measure(figure, site, seconds) for figure in GOALS}


Measured = dict[tuple[str, load.Figure], list[float]]


def run_round(site: Site, place: sandbox.Netns, seconds: float, into: Measured) -> None:
    """Each flood beside an idle measurement of its own moment."""
    for name, (kind, rules) in FLOODS.items():
        policies = {guest: Policy(rules=make_rules()) for guest in GUESTS}
        policies |= {ATTACKER: ALLOW_ALL, TARGET: Policy(rules=rules)}
        unguarded = ATTACKER if kind == "explosion" else None
        with connect_ports(site, policies, unknown=ATTACKER, unguarded=unguarded) as driver:
            for figure, value in measure(site, seconds).items():
                into[f"{IDLE}, {name}", figure].append(value)
            with flooded(kind, place, 60):
                for figure, value in measure(site, seconds).items():
                    into[name, figure].append(value)
            check(driver, name, kind)


def check(driver: EbpfDriver, name: str, kind: str) -> None:
    """BenchError unless the flood met what it is for, and nobody else's quota."""
    attacker, target = (driver.counters(guest.uuid) for guest in (ATTACKER, TARGET))
    met = {
        "spin": 1,
        "explosion": target.drops.get("policy", 0),
        "syn": target.connections + attacker.drops.get("quota", 0),
    }[kind]
    sent = attacker.tx_frames + sum(attacker.drops.values())
    print(f"{name}: {sent:,} frames sent, {met:,} met what they are for", file=sys.stderr)
    if not met:
        raise sandbox.BenchError(f"{name}: nothing met what it is for: {attacker}, {target}")
    if any("quota" in driver.counters(guest.uuid).drops for guest in GUESTS):
        raise sandbox.BenchError(f"{name}: the quota of another port is full")


def make_rows(measured: Measured) -> list[result.Row]:
    return [
        result.Row(
            f"{figure.name}, {name}",
            figure.unit,
            measured[name, figure],
            IDLE,
            measured[f"{IDLE}, {name}", figure],
            goal=None if name == BUSY else goal,
            goal_is_ceiling=False,
        )
        for figure, goal in GOALS.items()
        for name in FLOODS
    ]


def main() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        raise sandbox.BenchError("one CPU: the flood and what is beside it need one each")
    rounds, seconds = (2, 0.5) if result.is_quick() else (7, 1.0)
    measured: Measured = collections.defaultdict(list)
    load.build()
    with make_site() as site, sandbox.Netns("c") as c, sandbox.Netns("d") as d:
        wire_guests(site)
        for guest, place in ((ATTACKER, c), (TARGET, d)):
            wire_guest(site.node, guest)
            address_guest(guest, place)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            run_round(site, c, seconds, measured)
    result.write("attack", make_rows(measured))


if __name__ == "__main__":
    sandbox.run(main)
