"""Frames of ports with their tags, streamed as pcapng."""

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from http import HTTPStatus

from aiohttp import web

from vnet_agent.api.events import STREAMS
from vnet_agent.api.exchange import read_flag, read_number, read_query, reply
from vnet_agent.api.problem import Problem
from vnet_agent.api.services import SERVICES, Services
from vnet_agent.capture.pcapng import TaggedPort, Writer
from vnet_agent.capture.stream import CaptureStream
from vnet_agent.datapath.captured import MAX_SNAP, Capture, CaptureRequest
from vnet_agent.exceptions import CaptureBusy, VnetError
from vnet_agent.model.port import PortState

LOG = logging.getLogger(__name__)

ROUTES = web.RouteTableDef()

CONTENT_TYPE = "application/x-pcapng"
#: The header that names the capture, so that it can be ended.
NAME = "Vnet-Capture"
_MOST_FRAMES, _MOST_SECONDS = 999_999_999, 86400
_QUERY = (
    *("port", "direction", "drops", "protocol", "remote"),
    *("snap", "rate", "count", "seconds"),
)


@dataclasses.dataclass
class Running:
    """The capture that runs on this host, if any: `name` is None when there is none."""

    name: str | None = None
    stream: CaptureStream | None = None


RUNNING: web.AppKey[Running] = web.AppKey("running", Running)


@ROUTES.get("/v1/capture")
async def get_capture(request: web.Request) -> web.StreamResponse:
    """Of all ports, or of each `port`; `snap` 0 is whole frames. One capture at a time.

    Until `count` frames, for `seconds`, or until it is deleted, or the reader goes away. A stream
    that ends without statistics of its interfaces was broken off.
    """
    read_query(request, *_QUERY)
    services = request.app[SERVICES]
    wanted = _read_request(request, services)
    count = _read_limit(request, "count", _MOST_FRAMES)
    seconds = _read_limit(request, "seconds", _MOST_SECONDS)
    states = [services.inventory.get(port) for port in request.query.getall("port", [])]
    running = request.app[RUNNING]
    if running.name is not None:
        raise CaptureBusy()
    running.name = str(uuid.uuid4())
    try:
        ports = await _choose_ports(services, states)
        capture = await _begin(services, ports, wanted)
        try:
            running.stream = CaptureStream(
                capture,
                Writer(ports, host=services.conf.host, snap=wanted.snap),
                count=count,
                seconds=seconds,
            )
            return await _send(request, running.name, running.stream)
        finally:
            delivered = running.stream.delivered.total() if running.stream else 0
            # Not given up half done when the agent stops meanwhile.
            await asyncio.shield(asyncio.to_thread(capture.close))
            LOG.info("Capture %s ended after %d frames", running.name, delivered)
    finally:
        running.name = running.stream = None


def _read_request(request: web.Request, services: Services) -> CaptureRequest:
    most = services.conf.capture.rate
    return CaptureRequest(
        direction=request.query.get("direction"),
        drops_only=read_flag(request, "drops"),
        protocol=request.query.get("protocol"),
        remote=request.query.get("remote"),
        snap=read_number(request, "snap", 256, low=0, high=MAX_SNAP) or MAX_SNAP,
        rate=read_number(request, "rate", most, low=1, high=most),
    )


def _read_limit(request: web.Request, name: str, high: int) -> int | None:
    return read_number(request, name, 0, low=1, high=high) if name in request.query else None


async def _choose_ports(services: Services, states: list[PortState]) -> list[TaggedPort]:
    """Those asked for, each once; without any, all that the datapath has."""
    if not states:
        held = {entry.port for entry in await asyncio.to_thread(services.driver.ports)}
        states = [state for state in services.inventory.states() if state.port.uuid in held]
        states.sort(key=lambda state: state.port.tap)
    if not states:
        raise Problem(HTTPStatus.NOT_FOUND, "There is no port on this host to capture from.")
    ports = {state.port.uuid: state.port for state in states}
    return [
        TaggedPort(uuid=port.uuid, instance=port.instance, tap=port.tap, mac=port.mac)
        for port in ports.values()
    ]


async def _begin(services: Services, ports: list[TaggedPort], wanted: CaptureRequest) -> Capture:
    uuids = [port.uuid for port in ports]
    size = services.conf.capture.ring_size
    begin = asyncio.ensure_future(
        asyncio.to_thread(services.driver.capture, uuids, wanted, size=size)
    )
    try:
        return await asyncio.shield(begin)
    except asyncio.CancelledError:
        capture = await begin
        await asyncio.to_thread(capture.close)
        raise


async def _send(request: web.Request, name: str, stream: CaptureStream) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Cache-Control": "no-store", NAME: name})
    response.content_type = CONTENT_TYPE
    streams = request.app[STREAMS]
    task = asyncio.current_task()
    assert task is not None
    streams.add(task)
    try:
        await response.prepare(request)
        LOG.info("Capture %s begins: %s", name, request.query_string or "all ports")
        async with contextlib.aclosing(stream.blocks()) as blocks:
            async for block in blocks:
                if request.transport is None or request.transport.is_closing():
                    break  # the reader has gone while nothing came
                if block:
                    await response.write(block)
    except ConnectionResetError:
        pass
    except VnetError as error:
        LOG.error("Capture %s broke off: %s", name, error)
    finally:
        streams.discard(task)
    return response


@ROUTES.delete("/v1/capture/{name}")
async def delete_capture(request: web.Request) -> web.Response:
    """End the capture; its stream comes to its proper end then."""
    read_query(request)
    running = request.app[RUNNING]
    if running.name != request.match_info["name"] or running.stream is None:
        raise Problem(HTTPStatus.NOT_FOUND, "There is no such capture; it may have ended already.")
    running.stream.stop()
    return reply({"capture": running.name})
