"""The policy in force, and a new one in its place."""

import asyncio
from http import HTTPStatus

from aiohttp import web

from vnet_agent.api.exchange import read_query, reply
from vnet_agent.api.problem import Problem
from vnet_agent.api.services import SERVICES
from vnet_agent.exceptions import PolicyError
from vnet_agent.model.policy import Group
from vnet_agent.policy import document

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/rules")
async def get_rules(request: web.Request) -> web.Response:
    read_query(request)
    policy = request.app[SERVICES].policy
    return reply({"origin": policy.origin, "groups": policy.groups()})


@ROUTES.put("/v1/rules")
async def put_rules(request: web.Request) -> web.Response:
    """The body is a policy document; `name` is the file's, for messages."""
    read_query(request, "name")
    name = request.query.get("name", "the request")
    if not name.isprintable() or len(name) > 4096:
        raise Problem(HTTPStatus.BAD_REQUEST, "name is no file's name.")
    body = await request.read()
    groups = await asyncio.to_thread(_parse, body, name)
    await request.app[SERVICES].policy.replace(groups, origin="api")
    rules = sum(len(group.rules) for group in groups)
    return reply({"groups": len(groups), "rules": rules})


def _parse(body: bytes, name: str) -> tuple[Group, ...]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise PolicyError(where=f"{name}:{line}", detail="this is no UTF-8 text") from None
    return document.parse(text, name=name)
