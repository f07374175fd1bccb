"""Hosts: their heartbeats, and the ports that each says it has."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row as SqlRow
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection

from vnet_agent.model.port import Port
from vnet_controller.store.instances import ActivePorts, project_snapshot
from vnet_controller.store.schema import HOSTS, INSTANCES, PORTS

_decoder = msgspec.json.Decoder(Port)


class PortRow(NamedTuple):
    """One port of one host; `body` is the JSON that the host sent."""

    host: str
    uuid: str
    instance: str
    role: str
    generation: int
    body: str


def record_heartbeat(connection: Connection, name: str, values: dict[str, Any]) -> None:
    """Insert or update the host `name`; `values` are the other columns of its row."""
    changed = connection.execute(update(HOSTS).where(HOSTS.c.name == name).values(values))
    if not changed.rowcount:
        connection.execute(insert(HOSTS).values(name=name, **values))


def list_hosts(connection: Connection) -> list[SqlRow[Any]]:
    return list(connection.execute(select(HOSTS).order_by(HOSTS.c.name)))


def get_host(connection: Connection, name: str) -> SqlRow[Any] | None:
    return connection.execute(select(HOSTS).where(HOSTS.c.name == name)).one_or_none()


def forget_host(connection: Connection, name: str) -> bool:
    """Remove a host and its ports; instances that were last seen there stay. False: unknown."""
    connection.execute(delete(PORTS).where(PORTS.c.host == name))
    return bool(connection.execute(delete(HOSTS).where(HOSTS.c.name == name)).rowcount)


def count_by_host(connection: Connection) -> dict[str, tuple[int, int]]:
    """Host -> (instances that are not gone, ports)."""
    instances = _count(connection, INSTANCES.c.host, INSTANCES.c.state.not_in(["stopped"]))
    ports = _count(connection, PORTS.c.host)
    hosts = instances.keys() | ports.keys()
    return {host: (instances.get(host, 0), ports.get(host, 0)) for host in hosts}


def _count(connection: Connection, column: Any, *where: Any) -> dict[str, int]:
    query = select(column, func.count()).where(*where).group_by(column)
    return {row[0]: row[1] for row in connection.execute(query)}


def replace_ports(
    connection: Connection,
    host: str,
    ports: Sequence[PortRow],
    active: Sequence[ActivePorts],
    now_us: int,
) -> None:
    """Take `ports` as all that `host` has; what it had before is forgotten."""
    connection.execute(delete(PORTS).where(PORTS.c.host == host))
    if ports:
        connection.execute(insert(PORTS), [port._asdict() for port in ports])
    project_snapshot(connection, host, active, now_us)


def read_ports(connection: Connection) -> dict[str, list[Port]]:
    """Host -> its ports, but those that have moved away."""
    query = select(PORTS.c.host, PORTS.c.body).where(PORTS.c.role != "moved")
    found: dict[str, list[Port]] = {}
    for host, body in connection.execute(query):
        found.setdefault(host, []).append(_decoder.decode(body))
    return found


def list_ports(
    connection: Connection,
    *,
    host: str | None,
    instance: str | None,
    after: tuple[str, str],
    limit: int,
) -> list[PortRow]:
    """By UUID and host; the next page is `after` the last one's (uuid, host)."""
    uuid, last_host = after
    rest = (PORTS.c.uuid > uuid) | ((PORTS.c.uuid == uuid) & (PORTS.c.host > last_host))
    query = select(PORTS).where(rest)
    if host is not None:
        query = query.where(PORTS.c.host == host)
    if instance is not None:
        query = query.where(PORTS.c.instance == instance)
    found = connection.execute(query.order_by(PORTS.c.uuid, PORTS.c.host).limit(limit))
    return [PortRow(*row) for row in found]
