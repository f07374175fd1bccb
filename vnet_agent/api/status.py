"""How the agent is."""

from aiohttp import web

from vnet_agent.api.exchange import read_query, reply
from vnet_agent.api.services import SERVICES
from vnet_agent.version import version

ROUTES = web.RouteTableDef()


@ROUTES.get("/v1/status")
async def get_status(request: web.Request) -> web.Response:
    """Flat; `events_pending` counts events that not every sink has acknowledged."""
    read_query(request)
    services = request.app[SERVICES]
    policy = services.policy
    journal = services.events.status()
    return reply(
        {
            "host": services.conf.host,
            "version": version(),
            "ports": len(services.inventory.states()),
            "policy_origin": policy.origin,
            "policy_groups": len(policy.groups()),
            "policy_digest": policy.revision,
            "events_epoch": journal["epoch"],
            "events_last": journal["last"],
            "events_pending": await services.events.pending(),
            "events_error": journal["error"],
            "migrations": len(services.migrations.reports()),
            **services.status(),
        }
    )
