"""What the programs in the kernel cost by themselves, in nanoseconds a frame.

BPF_PROG_TEST_RUN on the programs that the driver attached, each frame with other ports than the
one before; an empty program in their place, run the same way just before, is subtracted.
"""

import contextlib
import dataclasses
import pathlib
import socket
from collections.abc import Iterator

import result
import sandbox
import vary
from tenants import CLOSED_PORT, GUESTS, TCP_PORT, make_rules

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import Policy
from vnet_agent.model.port import Role

VM, PEER = GUESTS
QUOTA = 600_000
FEW, MANY = 1_000, 500_000
#: As many as there are ports for the other side: each run is a connection never seen.
NEW = 60_000

#: TC_ACT_* of <linux/pkt_cls.h>.
PASS, DROP, REDIRECT = -1, 2, 7


@dataclasses.dataclass(frozen=True)
class Case:
    """A row. `connections` are there before; `fresh` ones made by a round are gone after it."""

    name: str
    frames: vary.Pass
    expected: int
    connections: int
    runs: int
    goal: float | None = None
    fresh: bool = False


def frame(flags: int, *, incoming: bool = False, port: int = 0) -> bytes:
    ends = (PEER, VM) if incoming else (VM, PEER)
    return vary.make_frame(*ends, flags, (0, port))


def make_cases(quick: bool) -> list[Case]:
    runs = 300_000 if quick else 1_000_000
    cases = [
        Case(
            f"established, {'to' if incoming else 'from'} the VM, {count:,} connections"
            " in random order",
            vary.Pass(frame(vary.ACK, incoming=incoming), count, incoming, random=True),
            PASS if incoming else REDIRECT,
            count,
            runs,
            goal,
        )
        for count, goal in ((FEW, 80.0), (MANY, 250.0))
        for incoming in (False, True)
    ]
    for name, port, expected, goal in (
        ("first of a connection, through 100 rules, to the VM", TCP_PORT, PASS, 1500.0),
        ("refused by 100 rules, to the VM", CLOSED_PORT, DROP, None),
    ):
        syn = frame(vary.SYN, incoming=True, port=port)
        frames = vary.Pass(syn, NEW, incoming=True, one=True)
        cases.append(Case(name, frames, expected, 0, NEW, goal, fresh=expected == PASS))
    return cases


@contextlib.contextmanager
def make_datapath() -> Iterator[tuple[EbpfDriver, int]]:
    """The driver with the VM's port of 100 rules, and the ifindex of its tap.

    The peer is behind an uplink: were it a port here, the VM's program would judge for it, too.
    """
    # Only the bench's own frames are there.
    pathlib.Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    for guest in GUESTS:
        sandbox.command(
            *("ip", "link", "add", guest.tap, "type", "veth", "peer", "name", guest.name)
        )
        for end in (guest.tap, guest.name):
            sandbox.command("ip", "link", "set", "dev", end, "up")
    driver = EbpfDriver(pin_dir=str(sandbox.BPFFS / "vnet"), max_ports=16)
    driver.open()
    try:
        driver.set_port(
            VM.uuid,
            instance=VM.uuid,
            mac=VM.mac,
            addresses=(VM.address,),
            network=0,
            bridged=False,
            role=Role.ACTIVE,
            generation=1,
            quota=QUOTA,
        )
        driver.set_policy(VM.uuid, Policy(rules=make_rules()))
        driver.attach(VM.uuid, socket.if_nametoindex(VM.tap))
        driver.attach_uplink(socket.if_nametoindex(PEER.tap), network=0)
        yield driver, socket.if_nametoindex(VM.tap)
    finally:
        driver.destroy()


def establish(driver: EbpfDriver, tap: int, count: int) -> None:
    """The VM opens `count` connections by whole handshakes; others are forgotten."""
    driver.flush(VM.uuid, generation=1)
    vary.Pass(frame(vary.SYN), count).run(tap, count, REDIRECT)
    vary.Pass(frame(vary.SYN | vary.ACK, incoming=True), count, incoming=True).run(
        tap, count, PASS
    )
    vary.Pass(frame(vary.ACK), count).run(tap, count, REDIRECT)
    check_connections(driver, count)


def check_connections(driver: EbpfDriver, count: int) -> None:
    counters = driver.counters(VM.uuid)
    if counters.connections != count:
        raise sandbox.BenchError(
            f"{counters.connections} connections, not {count}; dropped: {counters.drops}"
        )


def measure(driver: EbpfDriver, tap: int, case: Case) -> tuple[float, float]:
    """Nanoseconds of the program, and of the empty one, by one round."""
    empty = case.frames.run(tap, case.runs, None)
    whole = case.frames.run(tap, case.runs, case.expected)
    check_connections(driver, case.runs if case.fresh else case.connections)
    if case.fresh:
        driver.flush(VM.uuid, generation=1)
    return float(whole - empty), float(empty)


def main() -> None:
    quick = result.is_quick()
    rounds = 3 if quick else 15
    cases = make_cases(quick)
    found: list[list[float]] = [[] for _ in cases]
    empties: list[float] = []
    with make_datapath() as (driver, tap):
        held = -1
        # A round of all cases at a time would make 500,000 connections anew in each.
        for values, case in zip(found, cases, strict=True):
            if held != case.connections:
                establish(driver, tap, case.connections) if case.connections else driver.flush(
                    VM.uuid, generation=1
                )
                held = case.connections
            for _ in range(rounds):
                whole, empty = measure(driver, tap, case)
                values.append(whole)
                empties.append(empty)
    result.write(
        "program",
        [
            *(
                result.Row(case.name, "ns", values, goal=case.goal)
                for case, values in zip(cases, found, strict=True)
            ),
            result.Row("an empty program, subtracted above", "ns", empties),
        ],
    )


if __name__ == "__main__":
    sandbox.run(main)
