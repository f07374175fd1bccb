"""The contract of an event sink (entry points `vnet_agent.event_sink`)."""

import abc
from collections.abc import Sequence

from oslo_config import cfg

from vnet_agent.model.event import Event


class EventSink(abc.ABC):
    """Somewhere that events go. Each sink gets every event, in order, at least once.

    An event whose delivery was not acknowledged comes again, with the same id.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    @property
    def is_enabled(self) -> bool:
        """Whether the configuration gives it anything to do; if not, nothing waits for it."""
        return True

    async def start(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called once, in the event loop, before the first delivery."""

    async def close(self) -> None:  # noqa: B027
        """Called once, after the last delivery."""

    @abc.abstractmethod
    async def deliver(self, events: Sequence[Event]) -> set[str]:
        """Hand the events over and return the ids of those that are durable there.

        Raises EventRefused when they will never be taken (a batch is then tried in smaller
        parts), and any other exception when it should be tried again later.
        """
