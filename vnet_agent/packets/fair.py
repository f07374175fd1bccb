"""A bounded queue in which one source's flood costs no other source its place or its turn."""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Taken(NamedTuple, Generic[T]):
    """`lost` are items of the same source that found no room since the one before this."""

    item: T
    lost: int


class FairQueue(Generic[T]):
    """Holds at most `depth` items of a source, of at most `sources` sources, and hands out one of
    each in turn. A full line refuses what comes: the oldest frames are those that a controller
    is about to answer.
    """

    def __init__(self, *, depth: int, sources: int = 65536) -> None:
        self._depth = depth
        self._sources = sources
        #: Of the sources that have items, in the order of their turns.
        self._lines: dict[Hashable, deque[Taken[T]]] = {}
        #: Of each source, since its last item that found room.
        self._losses: dict[Hashable, int] = {}
        self._is_filled = asyncio.Event()
        self._is_closed = False
        self.lost = 0

    def close(self) -> None:
        """Nobody waits any more."""
        self._is_closed = True
        self._is_filled.set()

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def put(self, source: Hashable, item: T) -> bool:
        """Whether there was room."""
        line = self._lines.get(source)
        has_room = len(self._lines) < self._sources if line is None else len(line) < self._depth
        if not has_room:
            self.lost += 1
            if line is not None:
                self._losses[source] = self._losses.get(source, 0) + 1
            return False
        if line is None:
            line = self._lines[source] = deque()
        line.append(Taken(item, self._losses.pop(source, 0)))
        self._is_filled.set()
        return True

    def take(self, most: int) -> list[Taken[T]]:
        """Up to `most` items, one of each source before the second of any."""
        found: list[Taken[T]] = []
        while self._lines and len(found) < most:
            source = next(iter(self._lines))
            line = self._lines.pop(source)
            found.append(line.popleft())
            if line:
                self._lines[source] = line
        if not self._lines and not self._is_closed:
            self._is_filled.clear()
        return found

    async def wait(self) -> None:
        """Return when there is something to take, or it is closed."""
        await self._is_filled.wait()
