"""A rule changes, and the very next frame meets the new one: never a cached verdict of the old.

In the kernel, with few connections and with many there. HYPOTHESIS_PROFILE=long tries 100,000
changes with each, otherwise it is 1,000.
"""

import ipaddress
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator

import frames as f
import pytest
from datapath_world import private
from test_datapath_kernel import INSTANCE, PORT, TC, VM, VM4, interfaces

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import policies
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.datapath.flowcache import FlowcacheDriver
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.model.policy import DENY_ALL, Direction, Policy, Rule
from vnet_agent.model.port import Role

TRIALS = 100_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1000
FEW, MANY = 10, 200_000
PEER = "52:54:00:00:00:02"
FIRST = ipaddress.IPv4Address("10.1.0.0")
NONE, REFUSED = "none", "policy"

WEB = Rule(direction=Direction.INGRESS, protocol="udp", ports=(80, 80))
SSH = Rule(direction=Direction.INGRESS, protocol="tcp", ports=(22, 22))
FRIENDS = Rule(direction=Direction.INGRESS, remote_group="friends")
NET = Rule(direction=Direction.INGRESS, remote="10.0.0.0/8")
OUT = Rule(direction=Direction.EGRESS)
OPEN = Policy(rules=(WEB,))


def peer_of(number: int) -> str:
    return str(FIRST + number)


def frame_from(number: int) -> bytes:
    """To the VM's UDP port 80, from the peer of this number."""
    packet = f.ipv4(peer_of(number), VM4, f.UDP, f.udp(4000, 80, bytes(18)))
    return f.ether(PEER, VM, f.IPV4, packet)


def set_port(driver: FlowcacheDriver, *addresses: str, security: bool = True) -> None:
    driver.set_port(
        PORT,
        instance=INSTANCE,
        mac=VM,
        addresses=addresses,
        network=0,
        bridged=False,
        role=Role.ACTIVE,
        generation=1,
        quota=2 * MANY,
        port_security=security,
    )


class Trials:
    """`seen` counts the frames that met a change, by its kind."""

    def __init__(self, driver: EbpfDriver, tap: int, count: int, rng: random.Random) -> None:
        self.driver, self.tap, self.count, self.rng = driver, tap, count, rng
        self.seen: Counter[str] = Counter()

    def meet(self, what: str, expected: str, number: int) -> None:
        """Right after a change: the frame of a connection that the old rules knew."""
        self.seen[what] += 1
        told, _ = self.driver.kernel.test_run(c.TO_PORT, self.tap, frame_from(number))
        wanted = TC[c.PASS if expected == NONE else c.DROP]
        assert told == wanted, f"{what}: {told} and not {wanted}, from {peer_of(number)}"

    def run(self, trials: int) -> None:
        kinds = (rules, groups, replaced, address, security, detached, removed)
        weights = (30, 30, 30, 5, 5, 2, 0.02 if self.count > FEW else 1)
        while self.seen.total() < trials:
            (kind,) = self.rng.choices(kinds, weights)
            kind(self, self.rng.randrange(self.count))


def rules(trials: Trials, number: int) -> None:
    """One rule goes and comes back among others."""
    others = tuple(trials.rng.sample((SSH, OUT), trials.rng.randrange(3)))
    trials.driver.set_policy(PORT, Policy(rules=others))
    trials.meet("rule removed", REFUSED, number)
    trials.driver.set_policy(PORT, Policy(rules=(*others, WEB)))
    trials.meet("rule added", NONE, number)


def groups(trials: Trials, number: int) -> None:
    """A rule stays, who it admits does not."""
    others = ["192.0.2.1"] * trials.rng.randrange(2)
    trials.driver.set_members("friends", {0: [*others, peer_of(number)]})
    trials.driver.set_policy(PORT, Policy(rules=(FRIENDS, OUT)))
    trials.meet("policy with a group", NONE, number)
    trials.driver.set_members("friends", {0: others})
    trials.meet("member removed", REFUSED, number)
    trials.driver.set_members("friends", {0: [peer_of(number)]})
    trials.meet("member added", NONE, number)


def replaced(trials: Trials, number: int) -> None:
    """By one that has no rule in common."""
    for policy in trials.rng.sample(
        (DENY_ALL, OPEN, Policy(rules=(NET,)), Policy(rules=(OUT,))), 4
    ):
        trials.driver.set_policy(PORT, policy)
        admits = WEB in policy.rules or NET in policy.rules
        trials.meet("policy replaced", NONE if admits else REFUSED, number)


