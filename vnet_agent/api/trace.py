"""What would become of a frame: run through the datapath's own code, with nothing changed."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from vnet_agent.api.exchange import decode, read_query, reply
from vnet_agent.api.problem import Problem
from vnet_agent.api.services import SERVICES, Services
from vnet_agent.exceptions import FilterError, UnknownPort
from vnet_agent.model.port import PortState
from vnet_agent.trace.explain import explain
from vnet_agent.trace.frame import Packet, build_frame

ROUTES = web.RouteTableDef()

#: Bytes of a frame: more than the largest that segmentation off-load makes of TCP over IPv4.
MAX_FRAME = 1 << 18


class _Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `frame` (hexadecimal) and `packet`."""

    port: Annotated[str, msgspec.Meta(max_length=1024)]
    direction: Literal["ingress", "egress"]
    frame: Annotated[str, msgspec.Meta(max_length=2 * MAX_FRAME)] | None = None
    packet: Packet | None = None


@ROUTES.post("/v1/trace")
async def post_trace(request: web.Request) -> web.Response:
    read_query(request)
    services = request.app[SERVICES]
    question = decode(await request.read(), _Question)
    state = services.inventory.get(question.port)
    egress = question.direction == "egress"
    frame = await asyncio.to_thread(_frame, services, state, question, egress)
    run = await asyncio.to_thread(services.driver.trace, state.port.uuid, frame, egress=egress)
    trace = explain(
        run,
        port=state.port.uuid,
        egress=egress,
        frame=frame,
        policy=services.policy.resolve(state.port),
        groups=services.policy.groups_of(state.port),
        rule_of=services.tables.rule_of,
    )
    return reply(trace)


def _frame(services: Services, state: PortState, question: _Question, egress: bool) -> bytes:
    if (question.frame is None) == (question.packet is None):
        raise Problem(HTTPStatus.BAD_REQUEST, "Give either a frame or a packet.")
    if question.frame is not None:
        return _read_hex(question.frame)
    assert question.packet is not None
    entries = services.driver.ports()
    entry = next((item for item in entries if item.port == state.port.uuid), None)
    if entry is None:
        raise UnknownPort(port=state.port.uuid)
    return build_frame(question.packet, egress=egress, port=entry, neighbours=entries)


def _read_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise FilterError(detail="The frame is not written in hexadecimal.") from None
