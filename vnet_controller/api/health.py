"""For load balancers and Prometheus."""

from aiohttp import web
from sqlalchemy.engine import Connection

from vnet_controller.api.exchange import reply
from vnet_controller.metrics import CONTENT_TYPE
from vnet_controller.services import SERVICES, now_us
from vnet_controller.store import groups, hosts, instances, journal

ROUTES = web.RouteTableDef()


@ROUTES.get("/healthz")
async def get_health(_request: web.Request) -> web.Response:
    """The process answers; nothing else is asked."""
    return reply({"status": "ok"})


@ROUTES.get("/readyz")
async def get_readiness(request: web.Request) -> web.Response:
    """The database answers a write as well; a problem with 503 else."""
    await request.app[SERVICES].writer.run(journal.read_head)
    return reply({"status": "ready"})


@ROUTES.get("/metrics")
async def get_metrics(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    metrics = services.metrics

    def read(connection: Connection) -> tuple[int, int, list[int], dict[str, int]]:
        return (
            journal.read_head(connection),
            groups.read_revision(connection),
            [row.seen_us for row in hosts.list_hosts(connection)],
            instances.count_states(connection),
        )

    head, revision, seen, states = await services.database.read(read)
    oldest = now_us() - services.conf.host_timeout * 1e6
    up = sum(seen_us >= oldest for seen_us in seen)
    metrics.position.set(head)
    metrics.revision.set(revision)
    metrics.hosts.labels(state="up").set(up)
    metrics.hosts.labels(state="down").set(len(seen) - up)
    metrics.instances.clear()
    for state, count in states.items():
        metrics.instances.labels(state=state).set(count)
    return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})
