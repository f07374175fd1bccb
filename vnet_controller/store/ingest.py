"""Storing events, and what they say about instances and migrations, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.engine import Connection

from vnet_controller.intake import Incoming
from vnet_controller.store import counters, instances, migrations
from vnet_controller.store.journal import Row
from vnet_controller.store.projection import apply_event, concerns_instance
from vnet_controller.store.schema import EVENTS, MARKS


def ingest_events(connection: Connection, incoming: Sequence[Incoming], now_us: int) -> list[Row]:
    """Store those that are new, in order; returns their rows. The first of an id counts."""
    unique: dict[str, Incoming] = {}
    for item in incoming:
        unique.setdefault(item.event.id, item)
    # Taken first, so that of two controllers on one database one waits here for the other.
    head = counters.advance_counter(connection, counters.EVENTS, 0)
    stored = set(
        connection.execute(select(EVENTS.c.id).where(EVENTS.c.id.in_(list(unique)))).scalars()
    )
    fresh = [item for item in unique.values() if item.event.id not in stored]
    if not fresh:
        return []
    counters.advance_counter(connection, counters.EVENTS, len(fresh))
    rows = [_make_row(head + offset, item) for offset, item in enumerate(fresh, start=1)]
    values = [row._asdict() | {"received_us": now_us} for row in rows]
    connection.execute(insert(EVENTS), values)
    project_instances(connection, fresh)
    for item in fresh:
        migrations.record_event(connection, item, now_us)
    return rows


def _make_row(position: int, item: Incoming) -> Row:
    event = item.event
    return Row(position, event.id, event.type.value, event.source, event.subject, item.body)


def project_instances(connection: Connection, incoming: Sequence[Incoming]) -> None:
    """Bring instances up to date; what its host told already, or older, changes nothing."""
    relevant = [i for i in incoming if i.event.subject and concerns_instance(i.event.type)]
    subjects = sorted({item.event.subject or "" for item in relevant})
    if not subjects:
        return
    before = instances.read_instances(connection, subjects)
    now = dict(before)
    marks = {
        (row.instance, row.host): (row.epoch, row.sequence)
        for row in connection.execute(select(MARKS).where(MARKS.c.instance.in_(subjects)))
    }
    known, moved = set(marks), set()
    for item in relevant:
        subject = item.event.subject or ""
        key = (subject, item.host)
        mark = (item.event.epoch, item.event.sequence)
        if key in marks and mark <= marks[key]:
            continue
        marks[key] = mark
        moved.add(key)
        after = apply_event(now.get(subject), item)
        if after is not None:
            now[subject] = after
    _write_marks(connection, marks, known, moved)
    instances.write_instances(connection, before, now)


def _write_marks(
    connection: Connection,
    marks: dict[tuple[str, str], tuple[int, str]],
    known: set[tuple[str, str]],
    moved: set[tuple[str, str]],
) -> None:
    def rows(keys: set[tuple[str, str]], prefix: str = "") -> list[dict[str, object]]:
        return [
            {
                f"{prefix}instance": instance,
                f"{prefix}host": host,
                "epoch": marks[instance, host][0],
                "sequence": marks[instance, host][1],
            }
            for instance, host in sorted(keys)
        ]

    if moved - known:
        connection.execute(insert(MARKS), rows(moved - known))
    if moved & known:
        statement = (
            update(MARKS)
            .where(MARKS.c.instance == bindparam("b_instance"))
            .where(MARKS.c.host == bindparam("b_host"))
        )
        connection.execute(statement, rows(moved & known, "b_"))
