"""Reading events back, in the order of their positions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.engine import Connection

from vnet_controller.store.counters import EVENTS as HEAD
from vnet_controller.store.counters import read_counter
from vnet_controller.store.schema import EVENTS


class Row(NamedTuple):
    """A stored event; `body` is its JSON text."""

    position: int
    id: str
    type: str
    source: str
    subject: str | None
    body: str


class Filter(NamedTuple):
    """Which events are wanted; an empty member wants all."""

    types: frozenset[str] = frozenset()
    subject: str | None = None
    source: str | None = None

    def matches(self, row: Row) -> bool:
        return (
            (not self.types or row.type in self.types)
            and (self.subject is None or row.subject == self.subject)
            and (self.source is None or row.source == self.source)
        )

    def narrow(self, query: Select[Any]) -> Select[Any]:
        if self.types:
            query = query.where(EVENTS.c.type.in_(sorted(self.types)))
        if self.subject is not None:
            query = query.where(EVENTS.c.subject == self.subject)
        if self.source is not None:
            query = query.where(EVENTS.c.source == self.source)
        return query


class Page(NamedTuple):
    """`cursor` is where to go on: nothing that matched lies between the last row and it."""

    rows: Sequence[Row]
    cursor: int


_COLUMNS = (
    EVENTS.c.position,
    EVENTS.c.id,
    EVENTS.c.type,
    EVENTS.c.source,
    EVENTS.c.subject,
    EVENTS.c.body,
)


def read_head(connection: Connection) -> int:
    """Position of the newest event, 0 before the first."""
    return read_counter(connection, HEAD)


def read_after(connection: Connection, after: int, limit: int, wanted: Filter) -> Page:
    """The first `limit` events after a position. One that never was given out counts as 0."""
    head = read_head(connection)
    after = after if after <= head else 0
    query = wanted.narrow(select(*_COLUMNS).where(EVENTS.c.position > after))
    found = connection.execute(query.order_by(EVENTS.c.position).limit(limit))
    rows = [Row(*values) for values in found]
    return Page(rows, rows[-1].position if len(rows) == limit else head)


def read_last(connection: Connection, limit: int, wanted: Filter) -> Page:
    """The newest `limit` events, oldest first."""
    query = wanted.narrow(select(*_COLUMNS))
    found = connection.execute(query.order_by(EVENTS.c.position.desc()).limit(limit))
    rows = [Row(*values) for values in found]
    return Page(rows[::-1], read_head(connection))
