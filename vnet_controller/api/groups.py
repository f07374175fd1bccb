"""Policy groups; a change reaches the hosts through their waiting requests."""

from functools import partial
from typing import Any

from aiohttp import web

from vnet_agent.exceptions import PolicyError
from vnet_agent.policy.document import group_from_json
from vnet_agent.policy.rules import MAX_GROUPS
from vnet_controller.api.exchange import read_json, read_path, read_query, reply
from vnet_controller.problem import Problem
from vnet_controller.services import SERVICES, Services, now_us
from vnet_controller.store import groups as store

ROUTES = web.RouteTableDef()


@ROUTES.put("/v1/groups/{name}")
async def put_group(request: web.Request) -> web.Response:
    """Checked as a policy file is; what is wrong is refused as a whole and the old group stays."""
    services = request.app[SERVICES]
    name = read_path(request, "name")
    value = await read_json(request, dict[str, Any])
    try:
        group = group_from_json(value, name=name)
    except PolicyError as error:
        where, detail = error.__dict__["where"], error.__dict__["detail"]
        raise Problem(422, f"{where}: {detail}", where=where) from None
    work = partial(store.put_group, group=group, most=MAX_GROUPS, now_us=now_us())
    try:
        revision, is_new = await services.writer.run(
            work, lambda result: _tell(services, result[0])
        )
    except store.TooManyGroups:
        raise Problem(409, f"There are {MAX_GROUPS} groups; hosts take no more.") from None
    return reply({"revision": revision, "group": group}, status=201 if is_new else 200)


def _tell(services: Services, revision: int) -> None:
    services.revision.advance(revision)
    services.membership.policy_changed()


@ROUTES.get("/v1/groups")
async def get_groups(request: web.Request) -> web.Response:
    read_query(request)
    revision, groups = await request.app[SERVICES].database.read(store.read_policy)
    return reply({"revision": revision, "groups": groups})


@ROUTES.get("/v1/groups/{name}")
async def get_group(request: web.Request) -> web.Response:
    name = read_path(request, "name")
    found = await request.app[SERVICES].database.read(partial(store.get_group, name=name))
    if found is None:
        raise Problem(404, f"There is no group {name}.")
    return reply({"revision": found[0], "group": found[1]})


@ROUTES.delete("/v1/groups/{name}")
async def delete_group(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    name = read_path(request, "name")
    revision = await services.writer.run(
        partial(store.delete_group, name=name),
        lambda result: _tell(services, result or 0),
    )
    if revision is None:
        raise Problem(404, f"There is no group {name}.")
    return reply({"revision": revision})
