"""The interfaces that lead out of the host: attached when they are there."""

import asyncio
import logging
from collections.abc import Sequence

from vnet_agent.datapath.base import Driver
from vnet_agent.exceptions import VnetError
from vnet_agent.inventory.links import Links
from vnet_agent.inventory.uplink_options import Uplink, read_uplinks

LOG = logging.getLogger(__name__)


class Uplinks:
    """`configured` are the values of [datapath] uplinks; ConfigError when they make no sense."""

    def __init__(self, configured: Sequence[str], driver: Driver, links: Links) -> None:
        self._driver = driver
        self._links = links
        self._wanted = read_uplinks(configured)
        self._attached: dict[str, int] = {}

    async def settle(self) -> None:
        """Attach those that appeared, detach those that are gone; errors are logged."""
        for name, uplink in self._wanted.items():
            link = self._links.by_name(name)
            held = self._attached.get(name)
            if held is not None and (link is None or link.ifindex != held):
                await self._detach(name, held)
            if link is not None and name not in self._attached:
                await self._attach(name, link.ifindex, uplink)

    async def _attach(self, name: str, ifindex: int, uplink: Uplink) -> None:
        try:
            await asyncio.to_thread(
                self._driver.attach_uplink, ifindex, network=uplink.network, vlans=uplink.vlans
            )
        except VnetError as error:
            LOG.error("Uplink %s: %s", name, error)
            return
        self._attached[name] = ifindex
        LOG.info("Uplink %s (interface %d) leads out for %s", name, ifindex, _describe(uplink))

    async def _detach(self, name: str, ifindex: int) -> None:
        del self._attached[name]
        LOG.warning("Uplink %s (interface %d) is gone", name, ifindex)
        try:
            await asyncio.to_thread(self._driver.detach_uplink, ifindex)
        except VnetError as error:
            LOG.info("Uplink %s: %s", name, error)


def _describe(uplink: Uplink) -> str:
    parts = [] if uplink.network is None else [f"network {uplink.network}"]
    parts += [f"network {network} as VLAN {vlan}" for vlan, network in uplink.vlans.items()]
    return ", ".join(parts)
