"""Kernel, native core and twin agree on random policies and frames; a million of them when asked.

HYPOTHESIS_PROFILE=long takes a million pairs of a policy and a frame, ci 50,000. Each frame comes
three times: as it is; again, when its verdict is cached; and again with the cached verdict stale,
so that the rules are asked in the same state.
"""

import os
import random
from collections import Counter

import pytest
from agreement import Judges
from datapath_bench import VM4, VM6
from datapath_world import private
from frame_strategies import GROUPS
from random_traffic import random_frame, random_members, random_policy
from test_datapath_kernel import PORT, interfaces, set_up

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL

PAIRS = {"default": 10_000, "ci": 50_000, "long": 1_000_000}[
    os.environ.get("HYPOTHESIS_PROFILE", "default")
]
#: Frames of one policy; connections live on to the next, but for every tenth.
FRAMES = 100
SEED = int(os.environ.get("VNET_SEED", "1"))


def make_judges(bpffs: str) -> Judges:
    tap, uplink = interfaces()
    kernel = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    native = MemoryDriver(max_ports=4)
    for driver in (kernel, native):
        set_up(driver, tap, uplink)
    return Judges(kernel, native, PORT, tap)


def change(judges: Judges, rng: random.Random, turn: int) -> None:
    if turn % 10 == 0:
        judges.restart(rng.choice(((VM4, VM6), ())), strict=rng.random() < 0.5)
    for group in GROUPS:
        if rng.randrange(4) == 0:
            judges.set_members(group, random_members(rng))
    judges.set_policy(random_policy(rng))


@private
def test_datapath_kernel_native_and_twin_agree(bpffs: str) -> None:
    judges = make_judges(bpffs)
    met: Counter[str] = Counter()
    for turn in range(PAIRS // FRAMES):
        rng = random.Random(f"{SEED}/{turn}")
        change(judges, rng, turn)
        for number in range(FRAMES):
            direction, frame = random_frame(rng)
            where = f"seed {SEED}, policy {turn}, frame {number}: {direction} {frame.hex()}"
            try:
                first = judges.judge(direction, frame)
                assert judges.judge(direction, frame) == first, "cached"
                assert judges.judge_stale(direction, frame) == first, "judged again"
            except AssertionError as error:
                raise AssertionError(f"{where}\n{judges.twin.policy}\n{error}") from error
            met[first] += 1
    assert sum(met.values()) == PAIRS
    # All that one port without limits, tables or a full quota can say is said.
    assert len(met) >= 18, met
    assert "tcp-window" in met
    assert met["none"] > PAIRS // 10


@private
def test_datapath_disagreement_is_noticed(bpffs: str) -> None:
    judges = make_judges(bpffs)
    rng = random.Random(SEED)
    judges.set_policy(ALLOW_ALL)
    judges.drivers[0].set_policy(PORT, DENY_ALL)
    with pytest.raises(AssertionError, match="kernel and native"):
        judge_many(judges, rng)


def judge_many(judges: Judges, rng: random.Random) -> None:
    for _ in range(1000):
        judges.judge(*random_frame(rng))
