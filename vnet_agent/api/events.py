"""This host's events: those of the journal, and a stream of what comes."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from vnet_agent.api.exchange import read_flag, read_number, read_query, reply
from vnet_agent.api.problem import Problem
from vnet_agent.api.services import SERVICES
from vnet_agent.events.log import EventLog, Subscription
from vnet_agent.model.event import Event, Type

ROUTES = web.RouteTableDef()

#: Open streams, so that the server can end them.
STREAMS: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("streams", set)

#: Seconds after which a quiet stream says that it lives.
KEEP_ALIVE = 15.0
_PAGE = 500
_DEFAULT, _MOST = 100, 10_000


@ROUTES.get("/v1/events")
async def get_events(request: web.Request) -> web.Response:
    """Oldest first, from `after` (an event's id) on; with `latest=1` the last `limit` ones."""
    read_query(request, "after", "limit", "type", "subject", "latest")
    events = await request.app[SERVICES].events.events(
        after=request.query.get("after"),
        limit=read_number(request, "limit", _DEFAULT, low=1, high=_MOST),
        types=_read_types(request),
        subject=request.query.get("subject"),
        latest=read_flag(request, "latest"),
    )
    return reply({"events": events})


def _read_types(request: web.Request) -> list[Type]:
    """`type`, which may occur several times."""
    types = []
    for text in request.query.getall("type", []):
        try:
            types.append(Type(text))
        except ValueError:
            detail = f"{text[:60]!r} is no event type; there are {', '.join(Type)}."
            raise Problem(HTTPStatus.BAD_REQUEST, detail) from None
    return types


@ROUTES.get("/v1/events/stream")
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Server-sent events, from Last-Event-ID or `after` on, otherwise from now on."""
    read_query(request, "after", "type", "subject")
    types = _read_types(request)
    subject = request.query.get("subject")
    after = request.headers.get("Last-Event-ID") or request.query.get("after")
    log = request.app[SERVICES].events
    if after is not None:
        await log.events(after=after, limit=1)  # an id that is not known is an error, no stream
    news = log.subscribe()
    response = web.StreamResponse(headers={"Cache-Control": "no-store"})
    response.content_type = "text/event-stream"
    streams = request.app[STREAMS]
    task = asyncio.current_task()
    assert task is not None
    streams.add(task)
    try:
        await response.prepare(request)
        async for event in _follow(log, news, after):
            if event is None:
                await response.write(b":\n\n")
            elif (not types or event.type in types) and subject in (None, event.subject):
                body = msgspec.json.encode(event)
                await response.write(b"id: %b\ndata: %b\n\n" % (event.id.encode(), body))
    except ConnectionResetError:
        pass
    finally:
        streams.discard(task)
        await news.aclose()
    return response


async def _follow(
    log: EventLog, news: Subscription, after: str | None
) -> AsyncIterator[Event | None]:
    """The past from `after` on, then the news, without a gap; None when nothing came for long."""
    seen = ""
    while after is not None:
        page = await log.events(after=after, limit=_PAGE)
        for event in page:
            yield event
            after = seen = event.id
        if len(page) < _PAGE:
            break
    yield None
    while True:
        try:
            async with asyncio.timeout(KEEP_ALIVE):
                event = await anext(news)
        except TimeoutError:
            yield None
            continue
        except StopAsyncIteration:
            return
        if event.id > seen:  # ids of one host sort as they count
            yield event
