"""A port's connections as a stream that another agent or a file can take."""

import asyncio
from collections.abc import Iterator

from aiohttp import web

from vnet_agent.api.exchange import read_query, reply
from vnet_agent.api.services import SERVICES, Services
from vnet_agent.exceptions import RecordError, VnetError
from vnet_agent.migration import wire
from vnet_agent.model.port import PortState

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/ports/{id}/connections/export")
async def export_connections(request: web.Request) -> web.StreamResponse:
    """All records; a stream that ends without its FINAL frame is not whole."""
    read_query(request)
    services = request.app[SERVICES]
    state = services.inventory.get(request.match_info["id"])
    chunks = await asyncio.to_thread(services.driver.export, state.port.uuid)
    encoder = wire.Encoder()
    response = web.StreamResponse()
    response.content_type = wire.CONTENT_TYPE
    await response.prepare(request)
    await response.write(encoder.hello(_hello(services, state)))
    try:
        while (chunk := await asyncio.to_thread(_next, chunks)) is not None:
            if chunk:
                await response.write(encoder.records(0, chunk))
        await response.write(encoder.round_end() + encoder.final())
    except VnetError as error:
        await response.write(encoder.abort(str(error)))
    await response.write_eof()
    return response


def _next(chunks: Iterator[bytes]) -> bytes | None:
    return next(chunks, None)


def _hello(services: Services, state: PortState) -> wire.Hello:
    port = wire.StreamPort(uuid=state.port.uuid, mac=state.port.mac, generation=state.generation)
    return wire.Hello(
        session="", instance=state.port.instance, host=services.conf.host, ports=(port,)
    )


@ROUTES.post("/v1/ports/{id}/connections/import")
async def import_connections(request: web.Request) -> web.Response:
    """Takes a stream of one port, verified to its end before the first record counts."""
    read_query(request)
    services = request.app[SERVICES]
    port = services.inventory.get(request.match_info["id"]).port.uuid
    moved, refused = 0, dict[str, int]()
    for records in await _receive(request):
        result = await asyncio.to_thread(services.driver.import_records, port, records.data)
        moved += result.moved
        for reason, count in result.refused.items():
            refused[reason] = refused.get(reason, 0) + count
    return reply({"moved": moved, "refused": refused})


async def _receive(request: web.Request) -> list[wire.Records]:
    decoder = wire.Decoder()
    received: list[wire.Records] = []
    size = 0
    async for piece in request.content.iter_any():
        for frame in decoder.feed(piece):
            if isinstance(frame, wire.Records):
                received.append(frame)
                size += len(frame.data)
            elif isinstance(frame, wire.Abort):
                raise RecordError(detail=f"the sender gave up: {frame.reason}")
            elif isinstance(frame, wire.Hello) and len(frame.ports) != 1:
                raise RecordError(detail=f"a stream of {len(frame.ports)} ports; one is wanted")
        if size > wire.MAX_DOCUMENT:
            raise RecordError(detail=f"more than {wire.MAX_DOCUMENT} bytes of records")
    decoder.finish()
    return received
