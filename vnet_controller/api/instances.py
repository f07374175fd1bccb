"""Instances: where each runs, and how it is."""

import datetime
from functools import partial
from typing import Any

from aiohttp import web
from sqlalchemy.engine import Connection

from vnet_controller.api.exchange import read_limit, read_path, read_query, read_text, reply
from vnet_controller.api.ports import show_port
from vnet_controller.problem import Problem
from vnet_controller.services import SERVICES, now_us
from vnet_controller.store import hosts
from vnet_controller.store import instances as store
from vnet_controller.store.projection import Instance

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/instances")
async def get_instances(request: web.Request) -> web.Response:
    """By UUID; `next` is the `after` of the next page, null on the last."""
    read_query(request, "host", "state", "after", "limit")
    limit = read_limit(request, 1000)
    found = await request.app[SERVICES].database.read(
        partial(
            store.list_instances,
            host=read_text(request, "host"),
            state=read_text(request, "state"),
            after=read_text(request, "after") or "",
            limit=limit,
        )
    )
    following = found[-1].uuid if len(found) == limit else None
    return reply({"instances": [show_instance(i) for i in found], "next": following})


@ROUTES.get("/v1/instances/{uuid}")
async def get_instance(request: web.Request) -> web.Response:
    """Where to find an instance: also the URL at which its host gives its ports' state away."""
    services = request.app[SERVICES]
    uuid = read_path(request, "uuid")

    def read(connection: Connection) -> dict[str, Any] | None:
        instance = store.read_instances(connection, [uuid]).get(uuid)
        if instance is None:
            return None
        host = hosts.get_host(connection, instance.host)
        ports = hosts.list_ports(connection, host=None, instance=uuid, after=("", ""), limit=1000)
        timeout_us = services.conf.host_timeout * 1e6
        is_up = host is not None and now_us() - host.seen_us <= timeout_us
        return show_instance(instance) | {
            "host_state": "up" if is_up else "down",
            "migration_url": host.migration_url if host is not None else None,
            "ports": [show_port(port) for port in ports],
        }

    shown = await services.database.read(read)
    if shown is None:
        raise Problem(404, f"No host ever told of an instance {uuid}.")
    return reply(shown)


def show_instance(instance: Instance) -> dict[str, Any]:
    return {
        "uuid": instance.uuid,
        "name": instance.name,
        "host": instance.host,
        "state": instance.state,
        "cause": instance.cause,
        "since": format_time(instance.since_us),
        "generation": instance.generation,
    }


def format_time(time_us: int) -> str:
    """RFC 3339 in UTC, with microseconds."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    moment = epoch + datetime.timedelta(microseconds=time_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
