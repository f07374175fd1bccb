"""The loop of handlers and controller: packet-ins from the hosts, rules and packets to them."""

import asyncio
from typing import Annotated, Any

import msgspec
from aiohttp import web

from vnet_agent.exceptions import HandlerError
from vnet_agent.packets.answer import read_answer
from vnet_controller.api.exchange import (
    read_host,
    read_json,
    read_number,
    read_query,
    read_text,
    reply,
)
from vnet_controller.packets import OrdersFull, UnknownHost
from vnet_controller.problem import Problem
from vnet_controller.services import SERVICES

ROUTES = web.RouteTableDef()

#: Seconds after which a quiet stream says with an empty line that it lives.
KEEP_ALIVE = 15.0
_BATCH = 64
_Text = Annotated[str, msgspec.Meta(max_length=128)]


class PacketIn(msgspec.Struct, frozen=True, kw_only=True):
    """As vnet_agent.packets.feed shows it; `lost` of the same port before it."""

    time: _Text
    port: _Text
    instance: _Text | None = None
    direction: _Text
    table: int
    reason: _Text
    cookie: int
    metadata: _Text
    length: int
    lost: int = 0
    frame: Annotated[str, msgspec.Meta(max_length=1 << 18)]


class PacketIns(msgspec.Struct, frozen=True):
    packet_ins: Annotated[list[PacketIn], msgspec.Meta(max_length=1000)]


@ROUTES.post("/v1/hosts/{host}/packet-ins")
async def post_packet_ins(request: web.Request) -> web.Response:
    """From an agent, to everybody who follows the stream now."""
    read_query(request)
    host = read_host(request)
    found = await read_json(request, PacketIns)
    packets: list[dict[str, Any]] = msgspec.to_builtins(found.packet_ins)
    request.app[SERVICES].packets.publish(host, packets)
    return reply({"taken": len(packets)})


@ROUTES.get("/v1/packet-ins/stream")
async def stream_packet_ins(request: web.Request) -> web.StreamResponse:
    """Packet-ins from now on, one JSON object a line; fair to every port of every host."""
    read_query(request, "host", "port")
    wanted = {name: read_text(request, name) for name in ("host", "port")}
    services = request.app[SERVICES]
    if services.metrics.open_streams >= services.conf.limits.streams:
        raise Problem(503, "Too many streams are open.").retry_after(10)
    response = web.StreamResponse(
        headers={"Content-Type": "application/jsonl", "X-Accel-Buffering": "no"}
    )
    with services.metrics.count_stream(), services.packets.follow() as queue:
        await response.prepare(request)
        try:
            await response.write(b"\n")
            while not services.packets.is_closed:
                try:
                    async with asyncio.timeout(KEEP_ALIVE):
                        await queue.wait()
                except TimeoutError:
                    await response.write(b"\n")
                    continue
                for packet, lost in queue.take(_BATCH):
                    if all(value in (None, packet[name]) for name, value in wanted.items()):
                        line = msgspec.json.encode(packet | {"lost": packet["lost"] + lost})
                        await response.write(line + b"\n")
        except ConnectionError:
            pass
    return response


@ROUTES.post("/v1/hosts/{host}/packet-outs")
async def post_packet_out(request: web.Request) -> web.Response:
    """`{"rule": ..., "packet": ...}`, or one of them, for the host to do in this order.

    Answers when it is on its way; what the host then cannot do is in its log.
    """
    read_query(request)
    host = read_host(request)
    order = await read_json(request, dict[str, Any])
    try:
        await asyncio.to_thread(read_answer, order)
    except HandlerError as error:
        where, detail = error.__dict__["where"], error.__dict__["detail"]
        raise Problem(422, f"{where}: {detail}", where=where) from None
    try:
        number = request.app[SERVICES].packets.order(host, order)
    except UnknownHost:
        detail = f"Host {host} has not asked this controller for orders since it started."
        raise Problem(404, detail) from None
    except OrdersFull:
        raise Problem(503, f"Too many orders wait for host {host}.").retry_after(1) from None
    return reply({"number": number}, status=202)


@ROUTES.get("/v1/hosts/{host}/orders")
async def get_orders(request: web.Request) -> web.Response:
    """For agents: orders behind `after`, which is done; waits up to `wait` seconds for one."""
    read_query(request, "after", "epoch", "wait")
    services = request.app[SERVICES]
    host = read_host(request)
    wait = min(read_number(request, "wait", 0) or 0, services.conf.limits.policy_wait)
    orders = await services.packets.orders(
        host,
        epoch=read_text(request, "epoch") or "",
        after=read_number(request, "after", 0) or 0,
        wait=wait,
    )
    return reply({"epoch": services.packets.epoch, "orders": orders})
