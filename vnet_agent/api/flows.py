"""What the flow cache holds, page by page: a million entries are never in memory at once."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from vnet_agent.api.exchange import JSON, read_number, read_query
from vnet_agent.api.problem import Problem
from vnet_agent.api.services import SERVICES
from vnet_agent.datapath.base import Connection, Driver, Flow, FlowFilter
from vnet_agent.exceptions import FilterError, UnknownPort, VnetError

ROUTES = web.RouteTableDef()

#: Entries that are read, and sent, at a time.
CHUNK = 2048
_DEFAULT, _MOST = 1000, 1_000_000
_FILTERS = ("protocol", "remote", "state", "verdict", "limit", "cursor")

#: Entries in JSON with commas between them, how many, and the cursor behind them.
Page = tuple[bytes, int, str | None]
Show = Callable[[Flow], Any]


@ROUTES.get("/v1/flows")
async def get_flows(request: web.Request) -> web.StreamResponse:
    """Of all ports, or of `port`, in the order of their UUIDs."""
    read_query(request, "port", *_FILTERS)
    inventory = request.app[SERVICES].inventory
    given = request.query.get("port")
    states = inventory.states() if given is None else [inventory.get(given)]
    ports = sorted(state.port.uuid for state in states)
    return await _answer(request, "flows", ports, lambda flow: flow)


@ROUTES.get("/v1/ports/{id}/connections")
async def get_connections(request: web.Request) -> web.StreamResponse:
    read_query(request, *_FILTERS)
    port = request.app[SERVICES].inventory.get(request.match_info["id"]).port.uuid
    return await _answer(request, "connections", [port], _plain)


def _plain(flow: Flow) -> Connection:
    names = Connection.__struct_fields__
    return Connection(**{name: getattr(flow, name) for name in names})


async def _answer(
    request: web.Request, name: str, ports: list[str], show: Show
) -> web.StreamResponse:
    """{NAME: [...], "cursor": text or null}, streamed; `error` says that it is not whole."""
    limit = read_number(request, "limit", _DEFAULT, low=1, high=_MOST)
    chunks = _read(request, ports, show, limit)
    # Awaited before the answer begins: what is wrong with the request is a problem, no stream.
    chunk = await anext(chunks, None)
    response = web.StreamResponse()
    response.content_type = JSON
    await response.prepare(request)
    await response.write(b'{"%b":[' % name.encode())
    cursor, error, separator = None, None, b""
    try:
        while chunk is not None:
            body, _, cursor = chunk
            if body:
                await response.write(separator + body)
                separator = b","
            chunk = await anext(chunks, None)
    except VnetError as wrong:
        error = str(wrong)
    finally:
        await chunks.aclose()
    end = msgspec.json.encode({"cursor": cursor} | ({"error": error} if error else {}))
    await response.write(b"]," + end[1:])
    await response.write_eof()
    return response


def _read_filter(request: web.Request) -> FlowFilter:
    verdict = request.query.get("verdict")
    if verdict not in (None, "fresh", "stale"):
        detail = f"verdict must be fresh or stale, not {verdict[:60]!r}."
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    return FlowFilter(
        protocol=request.query.get("protocol"),
        remote=request.query.get("remote"),
        state=request.query.get("state"),
        fresh=None if verdict is None else verdict == "fresh",
    )


def _read_cursor(request: web.Request) -> tuple[str, str | None]:
    """Where to begin: the port, and the place in its table."""
    text = request.query.get("cursor")
    if text is None:
        return "", None
    port, slash, place = text.partition("/")
    if not slash:
        raise FilterError(detail=f"{text[:60]!r} is no cursor; take one that a listing gave.")
    return port, place or None


async def _read(
    request: web.Request, ports: list[str], show: Show, limit: int
) -> AsyncGenerator[Page, None]:
    """Pages until the limit; the last one's cursor is None if nothing is left."""
    driver, match = request.app[SERVICES].driver, _read_filter(request)
    start, place = _read_cursor(request)
    ports = [port for port in ports if port >= start]
    for port, after in zip(ports, [*ports[1:], None], strict=True):
        at = place if port == start else None
        more = True
        while more:
            page = await asyncio.to_thread(
                _read_page, driver, port, match, at, min(limit, CHUNK), show
            )
            if page is None:
                break
            body, count, at = page
            limit -= count
            more = at is not None
            yield body, count, f"{port}/{at}" if more else after and f"{after}/"
            if limit <= 0:
                return


def _read_page(
    driver: Driver, port: str, match: FlowFilter, cursor: str | None, limit: int, show: Show
) -> Page | None:
    """In a thread, JSON included. None: the port went meanwhile."""
    try:
        page = driver.flows(port, match=match, cursor=cursor, limit=limit)
    except UnknownPort:
        return None
    return (
        msgspec.json.encode([show(flow) for flow in page.flows])[1:-1],
        len(page.flows),
        page.cursor,
    )
