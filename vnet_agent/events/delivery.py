"""From the journal to each sink: in order, at least once, at the sink's own pace."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg
from stevedore import ExtensionManager

from vnet_agent.events.log import EventLog
from vnet_agent.events.sink import EventSink
from vnet_agent.exceptions import EventRefused, JournalError, VnetError
from vnet_agent.model.event import Event
from vnet_agent.retry import Retry

LOG = logging.getLogger(__name__)

NAMESPACE = "vnet_agent.event_sink"


def load_sinks(conf: cfg.ConfigOpts) -> dict[str, EventSink]:
    """The enabled sinks of [events] sinks; VnetError for one that is not there or no sink."""
    wanted = list(dict.fromkeys(conf.events.sinks))
    if not wanted:
        return {}
    found = {entry.name: entry for entry in ExtensionManager(NAMESPACE).list_entry_points()}
    sinks: dict[str, EventSink] = {}
    for name in wanted:
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise VnetError(detail=f"[events] sinks: there is no {name!r}; known are {known}")
        kind = found[name].load()
        if not (isinstance(kind, type) and issubclass(kind, EventSink)):
            raise VnetError(detail=f"[events] sinks: {name!r} ({kind!r}) is no EventSink")
        sink = kind(conf)
        if sink.is_enabled:
            sinks[name] = sink
    return sinks


class Deliveries:
    """One task per sink. Sinks that are away disturb neither the agent nor one another."""

    def __init__(
        self, conf: cfg.ConfigOpts, log: EventLog, sinks: dict[str, EventSink] | None = None
    ) -> None:
        self._sinks = load_sinks(conf) if sinks is None else sinks
        self._log = log
        log.set_sinks(self._sinks)
        self._deliveries = {
            name: Delivery(conf, log, name, sink) for name, sink in self._sinks.items()
        }
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to deliver; the log must be started."""
        for name, sink in self._sinks.items():
            await sink.start()
            delivery = self._deliveries[name]
            self._tasks.append(asyncio.create_task(delivery.run(), name=f"sink-{name}"))

    async def close(self) -> None:
        """Stop; what is not acknowledged is delivered after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sink in self._sinks.values():
            await sink.close()

    def status(self) -> dict[str, Any]:
        return {name: delivery.status() for name, delivery in self._deliveries.items()}


class Delivery:
    """One sink's: reads what it does not have, hands it over, notes what it acknowledged."""

    def __init__(self, conf: cfg.ConfigOpts, log: EventLog, name: str, sink: EventSink) -> None:
        self._log = log
        self._name = name
        self._sink = sink
        self._size: int = conf.controller.batch_size
        self._news = log.signal()
        self._retry = Retry(
            LOG,
            f"Delivery of events to {name}",
            low=conf.controller.retry_min,
            high=conf.controller.retry_max,
        )
        self.acknowledged: str | None = None
        self.refused = 0

    def status(self) -> dict[str, Any]:
        return {
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "failures": self._retry.failures,
        }

    async def run(self) -> None:
        while True:
            self._news.clear()
            problem: Exception | None = None
            try:
                while batch := await self._log.unacknowledged(self._name, self._size):
                    await self._deliver(batch)
            except Exception as error:
                problem = error
            if problem is None:
                await self._news.wait()
                continue
            if not isinstance(problem, JournalError):
                LOG.error("Delivery of events to %s failed", self._name, exc_info=problem)
            await self._retry.failed(str(problem) or repr(problem))

    async def _deliver(self, batch: Sequence[Event]) -> None:
        """Deliver the batch or a beginning of it; after a failure pause, for the next attempt."""
        durable: set[str] = set()
        problem: Exception | None = None
        try:
            durable = await self._sink.deliver(batch)
        except Exception as error:
            problem = error
        if isinstance(problem, EventRefused):
            await self._refused(batch, problem)
            return
        taken = 0
        while taken < len(batch) and batch[taken].id in durable:
            taken += 1
        if taken:
            await self._acknowledge(batch[taken - 1])
        if taken == len(batch):
            self._retry.succeeded()
        elif problem is not None:
            await self._retry.failed(str(problem) or repr(problem))
        else:
            await self._retry.failed(f"{len(batch) - taken} of {len(batch)} events not taken")

    async def _refused(self, batch: Sequence[Event], error: EventRefused) -> None:
        """Find the event that is refused; it stays in the journal, and the others pass it."""
        if len(batch) > 1:
            await self._deliver(batch[: len(batch) // 2])
            return
        self.refused += 1
        LOG.error("Event %s is passed over, %s will not take it: %s", batch[0], self._name, error)
        await self._acknowledge(batch[0])

    async def _acknowledge(self, event: Event) -> None:
        await self._log.acknowledge(self._name, event)
        self.acknowledged = event.id
