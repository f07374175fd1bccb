"""Where a VM leaves, without taps: what is news there, and what is not."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from vnet_agent import exceptions
from vnet_agent.handover import source
from vnet_agent.handover.cut import Cut
from vnet_agent.handover.source import Departing, SourceHandover


class Holding:
    """It saw the VM elsewhere when the VM came from there."""

    def __init__(self) -> None:
        self.seen = True

    def relay(self, *, wanted: bool) -> None:
        self.seen = False

    def seen_outside(self) -> bool:
        return self.seen


class Tap:
    index = 0
    name = "tap0"
    frames = 0
    learned = False
    dropped = 0
    queues: tuple[()] = ()
    sender = reads = None

    def __init__(self, holding: Holding) -> None:
        self.holding = holding
        self.flushing = asyncio.Lock()
        self.mirror = SimpleNamespace(trim=lambda: None)

    def close(self) -> None: ...


@pytest.fixture
async def leaving(monkeypatch: pytest.MonkeyPatch) -> SourceHandover:
    async def find_cut(*_: object) -> Cut:
        await asyncio.sleep(0.01)
        return Cut(waiting=[])

    monkeypatch.setattr(source, "find_cut", find_cut)
    monkeypatch.setattr(source, "_TRIM", 0)
    driver: Any = None
    made = SourceHandover("vm", [Departing(uuid="p", tap="tap0")], driver, room=1 << 20)
    taps: Any = [Tap(Holding())]
    made._taps = taps
    monkeypatch.setattr(made, "_open", lambda: None)

    async def here(work: Any) -> None:
        work()

    await made.open(here)
    return made


async def test_what_was_seen_before_the_pause_is_no_news(leaving: SourceHandover) -> None:
    moved = asyncio.Event()

    async def on_moved(port: int) -> None:
        moved.set()

    watching = asyncio.create_task(leaving.watch(on_moved))
    cutting = asyncio.create_task(leaving.cut())
    await cutting
    await asyncio.sleep(0.05)
    assert not moved.is_set()
    holding: Any = leaving._taps[0].holding
    holding.seen = True
    await moved.wait()
    leaving.close()
    await watching


async def test_port_that_is_gone_holds_nobody_up(leaving: SourceHandover) -> None:
    """Whoever asks for a mark gets it, though there is no cut."""

    def relay(*, wanted: bool) -> None:
        raise exceptions.UnknownPort(port="p")

    leaving._taps[0].holding.relay = relay  # type: ignore[method-assign]
    await leaving.cut()

    async def moved(port: int) -> None: ...

    async with asyncio.timeout(5):
        await leaving.flush(0, 1, moved, last=True)
    assert not leaving.summary.exact
