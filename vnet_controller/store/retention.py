"""Forgetting what is old, a bounded piece at a time."""

from sqlalchemy import delete, func, select
from sqlalchemy.engine import Connection

from vnet_controller.store.projection import GONE
from vnet_controller.store.schema import EVENTS, INSTANCES, MARKS, MIGRATIONS, PORTS

#: Rows that one transaction removes, so that nobody waits long behind it.
PIECE = 2000


def forget_old(connection: Connection, before_us: int) -> int:
    """Remove up to PIECE rows of each kind that are older; returns how many events went.

    An instance goes when it ended before that time and no host has a port of it.
    """
    oldest = select(EVENTS.c.position).where(EVENTS.c.received_us < before_us)
    last = oldest.order_by(EVENTS.c.position).limit(PIECE).subquery()
    newest = connection.execute(select(func.max(last.c.position))).scalar()
    gone = 0
    if newest is not None:
        doomed = (EVENTS.c.position <= newest) & (EVENTS.c.received_us < before_us)
        gone = connection.execute(delete(EVENTS).where(doomed)).rowcount
    connection.execute(delete(MIGRATIONS).where(MIGRATIONS.c.received_us < before_us))
    ended = (
        select(INSTANCES.c.uuid)
        .where(INSTANCES.c.state.in_(GONE), INSTANCES.c.ordered_us < before_us)
        .where(INSTANCES.c.uuid.not_in(select(PORTS.c.instance)))
        .limit(PIECE)
    )
    uuids = list(connection.execute(ended).scalars())
    if uuids:
        connection.execute(delete(MARKS).where(MARKS.c.instance.in_(uuids)))
        connection.execute(delete(INSTANCES).where(INSTANCES.c.uuid.in_(uuids)))
    return gone
