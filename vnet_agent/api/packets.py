"""Frames that handlers gave to the controller, and what is answered to them."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from vnet_agent.api.events import STREAMS
from vnet_agent.api.exchange import decode, read_query, reply
from vnet_agent.api.services import SERVICES
from vnet_agent.api.tables import show_rule
from vnet_agent.model.handler import Origin
from vnet_agent.packets.answer import read_answer

ROUTES = web.RouteTableDef()

CONTENT_TYPE = "application/jsonl"
#: Seconds after which a quiet stream says with an empty line that it lives.
KEEP_ALIVE = 15.0
_BATCH = 64


@ROUTES.get("/v1/packet-ins")
async def get_packet_ins(request: web.Request) -> web.StreamResponse:
    """Those that come from now on, one JSON object a line; `lost` of the same port before it."""
    read_query(request, "port")
    services = request.app[SERVICES]
    wanted = request.query.get("port")
    port = None if wanted is None else services.inventory.get(wanted).port.uuid
    response = web.StreamResponse(headers={"Cache-Control": "no-store"})
    response.content_type = CONTENT_TYPE
    streams = request.app[STREAMS]
    task = asyncio.current_task()
    assert task is not None
    streams.add(task)
    try:
        with services.packets.follow() as queue:
            await response.prepare(request)
            await response.write(b"\n")
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE):
                        await queue.wait()
                except TimeoutError:
                    await response.write(b"\n")
                    continue
                for taken in queue.take(_BATCH):
                    if port in (None, taken.item["port"]):
                        line = msgspec.json.encode(taken.item | {"lost": taken.lost})
                        await response.write(line + b"\n")
    except ConnectionResetError:
        pass
    finally:
        streams.discard(task)
    return response


@ROUTES.post("/v1/packet-outs")
async def post_packet_out(request: web.Request) -> web.Response:
    """`{"rule": ..., "packet": ...}`, or one of them; the rule is in force before the packet."""
    read_query(request)
    services = request.app[SERVICES]
    answer = read_answer(decode(await request.read(), dict[str, Any]))
    rule = await services.packet_outs.apply(answer, origin=Origin.OPERATOR)
    shown = None
    if rule is not None and answer.rule is not None:
        shown = show_rule(services.tables, answer.rule[0], rule)
    return reply({"rule": shown, "sent": answer.packet is not None})
