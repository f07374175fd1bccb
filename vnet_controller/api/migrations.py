"""Migrations: each side's report in, the merged view out."""

from functools import partial

from aiohttp import web

from vnet_agent.model.migration import Report
from vnet_controller.api.exchange import (
    read_json,
    read_limit,
    read_path,
    read_query,
    read_text,
    reply,
)
from vnet_controller.intake import HOST
from vnet_controller.problem import Problem
from vnet_controller.services import SERVICES, now_us
from vnet_controller.store import migrations as store

ROUTES = web.RouteTableDef()


class SidedReport(Report, kw_only=True):
    """A report and the host that sends it."""

    host: str


@ROUTES.put("/v1/migrations/{id}")
async def put_migration(request: web.Request) -> web.Response:
    """`stored` is false when a later report of the same side is known already."""
    identifier = read_path(request, "id")
    report = await read_json(request, SidedReport)
    if report.id != identifier:
        raise Problem(400, "The report's id is not the one in the address.", field="id")
    if not HOST.match(report.host):
        raise Problem(400, "host is no host's name.", field="host")
    wrong = store.check_report(report)
    if wrong is not None:
        raise Problem(400, f"{wrong} is not what it can be in a report.", field=wrong)
    work = partial(store.record_report, report=report, now_us=now_us())
    stored = await request.app[SERVICES].writer.run(work)
    return reply({"stored": stored})


@ROUTES.get("/v1/migrations")
async def get_migrations(request: web.Request) -> web.Response:
    """The newest first."""
    read_query(request, "instance", "limit")
    work = partial(
        store.list_migrations,
        instance=read_text(request, "instance"),
        limit=read_limit(request, 50),
    )
    return reply({"migrations": await request.app[SERVICES].database.read(work)})


@ROUTES.get("/v1/migrations/{id}")
async def get_migration(request: web.Request) -> web.Response:
    identifier = read_path(request, "id")
    work = partial(store.get_migration, identifier=identifier)
    merged = await request.app[SERVICES].database.read(work)
    if merged is None:
        raise Problem(404, f"No host ever told of a migration {identifier}.")
    return reply(merged)
