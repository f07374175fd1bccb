"""When whole listings are handed over."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from inventory_fakes import FakeDomains, make_domain, until

from vnet_agent.bus import Bus
from vnet_agent.model.virt import ConnectionChange, DomainState
from vnet_agent.virt import resync as module
from vnet_agent.virt.resync import Resync


class World:
    def __init__(self, interval: float) -> None:
        self.bus = Bus()
        self.domains = FakeDomains()
        self.domains.now = [make_domain()]
        self.consumed: list[Sequence[DomainState]] = []
        self.ages: list[float] = []
        self.fail = False
        self.resync = Resync(self.bus, self.domains.domains, self.consume, interval=interval)

    async def consume(self, domains: Sequence[DomainState], *, age: float) -> None:
        self.ages.append(age)
        self.consumed.append(domains)
        if self.fail:
            raise RuntimeError("told to fail")


@pytest.fixture
async def worlds() -> AsyncIterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        await world.resync.close()
        await world.bus.close()


async def start(worlds: list[World], interval: float) -> World:
    world = World(interval)
    worlds.append(world)
    await world.resync.start()
    return world


async def test_a_listing_after_each_connect_and_none_while_libvirtd_is_away(
    worlds: list[World],
) -> None:
    world = await start(worlds, 600.0)
    world.bus.publish(ConnectionChange(connected=False))
    await world.bus.drain()
    await asyncio.sleep(0)
    assert world.domains.asked == 0
    world.bus.publish(ConnectionChange(connected=True))
    await until(lambda: world.consumed)
    assert world.consumed == [world.domains.now]
    world.bus.publish(ConnectionChange(connected=False))
    world.bus.publish(ConnectionChange(connected=True))
    await until(lambda: len(world.consumed) == 2)


async def test_listings_at_intervals(worlds: list[World]) -> None:
    world = await start(worlds, 0.01)
    world.bus.publish(ConnectionChange(connected=True))
    await until(lambda: len(world.consumed) >= 3)


async def test_a_listing_that_fails_is_tried_again_soon(
    worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.01)
    world = await start(worlds, 600.0)
    world.domains.now = None
    world.bus.publish(ConnectionChange(connected=True))
    await until(lambda: world.domains.asked >= 2)
    world.domains.now = []
    await until(lambda: world.consumed)


async def test_a_consumer_that_fails_does_not_end_it(worlds: list[World]) -> None:
    world = await start(worlds, 0.01)
    world.fail = True
    world.bus.publish(ConnectionChange(connected=True))
    await until(lambda: len(world.consumed) >= 2)


async def test_the_age_of_a_listing_counts_from_the_question(worlds: list[World]) -> None:
    world = World(interval=3600.0)
    worlds.append(world)
    world.domains.gate = asyncio.Event()
    await world.resync.start()
    world.bus.publish(ConnectionChange(connected=True))
    await until(lambda: world.domains.asked)
    asked = asyncio.get_running_loop().time()
    await asyncio.sleep(0.02)
    waited = asyncio.get_running_loop().time() - asked
    world.domains.gate.set()
    await until(lambda: world.consumed)
    assert world.ages[0] >= waited
