"""Members of groups, for hosts that wait for them and for operators."""

import asyncio

from aiohttp import web

from vnet_controller.api.exchange import (
    read_host,
    read_number,
    read_path,
    read_query,
    read_text,
    reply,
)
from vnet_controller.services import SERVICES

ROUTES = web.RouteTableDef()

#: Seconds from a change to the answer that tells of it: a whole rack may be booting.
DEBOUNCE = 0.1


@ROUTES.get("/v1/hosts/{host}/members")
async def get_host_members(request: web.Request) -> web.Response:
    """Of the groups that rules on the host's ports ask for, on all hosts.

    With `after` the digest of the last answer, waits up to `wait` seconds for another one.
    `revision` 0 says that there never was a group.
    """
    read_query(request, "after", "wait")
    host = read_host(request)
    services = request.app[SERVICES]
    after = read_text(request, "after")
    wait = min(read_number(request, "wait", 0) or 0, services.conf.limits.policy_wait)
    clock = asyncio.get_running_loop().time
    end = clock() + wait
    while True:
        seen = services.membership.changed.value
        digest, members = await services.membership.of_host(host)
        left = end - clock()
        if digest != after or left <= 0 or services.membership.changed.closed:
            break
        await services.membership.changed.wait_beyond(seen, left)
        if services.membership.changed.value > seen:
            await asyncio.sleep(DEBOUNCE)
    return reply({"digest": digest, "revision": services.revision.value, "members": members})


@ROUTES.get("/v1/groups/{name}/members")
async def get_group_members(request: web.Request) -> web.Response:
    """Addresses of the ports to which the group applies, by network."""
    read_query(request)
    name = read_path(request, "name")
    return reply({"members": await request.app[SERVICES].membership.of_group(name)})
