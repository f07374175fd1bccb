"""Ports: each host's full snapshot in, all of them out."""

from functools import partial
from typing import Annotated, Any

import msgspec
from aiohttp import web

from vnet_agent.model.port import Port, Role
from vnet_controller.api.exchange import (
    LARGEST,
    read_host,
    read_json,
    read_limit,
    read_query,
    read_text,
    reply,
)
from vnet_controller.problem import Problem
from vnet_controller.services import SERVICES, now_us
from vnet_controller.store import hosts as store
from vnet_controller.store.hosts import PortRow
from vnet_controller.store.instances import ActivePorts

ROUTES = web.RouteTableDef()


class HostPort(Port, frozen=True, kw_only=True):
    """A port, and what it is to the host that sent it."""

    role: Role
    generation: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)] = 0
    tagged: bool = False
    ifindex: int | None = None
    local_id: int | None = None


class Snapshot(msgspec.Struct, frozen=True):
    ports: list[HostPort]


@ROUTES.put("/v1/hosts/{host}/ports")
async def put_ports(request: web.Request) -> web.Response:
    host = read_host(request)
    snapshot = await read_json(request, Snapshot)
    rows = make_rows(host, snapshot.ports)
    active = find_active(snapshot.ports)
    work = partial(store.replace_ports, host=host, ports=rows, active=active, now_us=now_us())
    services = request.app[SERVICES]
    here = [port for port in snapshot.ports if port.role is not Role.MOVED]
    await services.writer.run(work, lambda _: services.membership.take_ports(host, here))
    return reply({"ports": len(rows)})


def make_rows(host: str, ports: list[HostPort]) -> list[PortRow]:
    """Rows of the table; raises Problem for keys that are none and for doubles."""
    rows: dict[str, PortRow] = {}
    for index, port in enumerate(ports):
        for field in ("uuid", "instance"):
            text = getattr(port, field)
            if not 0 < len(text) <= 256 or not text.isprintable():
                where = f"ports[{index}].{field}"
                raise Problem(400, f"{where} must be 1 to 256 printable characters.", field=where)
        if port.uuid in rows:
            where = f"ports[{index}].uuid"
            raise Problem(400, f"{where}: {port.uuid} was in the list before.", field=where)
        body = msgspec.json.encode(port).decode()
        rows[port.uuid] = PortRow(
            host, port.uuid, port.instance, port.role.value, port.generation, body
        )
    return list(rows.values())


def find_active(ports: list[HostPort]) -> list[ActivePorts]:
    """One entry for each instance that has an active port."""
    found: dict[str, ActivePorts] = {}
    for port in ports:
        if port.role is Role.ACTIVE:
            known = found.get(port.instance)
            generation = max(port.generation, known.generation if known else 0)
            found[port.instance] = ActivePorts(port.instance, port.instance_name, generation)
    return list(found.values())


@ROUTES.get("/v1/ports")
async def get_ports(request: web.Request) -> web.Response:
    """By UUID and host; `next` is the `after` of the next page, null on the last."""
    read_query(request, "host", "instance", "after", "limit")
    limit = read_limit(request, 1000)
    uuid, _, last_host = (read_text(request, "after") or "").partition("@")
    rows = await request.app[SERVICES].database.read(
        partial(
            store.list_ports,
            host=read_text(request, "host"),
            instance=read_text(request, "instance"),
            after=(uuid, last_host),
            limit=limit,
        )
    )
    following = f"{rows[-1].uuid}@{rows[-1].host}" if len(rows) == limit else None
    return reply({"ports": [show_port(row) for row in rows], "next": following})


def show_port(row: PortRow) -> dict[str, Any]:
    port: dict[str, Any] = msgspec.json.decode(row.body)
    return {"host": row.host, **port}
