"""Which agent has the VM: the controller knows, or one of the configured peers does."""

import asyncio
import logging

from vnet_agent import exceptions
from vnet_agent.migration.peer import ERRORS, Client, Peer, Refused
from vnet_agent.migration.runner import Context

LOG = logging.getLogger(__name__)


class Finder:
    def __init__(self, context: Context, client: Client) -> None:
        self._context = context
        self._client = client

    def peer(self, url: str, host: str) -> Peer:
        """VnetError for a URL that must not be used."""
        return self._client.peer(url, host)

    async def find(self, instance: str) -> tuple[str, str]:
        """Host (empty if only its URL is known) and URL of the agent that has the instance.

        Raises Refused with status 503 while nobody says that he has it.
        """
        found = await self._ask_controller(instance) or await self._ask_peers(instance)
        if found is None:
            raise Refused(503, "no agent says that it has the instance")
        return found

    async def _ask_controller(self, instance: str) -> tuple[str, str] | None:
        if self._context.controller is None:
            return None
        try:
            found = await self._context.controller.locate(instance)
        except (exceptions.VnetError, *ERRORS) as error:
            LOG.warning("The controller cannot say where %s runs: %s", instance, error)
            return None
        # It may have heard already that the VM comes to this host.
        return found if found is not None and found[0] != self._context.host else None

    async def _ask_peers(self, instance: str) -> tuple[str, str] | None:
        asked = [
            asyncio.create_task(self._ask_peer(url, instance))
            for url in self._context.conf.migration.peers
        ]
        try:
            for answer in asyncio.as_completed(asked):
                if (found := await answer) is not None:
                    return found
        finally:
            for task in asked:
                task.cancel()
        return None

    async def _ask_peer(self, url: str, instance: str) -> tuple[str, str] | None:
        try:
            located = await self.peer(url, "").locate(instance, self._context.host)
        except (exceptions.VnetError, Refused, *ERRORS) as error:
            LOG.info("Peer %s cannot say whether it has %s: %s", url, instance, error)
            return None
        if located is None or located.host == self._context.host:
            return None
        return located.host, url
