"""Numbers that only grow, in the order of the commits."""

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from vnet_controller.store.schema import COUNTERS

EVENTS = "events"
POLICY = "policy"


def read_counter(connection: Connection, name: str) -> int:
    value: int = connection.execute(
        select(COUNTERS.c.value).where(COUNTERS.c.name == name)
    ).scalar_one()
    return value


def advance_counter(connection: Connection, name: str, by: int = 1) -> int:
    """Add `by` and return the new value. Others who want it wait until this one's commit."""
    value: int = connection.execute(
        update(COUNTERS)
        .where(COUNTERS.c.name == name)
        .values(value=COUNTERS.c.value + by)
        .returning(COUNTERS.c.value)
    ).scalar_one()
    return value
