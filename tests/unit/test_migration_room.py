"""The connections that matter most go first to a host that has no room for all."""

import random
import struct
from collections.abc import Iterator

import pytest

from vnet_agent.datapath import _flowcache as c
from vnet_agent.migration.room import _rank_of, in_order

ESTABLISHED, REPLIED, OTHER = (c.STATES.index(n) for n in ("established", "replied", "fin-wait"))
RECORD = struct.Struct(f"<I36xB15xQ{c.RECORD_SIZE - 64}x")


def record(number: int, state: int, age: int) -> bytes:
    return RECORD.pack(number, state, age)


def numbers(chunks: Iterator[bytes]) -> list[int]:
    return [number for number, _, _ in RECORD.iter_unpack(b"".join(chunks))]


@pytest.mark.parametrize("room", [0, 1, 5, 50, 99, 140, 1000])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_order(room: int, size: int) -> None:
    dice = random.Random(room * size)
    rows = [
        (number, dice.choice((ESTABLISHED, REPLIED, OTHER)), dice.randrange(1 << 42))
        for number in range(100)
    ]
    rows += [(number, ESTABLISHED, 5000) for number in range(100, 140)]  # opened all at once
    dice.shuffle(rows)
    table = [record(*row) for row in rows]
    chunks = [b"".join(table[at : at + size]) for at in range(0, len(table), size)]
    found = numbers(in_order(lambda: iter(chunks), room))
    assert sorted(found) == list(range(140))
    ranks = {number: (state == OTHER, _rank_of(age)) for number, state, age in rows}
    limit = sorted(ranks.values())[max(0, min(room, 140) - 1)]
    better = {number for number, rank in ranks.items() if rank < limit}
    ties = {number for number, rank in ranks.items() if rank == limit}
    assert set(found[: len(better)]) == better
    assert set(found[len(better) :][: len(ties)]) == ties


def test_ranks_grow_with_the_age() -> None:
    ages = [*range(5000), *(1 << shift for shift in range(13, 64)), (1 << 64) - 1]
    ranks = [_rank_of(age) for age in ages]
    assert ranks == sorted(ranks)
    assert ranks[-1] < 1 << 16
    assert all(_rank_of(age) < _rank_of(age + age // 16 + 1) for age in ages)


def test_nothing() -> None:
    assert list(in_order(lambda: iter(()), 5)) == []
