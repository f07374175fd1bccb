"""Tables of handlers: what is in force, a new table in its place, and single rules.

A table's revision is its entity tag: with If-Match a change is made only of what its maker saw.
"""

import asyncio
import re
from http import HTTPStatus
from typing import Any

from aiohttp import web

from vnet_agent.api.exchange import decode, read_number, read_query, reply
from vnet_agent.api.problem import Problem
from vnet_agent.api.services import SERVICES
from vnet_agent.api.table_filter import read_filter
from vnet_agent.exceptions import FilterError, HandlerError
from vnet_agent.handlers import document
from vnet_agent.handlers.state import StoredRule
from vnet_agent.handlers.tables import Tables
from vnet_agent.model.handler import TABLES, Origin, TableDocument, show_handler

ROUTES = web.RouteTableDef()

_DEFAULT, _MOST = 1000, 10_000
_FILTERS = ("priority", "cookie", "origin", "waiting", "port", "instance")


@ROUTES.get("/v1/tables")
async def get_tables(request: web.Request) -> web.Response:
    """All of them, with how many rules there are and how many of those wait for a port."""
    read_query(request)
    tables = request.app[SERVICES].tables
    return reply({"tables": [_show_table(tables, table) for table in range(TABLES)]})


@ROUTES.get("/v1/tables/{table}")
async def get_table(request: web.Request) -> web.Response:
    """The rules by priority; `cursor` is where the next page begins, null on the last."""
    read_query(request, "limit", "cursor", *_FILTERS)
    tables, table = request.app[SERVICES].tables, _read_table(request)
    limit = read_number(request, "limit", _DEFAULT, low=1, high=_MOST)
    wanted = read_filter(request)
    after = _read_cursor(request)
    rules: list[StoredRule] = []
    cursor = None
    for rule in tables.ordered(table):
        if _place(rule) <= after or not wanted.takes(rule, tables.is_waiting(table, rule.id)):
            continue
        if len(rules) == limit:
            cursor = f"{rules[-1].handler.priority}/{rules[-1].id}"
            break
        rules.append(rule)
    shown = [show_rule(tables, table, rule) for rule in rules]
    return _reply(tables, table, _show_table(tables, table) | {"rules": shown, "cursor": cursor})


@ROUTES.put("/v1/tables/{table}")
async def put_table(request: web.Request) -> web.Response:
    """The body is a table's document; `name` is the file's, for messages."""
    read_query(request, "name")
    name = request.query.get("name", "the request")
    if not name.isprintable() or len(name) > 4096:
        raise Problem(HTTPStatus.BAD_REQUEST, "name is no file's name.")
    tables, table = request.app[SERVICES].tables, _read_table(request)
    parsed = await asyncio.to_thread(_parse, await request.read(), table, name)
    await tables.replace(table, parsed, origin=Origin.OPERATOR, revision=_read_match(request))
    return _reply(tables, table, _show_table(tables, table))


@ROUTES.delete("/v1/tables/{table}")
async def delete_table(request: web.Request) -> web.Response:
    """All its rules, and what it does on a miss."""
    read_query(request)
    tables, table = request.app[SERVICES].tables, _read_table(request)
    await tables.clear(table, revision=_read_match(request))
    return _reply(tables, table, _show_table(tables, table))


@ROUTES.post("/v1/tables/{table}/rules")
async def post_rule(request: web.Request) -> web.Response:
    """The body is one rule. It takes the place of one of the same priority and match."""
    read_query(request)
    tables, table = request.app[SERVICES].tables, _read_table(request)
    value = decode(await request.read(), dict[str, Any])
    _, handler = document.rule_from_json(value, table)
    (rule,) = await tables.add(
        table, [handler], origin=Origin.OPERATOR, revision=_read_match(request)
    )
    return _reply(tables, table, show_rule(tables, table, rule))


@ROUTES.delete("/v1/tables/{table}/rules/{id}")
async def delete_rule(request: web.Request) -> web.Response:
    read_query(request)
    tables, table = request.app[SERVICES].tables, _read_table(request)
    text = request.match_info["id"]
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Problem(HTTPStatus.BAD_REQUEST, f"{text[:60]!r} is no rule's id.")
    rule = await tables.delete(table, int(text), revision=_read_match(request))
    shown = show_rule(tables, table, rule) | {"waiting": False}
    return _reply(tables, table, shown)


def show_rule(tables: Tables, table: int, rule: StoredRule) -> dict[str, Any]:
    """As a document has it, and what is known of it besides."""
    extra = {"origin": rule.origin, "waiting": tables.is_waiting(table, rule.id)}
    return {"id": rule.id, "table": table} | show_handler(rule.handler) | extra


def _show_table(tables: Tables, table: int) -> dict[str, Any]:
    content = tables.content(table)
    return {
        "table": table,
        "miss": content.miss,
        "count": len(content.rules),
        "waiting": tables.count_waiting(table),
        "revision": content.revision,
    }


def _place(rule: StoredRule) -> tuple[int, int]:
    return -rule.handler.priority, rule.id


def _read_cursor(request: web.Request) -> tuple[int, int]:
    text = request.query.get("cursor")
    if text is None:
        return -1 << 16, 0
    found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,15})", text)
    if found is None:
        raise FilterError(detail=f"{text[:60]!r} is no cursor; take one that a listing gave.")
    return -int(found[1]), int(found[2])


def _read_table(request: web.Request) -> int:
    text = request.match_info["table"]
    if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) >= TABLES:
        raise Problem(
            HTTPStatus.NOT_FOUND, f"There is no table {text[:60]!r}; they are 0 to {TABLES - 1}."
        )
    return int(text)


def _read_match(request: web.Request) -> int | None:
    """The one revision that the change is for; None: any."""
    tags = request.if_match
    if tags is None or tags[0].value == "*":
        return None
    text = tags[0].value
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else -1


def _reply(tables: Tables, table: int, value: dict[str, Any]) -> web.Response:
    response = reply(value)
    response.etag = str(tables.content(table).revision)
    return response


def _parse(body: bytes, table: int, name: str) -> TableDocument:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise HandlerError(where=f"{name}:{line}", detail="this is no UTF-8 text") from None
    return document.parse_table(text, table, name=name)
