"""Events in, out, and as a stream."""

import logging
from functools import partial

from aiohttp import web

from vnet_agent.model.event import Type
from vnet_controller.api.exchange import (
    parse_number,
    read_body,
    read_limit,
    read_number,
    read_query,
    read_text,
    reply,
)
from vnet_controller.intake import JSON, Limits, decode_events
from vnet_controller.problem import Problem
from vnet_controller.services import SERVICES, Services, now_us
from vnet_controller.store import journal
from vnet_controller.store.ingest import ingest_events
from vnet_controller.store.journal import Filter, Row

LOG = logging.getLogger(__name__)

ROUTES = web.RouteTableDef()

#: Seconds after which a quiet stream says that it lives, and where it is.
KEEP_ALIVE = 15.0

_FILTERS = ("type", "subject", "source")


@ROUTES.post("/v1/events")
async def post_events(request: web.Request) -> web.Response:
    """Answers once the events are on the disk; what was there already counts as well."""
    services = request.app[SERVICES]
    options = services.conf.limits
    limits = Limits(events=options.batch_events, event_size=options.event_size)
    incoming = decode_events(await read_body(request), request.content_type, limits)
    if incoming:
        work = partial(ingest_events, incoming=incoming, now_us=now_us())
        stored = await services.writer.run(work, partial(_publish, services))
        services.metrics.duplicates.inc(len(incoming) - len(stored))
    return reply({"durable": [item.event.id for item in incoming]})


def _publish(services: Services, rows: list[Row]) -> None:
    services.hub.publish(rows)
    for row in rows:
        services.metrics.events.labels(type=row.type).inc()


@ROUTES.get("/v1/events")
async def get_events(request: web.Request) -> web.Response:
    """`after` a cursor, oldest first; or the `last` ones."""
    read_query(request, "after", "limit", "last", *_FILTERS)
    services = request.app[SERVICES]
    wanted = read_filter(request)
    last = read_number(request, "last", low=1)
    if last is not None:
        last = min(last, services.conf.limits.page_size)
        page = await services.database.read(partial(journal.read_last, limit=last, wanted=wanted))
    else:
        after, limit = read_number(request, "after", 0) or 0, read_limit(request)
        page = await services.database.read(
            partial(journal.read_after, after=after, limit=limit, wanted=wanted)
        )
    # The bodies are JSON already; decoding them only to encode them again would be waste.
    bodies = ",".join(row.body for row in page.rows)
    text = f'{{"events":[{bodies}],"cursor":{page.cursor}}}'
    return web.Response(text=text, content_type=JSON)


@ROUTES.get("/v1/events/stream")
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Server-sent events; each id is a cursor, with which a client goes on where it was."""
    read_query(request, "after", *_FILTERS)
    services = request.app[SERVICES]
    wanted = read_filter(request)
    after = parse_number(request.headers.get("Last-Event-ID"), "Last-Event-ID")
    if after is None:
        after = read_number(request, "after")
    if services.metrics.open_streams >= services.conf.limits.streams:
        raise Problem(503, "Too many streams are open.").retry_after(10)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    )
    with services.metrics.count_stream():
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        try:
            async for page in services.hub.follow(after, wanted, idle=KEEP_ALIVE):
                await response.write(_render(page))
        except ConnectionError:
            LOG.debug("The client of a stream left")
        except Exception:  # the answer has begun, so it cannot become a problem; clients resume
            LOG.exception("A stream of events broke off")
            response.force_close()
    return response


def _render(page: journal.Page) -> bytes:
    """An empty page moves the client's cursor and nothing else."""
    if not page.rows:
        return f": keep-alive\nid: {page.cursor}\n\n".encode()
    return "".join(f"id: {row.position}\ndata: {row.body}\n\n" for row in page.rows).encode()


def read_filter(request: web.Request) -> Filter:
    """`type` may be given several times, or with commas."""
    types = {t for value in request.query.getall("type", []) for t in value.split(",") if t}
    unknown = types - {kind.value for kind in Type}
    if unknown:
        raise Problem(400, f"Unknown type {min(unknown)[:80]!r}.", field="type")
    return Filter(frozenset(types), read_text(request, "subject"), read_text(request, "source"))
