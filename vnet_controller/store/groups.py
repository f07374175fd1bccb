"""Policy groups, and the revision that grows with each change of any of them."""

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection

from vnet_agent.model.policy import Group
from vnet_controller.store.counters import POLICY, advance_counter, read_counter
from vnet_controller.store.schema import GROUPS

_decoder = msgspec.json.Decoder(Group)


class TooManyGroups(Exception):
    """Hosts would refuse the policy as a whole."""


def read_revision(connection: Connection) -> int:
    return read_counter(connection, POLICY)


def read_policy(connection: Connection) -> tuple[int, list[Group]]:
    """The revision, and all groups by name."""
    bodies = connection.execute(select(GROUPS.c.body).order_by(GROUPS.c.name)).scalars()
    return read_revision(connection), [_decoder.decode(body) for body in bodies]


def get_group(connection: Connection, name: str) -> tuple[int, Group] | None:
    """The revision in which the group changed last, and the group."""
    query = select(GROUPS.c.revision, GROUPS.c.body).where(GROUPS.c.name == name)
    row = connection.execute(query).one_or_none()
    return (row.revision, _decoder.decode(row.body)) if row else None


def put_group(connection: Connection, group: Group, most: int, now_us: int) -> tuple[int, bool]:
    """Store a group; returns the revision and whether the group is new.

    A group that is the same as before makes no new revision. Raises TooManyGroups where a new
    one would be more than `most`.
    """
    known = get_group(connection, group.name)
    if known is not None and known[1] == group:
        return read_revision(connection), False
    if known is None and _count(connection) >= most:
        raise TooManyGroups
    revision = advance_counter(connection, POLICY)
    body = msgspec.json.encode(group).decode()
    values = {"revision": revision, "changed_us": now_us, "body": body}
    if known is None:
        connection.execute(insert(GROUPS).values(name=group.name, **values))
    else:
        connection.execute(update(GROUPS).where(GROUPS.c.name == group.name).values(values))
    return revision, known is None


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(GROUPS)).scalar_one()


def delete_group(connection: Connection, name: str) -> int | None:
    """The new revision; None where there is no such group."""
    if not connection.execute(delete(GROUPS).where(GROUPS.c.name == name)).rowcount:
        return None
    return advance_counter(connection, POLICY)
