"""What one host sends the other of a hand-over: numbered, bounded, kept for a broken stream."""

import asyncio

import pytest

from vnet_agent.handover.frame import HEADER
from vnet_agent.handover.outbox import Frame, Marker, Outbox


def frame(number: int, size: int = 100) -> Frame:
    return Frame(0, bytes(HEADER) + bytes([number]) * size)


async def test_taken_in_order_and_again() -> None:
    outbox = Outbox(1000)
    items = [frame(1), Marker(1, 7, True), frame(2)]
    for item in items:
        outbox.put(item)
    assert await outbox.take(0, 10000) == items
    assert await outbox.take(1, 10000) == items[1:]
    assert (outbox.end, outbox.frames) == (3, 2)


async def test_at_least_one_and_no_more_than_fits() -> None:
    outbox = Outbox(1000)
    for number in range(3):
        outbox.put(frame(number))
    assert await outbox.take(0, 1) == [frame(0)]
    assert await outbox.take(0, 2 * (100 + HEADER + 4)) == [frame(0), frame(1)]


async def test_waits_for_news_and_for_the_end() -> None:
    outbox = Outbox(1000)
    waiting = asyncio.create_task(outbox.take(0, 100))
    await asyncio.sleep(0)
    outbox.put(frame(1))
    assert await waiting == [frame(1)]
    waiting = asyncio.create_task(outbox.take(1, 100))
    await asyncio.sleep(0)
    outbox.close()
    assert await waiting is None


async def test_only_what_was_sent_is_forgotten() -> None:
    outbox = Outbox(250)
    for number in range(3):
        outbox.put(frame(number))
    assert outbox.full
    outbox.forget_sent(0)
    assert outbox.full
    await outbox.take(0, 200)
    outbox.forget_sent(0)
    assert not outbox.full
    assert await outbox.take(1, 1) == [frame(1)]
    with pytest.raises(ValueError, match="0 is not kept; 1 to 3 are"):
        await outbox.take(0, 1)
    with pytest.raises(ValueError, match="4 is not kept"):
        await outbox.take(4, 1)
