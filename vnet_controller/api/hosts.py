"""Hosts: heartbeats, port snapshots, and the policy that each waits for."""

from functools import partial
from typing import Annotated, Any

import msgspec
from aiohttp import web
from sqlalchemy import Row as SqlRow
from sqlalchemy.engine import Connection

from vnet_agent.model.policy import Group
from vnet_controller.api.exchange import (
    LARGEST,
    read_host,
    read_json,
    read_number,
    read_query,
    reply,
)
from vnet_controller.intake import parse_time
from vnet_controller.problem import Problem
from vnet_controller.services import SERVICES, now_us
from vnet_controller.store import groups
from vnet_controller.store import hosts as store

ROUTES = web.RouteTableDef()


class Heartbeat(msgspec.Struct, frozen=True):
    """`started` is when the agent did, RFC 3339; `datapath` is whatever its driver tells."""

    version: Annotated[str, msgspec.Meta(max_length=128)]
    epoch: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
    migration_url: Annotated[str, msgspec.Meta(max_length=512)]
    started: Annotated[str, msgspec.Meta(max_length=64)]
    datapath: dict[str, Any] = {}


@ROUTES.put("/v1/hosts/{host}")
async def put_heartbeat(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    host = read_host(request)
    beat = await read_json(request, Heartbeat)
    if parse_time(beat.started) is None:
        raise Problem(400, "started must be a time as in RFC 3339.", field="started")
    for field in ("version", "migration_url"):
        if "\0" in getattr(beat, field):
            raise Problem(400, f"{field} must not contain NUL.", field=field)
    values = msgspec.structs.asdict(beat) | {
        "datapath": msgspec.json.encode(beat.datapath).decode(),
        "seen_us": now_us(),
    }
    await services.writer.run(partial(store.record_heartbeat, name=host, values=values))
    return reply({"policy_revision": services.revision.value})


@ROUTES.get("/v1/hosts")
async def get_hosts(request: web.Request) -> web.Response:
    read_query(request)
    services = request.app[SERVICES]

    def read(connection: Connection) -> tuple[list[SqlRow[Any]], dict[str, tuple[int, int]]]:
        return store.list_hosts(connection), store.count_by_host(connection)

    rows, counts = await services.database.read(read)
    timeout = services.conf.host_timeout
    return reply({"hosts": [show_host(row, counts.get(row.name), timeout) for row in rows]})


@ROUTES.get("/v1/hosts/{host}")
async def get_host(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    host = read_host(request)

    def read(connection: Connection) -> tuple[SqlRow[Any] | None, dict[str, tuple[int, int]]]:
        return store.get_host(connection, host), store.count_by_host(connection)

    row, counts = await services.database.read(read)
    if row is None:
        raise _unknown(host)
    return reply(show_host(row, counts.get(host), services.conf.host_timeout))


@ROUTES.delete("/v1/hosts/{host}")
async def delete_host(request: web.Request) -> web.Response:
    """For a host that was taken out of the fleet; one that still beats comes back."""
    host = read_host(request)
    services = request.app[SERVICES]
    work = partial(store.forget_host, name=host)
    if not await services.writer.run(work, lambda _: services.membership.forget_host(host)):
        raise _unknown(host)
    return web.Response(status=204)


@ROUTES.get("/v1/hosts/{host}/policy")
async def get_policy(request: web.Request) -> web.Response:
    """All groups; with `after` the newest revision, waits up to `wait` seconds for a change.

    With them come the members that their rules ask for: no host need hold the one without the
    other.
    """
    read_query(request, "after", "wait")
    host = read_host(request)
    services = request.app[SERVICES]
    after = read_number(request, "after")
    wait = min(read_number(request, "wait", 0) or 0, services.conf.limits.policy_wait)
    # A greater revision than there ever was is that of another database: the host must learn.
    if after is not None and after == services.revision.value:
        await services.revision.wait_beyond(after, wait)
    revision, policy = await services.database.read(groups.read_policy)
    _, members = await services.membership.of_host(host)
    shown = [_show_for_host(group) for group in policy]
    return reply({"revision": revision, "groups": shown, "members": members})


def _show_for_host(group: Group) -> dict[str, Any]:
    """Without fields that say nothing: an older agent refuses groups with keys new to it."""
    shown: dict[str, Any] = msgspec.to_builtins(group)
    shown["rules"] = [
        {key: value for key, value in rule.items() if value is not None} for rule in shown["rules"]
    ]
    return shown if shown["members"] else {k: v for k, v in shown.items() if k != "members"}


def show_host(row: SqlRow[Any], counts: tuple[int, int] | None, timeout: float) -> dict[str, Any]:
    age = max(0.0, (now_us() - row.seen_us) / 1e6)
    instances, ports = counts or (0, 0)
    return {
        "name": row.name,
        "state": "up" if age <= timeout else "down",
        "seen_us": row.seen_us,
        "seconds_since_seen": round(age, 3),
        "version": row.version,
        "epoch": row.epoch,
        "migration_url": row.migration_url,
        "started": row.started,
        "datapath": msgspec.json.decode(row.datapath),
        "instances": instances,
        "ports": ports,
    }


def _unknown(host: str) -> Problem:
    return Problem(404, f"No host {host} ever sent a heartbeat.")
