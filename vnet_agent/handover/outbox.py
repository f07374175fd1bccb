"""What one host sends the other of a hand-over: numbered, kept for a stream that breaks."""

import asyncio
from collections import deque

import msgspec

from vnet_agent.handover.frame import HEADER


class Frame(msgspec.Struct, frozen=True):
    """One frame for the port at `port`. `copied`: not taken from the tap, but seen there."""

    port: int
    data: bytes
    copied: bool = False


class Marker(msgspec.Struct, frozen=True):
    """A place in the order of the frames for the port at `port`; see wire.Mark."""

    port: int
    token: int
    last: bool


class Outbox:
    """First in, first out, from number 0 on; `room` bytes at most, then `full`."""

    def __init__(self, room: int) -> None:
        self.frames = 0
        self._room = room
        self._items: deque[Frame | Marker] = deque()
        self._first = 0
        self._size = 0
        self._sent = 0
        self._news = asyncio.Event()
        self._closed = False

    @property
    def full(self) -> bool:
        return self._size >= self._room

    @property
    def end(self) -> int:
        """The number that the next one gets."""
        return self._first + len(self._items)

    def put(self, item: Frame | Marker) -> None:
        self._items.append(item)
        if isinstance(item, Frame):
            self.frames += 1
            self._size += len(item.data) - HEADER
        self._news.set()

    def close(self) -> None:
        """Nothing more comes: `take` gives what there is, and then nothing."""
        self._closed = True
        self._news.set()

    async def take(self, number: int, most: int) -> list[Frame | Marker] | None:
        """From `number` on, frames of `most` bytes or one; waits for one. None: no more come.

        ValueError for a number that was forgotten, or was never given.
        """
        while number == self.end:
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
        if not self._first <= number < self.end:
            raise ValueError(f"{number} is not kept; {self._first} to {self.end} are")
        found: list[Frame | Marker] = []
        size = 0
        for index in range(number - self._first, len(self._items)):
            item = self._items[index]
            size += len(item.data) + 4 if isinstance(item, Frame) else 0
            if found and size > most:
                break
            found.append(item)
        self._sent = max(self._sent, number + len(found))
        return found

    def forget_sent(self, most: int) -> None:
        """Of those that were sent keep the last, `most` bytes: a stream may have broken."""
        while self._items and self._first < self._sent and self._size > most:
            item = self._items.popleft()
            self._first += 1
            if isinstance(item, Frame):
                self._size -= len(item.data) - HEADER

    def all_frames(self) -> list[Frame]:
        return [item for item in self._items if isinstance(item, Frame)]
