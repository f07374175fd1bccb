"""The policy in force, a new one in its place, and single rules of it.

Its revision is the entity tag: with If-Match a change is made only of what its maker has seen.
"""

import asyncio
import re
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from vnet_agent.api.exchange import decode, read_flag, read_query, reply
from vnet_agent.api.problem import Problem
from vnet_agent.api.services import SERVICES
from vnet_agent.exceptions import PolicyError
from vnet_agent.model.policy import Group
from vnet_agent.policy import document
from vnet_agent.policy.edit import add_rule, delete_rule
from vnet_agent.policy.store import PolicyStore

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/rules")
async def get_rules(request: web.Request) -> web.Response:
    read_query(request)
    policy = request.app[SERVICES].policy
    return _reply(policy, {"groups": policy.groups()})


@ROUTES.put("/v1/rules")
async def put_rules(request: web.Request) -> web.Response:
    """The body is a policy document; `name` is the file's, for messages."""
    read_query(request, "name")
    name = request.query.get("name", "the request")
    if not name.isprintable() or len(name) > 4096:
        raise Problem(HTTPStatus.BAD_REQUEST, "name is no file's name.")
    body = await request.read()
    groups = await asyncio.to_thread(_parse, body, name)
    policy = request.app[SERVICES].policy
    await policy.replace(groups, origin="api", revision=_read_match(request))
    rules = sum(len(group.rules) for group in groups)
    return reply({"groups": len(groups), "rules": rules})


@ROUTES.post("/v1/rules/{group}")
async def post_rule(request: web.Request) -> web.Response:
    """The body is one rule; it becomes the group's last. `force`: the controller's groups too."""
    read_query(request, "force")
    policy = request.app[SERVICES].policy
    edit = await add_rule(
        policy,
        request.match_info["group"],
        decode(await request.read(), dict[str, Any]),
        revision=_read_match(request),
        force=read_flag(request, "force"),
    )
    return _reply(policy, msgspec.to_builtins(edit))


@ROUTES.delete("/v1/rules/{group}/{number}")
async def remove_rule(request: web.Request) -> web.Response:
    read_query(request, "force")
    policy = request.app[SERVICES].policy
    number = request.match_info["number"]
    if not re.fullmatch(r"[0-9]{1,6}", number):
        raise Problem(HTTPStatus.BAD_REQUEST, f"{number[:60]!r} is no rule's number.")
    edit = await delete_rule(
        policy,
        request.match_info["group"],
        int(number),
        revision=_read_match(request),
        force=read_flag(request, "force"),
    )
    return _reply(policy, msgspec.to_builtins(edit))


def _reply(policy: PolicyStore, value: dict[str, Any]) -> web.Response:
    response = reply(value | {"origin": policy.origin, "digest": policy.revision})
    response.etag = policy.revision
    return response


def _read_match(request: web.Request) -> str | None:
    """The one revision that the change is for; None: any."""
    tags = request.if_match
    if tags is None or tags[0].value == "*":
        return None
    return tags[0].value


def _parse(body: bytes, name: str) -> tuple[Group, ...]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise PolicyError(where=f"{name}:{line}", detail="this is no UTF-8 text") from None
    return document.parse(text, name=name)
