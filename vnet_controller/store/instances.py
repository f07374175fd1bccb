"""Instances: where each runs and how it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.engine import Connection

from vnet_controller.store.projection import Instance, apply_snapshot
from vnet_controller.store.schema import INSTANCES, PORTS

#: As many keys as every database takes in one IN.
_CHUNK = 5000


class ActivePorts(NamedTuple):
    """What a snapshot says of one instance: its ports are active, in `generation`."""

    uuid: str
    name: str
    generation: int


def read_instances(connection: Connection, uuids: Sequence[str]) -> dict[str, Instance]:
    return {
        row.uuid: Instance(*row)
        for chunk in _chunks(uuids)
        for row in connection.execute(select(INSTANCES).where(INSTANCES.c.uuid.in_(chunk)))
    }


def list_instances(
    connection: Connection, *, host: str | None, state: str | None, after: str, limit: int
) -> list[Instance]:
    """By UUID; the next page is `after` the last one's."""
    query = select(INSTANCES).where(INSTANCES.c.uuid > after)
    if host is not None:
        query = query.where(INSTANCES.c.host == host)
    if state is not None:
        query = query.where(INSTANCES.c.state == state)
    found = connection.execute(query.order_by(INSTANCES.c.uuid).limit(limit))
    return [Instance(*row) for row in found]


def count_states(connection: Connection) -> dict[str, int]:
    query = select(INSTANCES.c.state, func.count()).group_by(INSTANCES.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def write_instances(
    connection: Connection, before: Mapping[str, Instance], now: Mapping[str, Instance]
) -> None:
    """Store what differs between two readings."""
    made = [asdict(now[uuid]) for uuid in now if uuid not in before]
    changed = [_bound(now[uuid]) for uuid in now if uuid in before and now[uuid] != before[uuid]]
    if made:
        connection.execute(insert(INSTANCES), made)
    if changed:
        statement = update(INSTANCES).where(INSTANCES.c.uuid == bindparam("b_uuid"))
        connection.execute(statement, changed)


def project_snapshot(
    connection: Connection, host: str, active: Sequence[ActivePorts], now_us: int
) -> None:
    """Bring instances up to date with what `host` says of its ports."""
    uuids = [item.uuid for item in active]
    before = read_instances(connection, uuids)
    rivals = _read_generations(connection, uuids)
    now = dict(before)
    for item in active:
        known = before.get(item.uuid)
        now[item.uuid] = apply_snapshot(
            known,
            uuid=item.uuid,
            name=item.name,
            host=host,
            generation=item.generation,
            rival=rivals.get((item.uuid, known.host)) if known else None,
            now_us=now_us,
        )
    write_instances(connection, before, now)


def _read_generations(connection: Connection, uuids: Sequence[str]) -> dict[tuple[str, str], int]:
    """(instance, host) -> the newest generation of its ports there that did not move away."""
    newest = func.max(PORTS.c.generation)
    return {
        (instance, host): generation
        for chunk in _chunks(uuids)
        for instance, host, generation in connection.execute(
            select(PORTS.c.instance, PORTS.c.host, newest)
            .where(PORTS.c.instance.in_(chunk), PORTS.c.role != "moved")
            .group_by(PORTS.c.instance, PORTS.c.host)
        )
    }


def _bound(instance: Instance) -> dict[str, Any]:
    values = asdict(instance)
    values["b_uuid"] = values.pop("uuid")
    return values


def _chunks(uuids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (uuids[start : start + _CHUNK] for start in range(0, len(uuids), _CHUNK))
