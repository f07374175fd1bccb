"""Reports of the migrations that this host took part in."""

from aiohttp import web

from vnet_agent.api.exchange import read_query, reply
from vnet_agent.api.services import SERVICES

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/migrations")
async def get_migrations(request: web.Request) -> web.Response:
    read_query(request)
    return reply({"migrations": list(request.app[SERVICES].migrations.reports())})


@ROUTES.get("/v1/migrations/{id}")
async def get_migration(request: web.Request) -> web.Response:
    read_query(request)
    return reply(request.app[SERVICES].migrations.report(request.match_info["id"]))