def address(trials: Trials, number: int) -> None:
    """Its connections were made for an address that is no longer the port's."""
    trials.driver.set_policy(PORT, OPEN)
    trials.meet("before", NONE, number)
    set_port(trials.driver, "10.0.0.77")
    trials.meet("address removed", "other-address", number)
    set_port(trials.driver, VM4)
    trials.meet("address added", NONE, number)


def security(trials: Trials, number: int) -> None:
    trials.driver.set_policy(PORT, DENY_ALL)
    trials.meet("before", REFUSED, number)
    set_port(trials.driver, VM4, security=False)
    trials.meet("security off", NONE, number)
    set_port(trials.driver, VM4)
    trials.meet("security on", REFUSED, number)


def detached(trials: Trials, number: int) -> None:
    """The port is set down: it keeps what it has, and nothing passes."""
    trials.driver.set_policy(PORT, OPEN)
    trials.meet("before", NONE, number)
    trials.driver.detach(PORT)
    trials.meet("port set down", "no-port", number)
    trials.driver.attach(PORT, trials.tap)
    trials.meet("port set up", NONE, number)


def removed(trials: Trials, number: int) -> None:
    """And made anew without a policy: nothing of its predecessor admits anything."""
    trials.driver.set_policy(PORT, OPEN)
    trials.meet("before", NONE, number)
    records = b"".join(trials.driver.export(PORT))
    trials.driver.remove_port(PORT, generation=1)
    trials.meet("port removed", "no-port", number)
    set_port(trials.driver, VM4)
    trials.driver.attach(PORT, trials.tap)
    trials.meet("port made anew", "no-policy", number)
    trials.driver.set_policy(PORT, OPEN)
    trials.driver.import_records(PORT, records)
    trials.meet("port as it was", NONE, number)
    trials.driver.collect()


def make_records(count: int) -> Iterator[bytes]:
    """Of `count` answered connections, from a datapath in memory."""
    memory = MemoryDriver(max_ports=4)
    memory.open()
    set_port(memory, VM4)
    memory.set_policy(PORT, OPEN)
    memory.attach(PORT, 5)
    memory.attach_uplink(9, network=0)
    for number in range(count):
        answer = f.ipv4(VM4, peer_of(number), f.UDP, f.udp(80, 4000))
        memory.native.process(c.TO_PORT, 5, frame_from(number))
        memory.native.process(c.FROM_PORT, 5, f.ether(VM, PEER, f.IPV4, answer))
    return memory.export(PORT)


def make_trials(bpffs: str, count: int) -> Trials:
    tap, uplink = interfaces()
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    driver.open()
    set_port(driver, VM4)
    driver.set_policy(PORT, OPEN)
    driver.attach(PORT, tap)
    driver.attach_uplink(uplink, network=0)
    moved = sum(driver.import_records(PORT, chunk).moved for chunk in make_records(count))
    assert moved == driver.counters(PORT).connections == count
    return Trials(driver, tap, count, random.Random(1))


def try_changes(bpffs: str, count: int) -> None:
    trials = make_trials(bpffs, count)
    trials.run(TRIALS)
    assert trials.seen.total() >= TRIALS
    assert len(trials.seen) >= 12, trials.seen
    # Still cached: those that no frame asked for are not gone.
    assert trials.driver.counters(PORT).connections >= count - TRIALS


@private
def test_datapath_no_stale_verdict_among_few_connections(bpffs: str) -> None:
    try_changes(bpffs, FEW)


@private
def test_datapath_no_stale_verdict_among_many_connections(bpffs: str) -> None:
    try_changes(bpffs, MANY)


@private
def test_datapath_stale_verdict_would_be_noticed(bpffs: str) -> None:
    """Were the generation not to change with the rules, each kind of trial would say so."""
    trials = make_trials(bpffs, FEW)
    policies._after = _same
    for kind, wrong in ((rules, "rule removed"), (groups, "member removed")):
        trials.driver.set_policy(PORT, OPEN)
        with pytest.raises(AssertionError, match=wrong):
            try_often(kind, trials)


def _same(generation: int) -> int:
    return generation


def try_often(kind: Callable[[Trials, int], None], trials: Trials) -> None:
    for _ in range(2):  # what was imported is judged once by the rules in any case
        kind(trials, 0)
