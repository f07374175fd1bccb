"""Thousands of migrations with whatever may go wrong, in simulated time.

A seed is a run: VNET_SIMULATIONS=2000 is the long profile, VNET_SEED=N one of them alone.
"""

import logging
import os
from pathlib import Path

import pytest
from migration_hosts import PORT
from simulated_cloud import Broken, SimulatedHost, World
from simulated_loop import simulated

from vnet_agent.model.migration import Phase, Report

RUNS = int(os.environ.get("VNET_SIMULATIONS", "30"))
SEEDS = [int(os.environ["VNET_SEED"])] if "VNET_SEED" in os.environ else range(RUNS)
#: Of one run.
ROUNDS = 6
OUTCOMES = ("moved", "moved", "moved", "refused", "dies", "stays")


async def run(world: World, troubles: int) -> None:
    await world.start()
    for number in range(ROUNDS):
        try:
            await a_round(world, troubles)
        except Broken as broken:
            log = "\n".join(world.log)
            raise Broken(f"round {number}: {broken}\n{log}") from broken


async def a_round(world: World, troubles: int) -> None:
    """Some migrations, one behind the other at once, until all is quiet again."""
    before = {report.id for host in world.hosts for report in reports(host)}
    world.killed = False
    for _ in range(world.random.randint(0, troubles)):
        world.trouble()
    outcomes = [world.random.choice(OUTCOMES) for _ in range(world.random.choice((1, 1, 1, 2, 3)))]
    for outcome in outcomes:
        others = [host for host in world.hosts if host is not world.truth.host]
        await world.migrate(world.random.choice(others), outcome)
    await world.settle()
    world.check()
    mine = [each for host in world.hosts for each in reports(host) if each.id not in before]
    check_round(world, outcomes, mine, quiet=not troubles)


def reports(host: SimulatedHost) -> list[Report]:
    return [each for each in host.migrations.reports() if each.side == "destination"]


def check_round(world: World, outcomes: list[str], mine: list[Report], *, quiet: bool) -> None:
    """What became of the guest is said, and nothing is lost unless that is said too."""
    moved = outcomes.count("moved")
    done = [report for report in mine if report.phase is Phase.DONE]
    failed = len(mine) - len(done)
    if len(done) > moved or (failed > len(outcomes) - moved and not world.killed):
        raise Broken(f"{len(done)} of {len(mine)} are said to be done; really: {outcomes}")
    if quiet and len(mine) < len(outcomes) - outcomes.count("refused"):
        raise Broken(
            f"{len(outcomes) - len(mine)} migrations were not seen, and nothing was wrong"
        )
    missing = world.missing()
    said = len(done) < moved or any(report.error for report in done)
    if missing and (quiet or not said):
        raise Broken(f"{len(missing)} connections are lost, and nobody says so")
    table = world.truth.host.driver.tables[PORT]
    world.truth.connections = {key: row[0] for key, row in table.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong(seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "vnet_agent")
    with simulated(seed) as loop:
        world = World(loop, tmp_path)
        loop.run_until_complete(run(world, troubles=0 if seed % 10 == 0 else 4))
