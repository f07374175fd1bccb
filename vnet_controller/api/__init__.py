"""HTTP: one module a resource, each with its table of routes."""

from aiohttp import web

from vnet_controller.api import (
    events,
    groups,
    health,
    hosts,
    instances,
    members,
    migrations,
    packets,
    page,
    ports,
)
from vnet_controller.api.guard import guard_request, harden_response
from vnet_controller.services import SERVICES, Services


def make_application(services: Services) -> web.Application:
    application = web.Application(
        middlewares=[guard_request], client_max_size=services.conf.limits.body_size
    )
    application[SERVICES] = services
    application.on_response_prepare.append(harden_response)
    rooms = (events, hosts, instances, ports, migrations, groups, members, packets, health)
    for room in rooms:
        application.add_routes(room.ROUTES)
    page.add_routes(application)
    return application
