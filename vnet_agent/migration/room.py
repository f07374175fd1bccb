"""What goes first when the destination has no room for all connections of a port."""

import struct
from collections import Counter
from collections.abc import Callable, Iterator

from vnet_agent.datapath import _flowcache as c

#: `age_ms` of a record; see csrc/core/record.h.
_AGE = struct.Struct(f"<56xQ{c.RECORD_SIZE - 64}x")
_STATE = 40
_ESTABLISHED = frozenset(c.STATES.index(name) for name in ("established", "replied"))
#: Above all ages' ranks: what is being opened or closed comes last.
_LAST = 1 << 16


def in_order(export: Callable[[], Iterator[bytes]], room: int) -> Iterator[bytes]:
    """The records of `export`, the `room` that matter most first: established, and the newest.

    Four passes instead of one, and no more memory than a table of ages. What changes meanwhile
    may come twice, or not at all: the next round has it.
    """
    counts: Counter[int] = Counter()
    for chunk in export():
        counts.update(_ranks(chunk))
    last, found = 0, 0
    for last in sorted(counts):
        found += counts[last]
        if found >= room:
            break
    yield from _select(export(), lambda rank: rank < last)
    yield from _select(export(), lambda rank: rank == last)
    yield from _select(export(), lambda rank: rank > last)


def _select(chunks: Iterator[bytes], wanted: Callable[[int], bool]) -> Iterator[bytes]:
    size = c.RECORD_SIZE
    for chunk in chunks:
        numbers = (number for number, rank in enumerate(_ranks(chunk)) if wanted(rank))
        some = b"".join(chunk[number * size : (number + 1) * size] for number in numbers)
        if some:
            yield some


def _ranks(chunk: bytes) -> list[int]:
    states = chunk[_STATE :: c.RECORD_SIZE]
    ages = (age for (age,) in _AGE.iter_unpack(chunk))
    return [
        _rank_of(age) + (0 if state in _ESTABLISHED else _LAST)
        for state, age in zip(states, ages, strict=True)
    ]


def _rank_of(age: int) -> int:
    """Grows with the age, to a thirty-second of it, so that few ranks tell many ages apart."""
    shift = max(0, age.bit_length() - 6)
    return shift * 32 + (age >> shift)
