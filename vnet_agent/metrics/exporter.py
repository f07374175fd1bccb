"""One scrape: what is quick is asked in the event loop, the rest is done in a thread."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from vnet_agent.api.services import Services
from vnet_agent.datapath.base import Driver, PortCounters, PortEntry
from vnet_agent.exceptions import VnetError
from vnet_agent.metrics.families import Figures, make_families
from vnet_agent.version import version

LOG = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Once(Collector):
    """Families that are made when they are asked for."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        return make_families(self._figures)


class Exporter:
    """Renders the agent's metrics; those who ask while one is rendered share it."""

    def __init__(self, services: Services, is_capturing: Callable[[], bool]) -> None:
        self._services = services
        self._is_capturing = is_capturing
        self._task: asyncio.Task[bytes] | None = None

    async def render(self) -> bytes:
        """The text format; a part that fails is left out, and `vnet_agent_part_failed` says so."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._render())
        return await asyncio.shield(self._task)

    async def _render(self) -> bytes:
        services = self._services
        journal = services.events.status()
        pending = None
        try:
            pending = await services.events.pending()
        except VnetError as error:
            LOG.debug("Metrics without the journal: %s", error)
        return await asyncio.to_thread(
            _render,
            services.driver,
            host=services.conf.host,
            version=version(),
            status=services.status(),
            states=list(services.inventory.states()),
            epoch=journal["epoch"],
            last=journal["last"],
            pending=pending,
            reports=list(services.migrations.reports()),
            totals=services.migrations.totals,
            is_capturing=self._is_capturing(),
        )


def _render(driver: Driver, **known: Any) -> bytes:
    """In a thread: with a thousand ports it takes a tenth of a second."""
    entries: Sequence[PortEntry] = ()
    counters: Mapping[str, PortCounters] = {}
    is_failed = False
    try:
        entries, counters = driver.ports(), driver.all_counters()
    except VnetError as error:
        LOG.debug("Metrics without the datapath: %s", error)
        is_failed = True
    failed = {"datapath": is_failed, "journal": known["pending"] is None}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(Figures(**known, entries=entries, counters=counters, failed=failed)))
    return generate_latest(registry)
