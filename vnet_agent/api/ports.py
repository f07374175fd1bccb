"""Ports, as the inventory knows them, with the datapath's counters."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from vnet_agent.api.exchange import read_query, reply
from vnet_agent.api.services import SERVICES
from vnet_agent.exceptions import VnetError
from vnet_agent.model.port import PortState

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/ports")
async def get_ports(request: web.Request) -> web.Response:
    read_query(request)
    states = request.app[SERVICES].inventory.states()
    ports = sorted(states, key=lambda state: (state.port.instance_name, state.port.mac))
    return reply({"ports": [show_port(state) for state in ports]})


@ROUTES.get("/v1/ports/{id}")
async def get_port(request: web.Request) -> web.Response:
    """By UUID, tap or MAC. `counters` is null, and `error` says why, if there are none."""
    read_query(request)
    services = request.app[SERVICES]
    state = services.inventory.get(request.match_info["id"])
    counters: Any = None
    error = None
    try:
        counters = await asyncio.to_thread(services.driver.counters, state.port.uuid)
    except VnetError as wrong:
        error = str(wrong)
    policy = services.policy.resolve(state.port)
    extra = {"counters": counters, "error": error, "policy": policy}
    return reply(show_port(state) | extra)


def show_port(state: PortState) -> dict[str, Any]:
    """The port's own fields and its state on this host, flat."""
    return {
        **msgspec.to_builtins(state.port),
        "alias": state.port.alias,
        "role": state.role,
        "generation": state.generation,
        "ifindex": state.ifindex,
        "tagged": state.tagged,
        "local_id": state.local_id,
    }
