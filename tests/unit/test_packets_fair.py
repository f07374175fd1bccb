"""The queue of packet-ins: one port's flood costs no other port its place or its turn."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet_agent.packets.fair import FairQueue


def items(taken):
    return [item.item for item in taken]


def test_a_flood_does_not_starve_the_others():
    queue = FairQueue(depth=4)
    for number in range(1000):
        queue.put("flood", ("flood", number))
    assert queue.put("quiet", ("quiet", 0))
    assert items(queue.take(3)) == [("flood", 0), ("quiet", 0), ("flood", 1)]
    assert queue.lost == 996
    assert len(queue) == 2


def test_what_was_lost_is_told_with_the_next_that_is_not():
    queue = FairQueue(depth=1)
    assert [queue.put("a", number) for number in range(4)] == [True, False, False, False]
    assert queue.take(9) == [(0, 0)]
    queue.put("a", 4)
    queue.put("b", 5)
    assert queue.take(9) == [(4, 3), (5, 0)]
    queue.put("a", 6)
    assert queue.take(9) == [(6, 0)]


def test_sources_have_a_bound_too():
    queue = FairQueue(depth=1, sources=2)
    assert [queue.put(source, source) for source in range(4)] == [True, True, False, False]
    assert queue.lost == 2
    assert items(queue.take(9)) == [0, 1]
    assert queue.put(3, 3)


async def test_waits_until_there_is_something():
    queue = FairQueue(depth=2)
    waiting = asyncio.create_task(queue.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put("a", 1)
    queue.put("a", 2)
    await waiting
    queue.take(1)
    await queue.wait()
    queue.take(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.wait(), 0.01)
    queue.close()
    await queue.wait()
    assert queue.take(1) == []
    await queue.wait()


@given(
    st.integers(1, 4),
    st.lists(st.one_of(st.integers(0, 3), st.tuples(st.just("take"), st.integers(0, 5)))),
)
def test_order_bounds_and_turns(depth, steps):
    queue = FairQueue(depth=depth)
    held, lost = {}, Counter()
    for number, step in enumerate(steps):
        if isinstance(step, int):
            line = held.setdefault(step, [])
            assert queue.put(step, (step, number)) == (len(line) < depth)
            if len(line) < depth:
                line.append((number, lost.pop(step, 0)))
            else:
                lost[step] += 1
            continue
        taken = queue.take(step[1])
        seen = Counter(item.item[0] for item in taken)
        for item, before in taken:
            assert held[item[0]].pop(0) == (item[1], before)
        # Whoever still waits had as many turns as anybody, but for one.
        for source, line in held.items():
            if line and seen:
                assert max(seen.values()) - seen[source] <= 1
    assert len(queue) == sum(len(line) for line in held.values())
