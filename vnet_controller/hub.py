"""News in this process: the newest events for streams, and the revision for waiting hosts."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial

from vnet_controller.store import journal
from vnet_controller.store.database import Database
from vnet_controller.store.journal import Filter, Row

#: Events that stay in memory; a stream that is further behind reads the database.
RING = 4096

#: Events in one step of a stream.
STEP = 500


class Latest:
    """A number that only grows, and for which one can wait."""

    def __init__(self) -> None:
        self.value = 0
        self.closed = False
        self._changed = asyncio.Event()

    def advance(self, value: int) -> None:
        if value > self.value:
            self.value = value
            self._wake()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_beyond(self, known: int, timeout: float) -> None:
        """Return when the value is greater than `known`, at the close, or after `timeout` s."""
        if self.value > known or self.closed:
            return
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except TimeoutError:
            return


class Hub:
    """Follows the journal from any position, with no event missed or given twice.

    The database is the truth and its positions have no holes; the ring only saves reading it.
    A stream therefore never subscribes: it asks for what comes after its cursor.
    """

    def __init__(self, database: Database, *, ring: int = RING) -> None:
        self.head = Latest()
        self._database = database
        self._ring: deque[Row] = deque(maxlen=ring)

    async def start(self) -> None:
        self.head.advance(await self._database.read(journal.read_head))

    def publish(self, rows: Sequence[Row]) -> None:
        """Take what was just committed; to be called in the order of the commits."""
        if not rows:
            return
        if self._ring and rows[0].position != self._ring[-1].position + 1:
            self._ring.clear()
        self._ring.extend(rows)
        self.head.advance(rows[-1].position)

    async def follow(
        self, after: int | None, wanted: Filter, *, idle: float
    ) -> AsyncIterator[journal.Page]:
        """Pages of wanted events after a position (None: from now on), until the close.

        After `idle` seconds with nothing wanted, an empty page tells how far the stream is.
        """
        cursor = self.head.value if after is None else after
        if cursor > self.head.value:
            cursor = 0
        clock = asyncio.get_running_loop().time
        quiet_until = clock() + idle
        while not self.head.closed:
            page = self._read_ring(cursor, wanted)
            if page is None:
                page = await self._database.read(
                    partial(journal.read_after, after=cursor, limit=STEP, wanted=wanted)
                )
            moved, cursor = page.cursor > cursor, page.cursor
            if page.rows or clock() >= quiet_until:
                yield page
                quiet_until = clock() + idle
            elif not moved:
                await self.head.wait_beyond(cursor, max(0.0, quiet_until - clock()))

    def _read_ring(self, cursor: int, wanted: Filter) -> journal.Page | None:
        """None where the ring does not reach back to the cursor."""
        if cursor >= self.head.value:
            return journal.Page((), cursor)
        if not self._ring or self._ring[0].position > cursor + 1:
            return None
        start = cursor + 1 - self._ring[0].position
        stop = min(start + STEP, len(self._ring))
        rows = [self._ring[index] for index in range(start, stop)]
        return journal.Page([row for row in rows if wanted.matches(row)], rows[-1].position)
