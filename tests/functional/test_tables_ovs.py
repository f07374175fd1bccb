"""Tables of handlers against Open vSwitch, which was told the same rules and sees the same frames.

What only one of the two can say is left out, see oracle.ovs_flow; the rest must agree: the way out
of a frame, and every field of it as it leaves.
"""

import os
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from datapath_bench import PORT, TAP, UPLINK, Bench
from oracle import ovs_flow
from oracle.ovs_switch import Switch, Traced, running
from oracle.random_tables import OTHERS, random_frame, random_tables

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.handlers import compile_handler
from vnet_agent.model.handler import TABLES, TableDocument
from vnet_agent.model.policy import ALLOW_ALL

SETS = {"default": 200, "long": 2000}[
    "long" if os.environ.get("HYPOTHESIS_PROFILE") == "long" else "default"
]
FRAMES = 50
SEED = 20
#: OpenFlow ports of the ports.
NUMBERS = {PORT: 1, OTHERS[0]: 2, OTHERS[1]: 3}
TAPS = {OTHERS[0]: 62, OTHERS[1]: 63}
WAYS = {
    ovs_flow.NORMAL: "normal",
    ovs_flow.TO_CONTROLLER: "controller",
    2: OTHERS[0],
    3: OTHERS[1],
}


class Outcome(NamedTuple):
    """`frame` is None where it goes no further."""

    way: str
    frame: bytes | None


class Here:
    """The memory driver with a port whose frames go through tables, and two others."""

    def __init__(self) -> None:
        self.bench = Bench(addresses=(), quota=5000)
        for port, tap in TAPS.items():
            self.bench.set_port(port, mac=f"52:54:00:00:ff:{tap}")
            self.bench.driver.set_policy(port, ALLOW_ALL)
            self.bench.driver.attach(port, tap)
        self.ids = {entry.port: entry.local_id for entry in self.bench.driver.ports()}

    def local_id(self, port: str) -> int | None:
        return self.ids.get(port)

    def ids_of(self, instance: str) -> list[int]:
        return []

    def ids_in(self, group: str) -> list[int]:
        return []

    def load(self, tables: dict[int, TableDocument]) -> None:
        for number in range(TABLES):
            document = tables.get(number, TableDocument())
            rules = [rule for handler in document.rules for rule in compile_handler(handler, self)]
            self.bench.driver.replace_table(number, rules, document.miss)

    def run(self, frame: bytes) -> Outcome:
        self.bench.sleep(1)  # so that the controller takes the next one
        action, reason, out = self.bench.native.run(c.FROM_PORT, TAP, frame)
        taken = list(self.bench.driver.read_packet_ins())
        if action == c.DROP:
            known = {"handler": "drop"}
            return Outcome(known.get(c.REASONS[reason], "normal"), None)
        if action == c.HANDED:
            return Outcome("controller", taken[0].data)
        ways = {tap: port for port, tap in TAPS.items()} | {UPLINK: "normal"}
        ((ifindex, data),) = out
        return Outcome(ways[ifindex], data)


def way_of(traced: Traced) -> str:
    last = traced.actions.rpartition(",")[2]
    return "drop" if last == "drop" else WAYS[int(last)]


def packet_fields(fields: dict[str, str]) -> dict[str, str]:
    """Without what is beside the packet."""
    return {name: value for name, value in fields.items() if name not in ("metadata", "in_port")}


@pytest.fixture
def switch():
    # Its sockets' paths have room for 107 characters.
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            Path(directory), [*NUMBERS.values(), ovs_flow.NORMAL, ovs_flow.TO_CONTROLLER]
        ) as it,
    ):
        yield it


def compare(switch: Switch, here: Here, frame: bytes) -> str:
    """The way of a frame; raises AssertionError where the two disagree."""
    traced = switch.trace(frame, NUMBERS[PORT])
    outcome = here.run(frame)
    assert outcome.way == way_of(traced), f"{frame.hex()}\n{traced.text}"
    if outcome.frame is not None:
        got = switch.parse(outcome.frame, NUMBERS[PORT])
        assert packet_fields(got) == packet_fields(traced.fields), f"{frame.hex()}\n{traced.text}"
    return outcome.way


def test_tables_do_what_open_vswitch_does(switch) -> None:
    rng = random.Random(SEED)
    here = Here()
    ways: Counter[str] = Counter()
    for _ in range(SETS):
        tables = random_tables(rng)
        switch.replace(list(ovs_flow.show_tables(tables, NUMBERS)))
        here.load(tables)
        for _ in range(FRAMES):
            frame = random_frame(rng)
            ways[compare(switch, here, frame)] += 1
    # Each way was met often, or the comparison compares nothing.
    assert min(ways[way] for way in ("normal", "controller", "drop", *OTHERS)) > SETS
    assert sum(ways.values()) == SETS * FRAMES
