"""GET /metrics for Prometheus: on the local API's socket and, where it is configured, on TCP."""

import logging

from aiohttp import web

from vnet_agent.exceptions import MetricsError
from vnet_agent.metrics.exporter import CONTENT_TYPE, Exporter

LOG = logging.getLogger(__name__)

ROUTES = web.RouteTableDef()

EXPORTER = web.AppKey("exporter", Exporter)


@ROUTES.get("/metrics")
async def get_metrics(request: web.Request) -> web.Response:
    body = await request.app[EXPORTER].render()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


class MetricsServer:
    """Serves /metrics, and nothing else, on [metrics] listen from `start` to `close`."""

    def __init__(self, exporter: Exporter, listen: str) -> None:
        self._listen = listen
        self._exporter = exporter
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Raises MetricsError when the address cannot be used; does nothing without one."""
        if not self._listen:
            return
        address, _, port = self._listen.rpartition(":")
        application = web.Application()
        application[EXPORTER] = self._exporter
        application.add_routes(ROUTES)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, address.strip("[]"), int(port)).start()
        except (OSError, OverflowError) as error:
            detail = getattr(error, "strerror", None) or str(error)
            raise MetricsError(listen=self._listen, detail=detail) from error
        LOG.info("Metrics on %s", self._listen)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
