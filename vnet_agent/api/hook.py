"""News from libvirt's hook, which waits for the answer, and libvirt with it."""

import asyncio
import logging
import time
from typing import Annotated

import msgspec
from aiohttp import web

from vnet_agent.api.exchange import decode, read_query, reply
from vnet_agent.api.services import SERVICES, Services
from vnet_agent.model.virt import HookCall

LOG = logging.getLogger(__name__)

ROUTES = web.RouteTableDef()

#: Calls that went on after their answer.
LATE: web.AppKey[set[asyncio.Task[None]]] = web.AppKey("late", set)

#: Part of [hook] timeout_ms that the agent may take.
_SHARE = 0.7

_Word = Annotated[str, msgspec.Meta(max_length=1024)]


class _Call(msgspec.Struct, frozen=True):
    domain: _Word
    operation: _Word
    suboperation: _Word = ""
    xml: str = ""


@ROUTES.post("/v1/hook")
async def post_hook(request: web.Request) -> web.Response:
    """Always succeeds for a well-formed call: what fails here must not fail the VM's operation."""
    read_query(request)
    services = request.app[SERVICES]
    call = HookCall(
        **msgspec.structs.asdict(decode(await request.read(), _Call)), time_ns=time.time_ns()
    )
    task = asyncio.create_task(_tell_migrations(services, call))
    bound = services.conf.hook.timeout_ms / 1000 * _SHARE
    _, late = await asyncio.wait([task], timeout=bound)
    if late:
        LOG.warning("Hook %s of %s is answered before all is done", call.operation, call.domain)
        request.app[LATE].add(task)
        task.add_done_callback(request.app[LATE].discard)
    services.bus.publish(call)
    return reply({})


async def _tell_migrations(services: Services, call: HookCall) -> None:
    try:
        await services.migrations.on_hook(call)
    except Exception:
        LOG.exception("Hook %s of %s", call.operation, call.domain)
