"""Brings taps and ports together: attaches the datapath to a port's tap, and writes its tag."""

import asyncio
import logging
from collections.abc import Collection

from pyroute2.netlink.exceptions import NetlinkError

from vnet_agent.datapath.base import Driver
from vnet_agent.exceptions import VnetError
from vnet_agent.inventory.announce import Announcer
from vnet_agent.inventory.entry import Entry
from vnet_agent.inventory.links import Link, LinkGone, Links

LOG = logging.getLogger(__name__)

#: Times that a tag is written again between two full comparisons, if another program removes it
#: again and again.
MAX_RETAGS = 10


class Tagger:
    def __init__(self, driver: Driver, links: Links, announcer: Announcer, *, queue: int) -> None:
        self._queue = queue
        self._driver = driver
        self._links = links
        self._announcer = announcer

    async def settle(self, entries: Collection[Entry]) -> None:
        """Make what the datapath guards and what taps are called agree with the entries.

        `entries` are all there are: two of them may name the same tap. Idempotent. Errors are
        logged; the next news or comparison tries again.
        """
        targets = self._find_taps(entries)
        for entry in entries:
            link = targets.get(entry.port.uuid)
            if entry.ifindex is not None and (link is None or link.ifindex != entry.ifindex):
                await self._let_go(entry, moved=link is not None)
        for entry in entries:
            link = targets.get(entry.port.uuid)
            if link is not None:
                await self._take(entry, link)

    async def remove(self, entry: Entry) -> None:
        """Clear the tag of a port that is about to be forgotten."""
        link = None if entry.ifindex is None else self._links.by_index(entry.ifindex)
        if link is not None and link.alias == entry.port.alias:
            await self._set_alias(entry, link, "")
        if entry.tagged:
            entry.tagged = False
            self._announcer.untagged(entry, "removed")

    def _find_taps(self, entries: Collection[Entry]) -> dict[str, Link]:
        """Each port's interface: the one of its name, else the one it had, though renamed."""
        found: dict[str, Link] = {}
        owners: dict[int, Entry] = {}
        for entry in sorted(entries, key=_claim):
            link = self._links.by_name(entry.port.tap) if _follows_name(entry) else None
            if link is None and entry.ifindex is not None:
                link = self._links.by_index(entry.ifindex)
            if link is None or link.ifindex in owners:
                continue
            owners[link.ifindex] = entry
            found[entry.port.uuid] = link
        return found

    async def _let_go(self, entry: Entry, *, moved: bool) -> None:
        ifindex, entry.ifindex = entry.ifindex, None
        old = None if ifindex is None else self._links.by_index(ifindex)
        LOG.info(
            "Port %s: tap %s (interface %s) is gone", entry.port.uuid, entry.port.tap, ifindex
        )
        if old is not None and old.alias == entry.port.alias:
            await self._set_alias(entry, old, "")
        if not moved:  # a new interface replaces the old one in the datapath when it is attached
            try:
                await asyncio.to_thread(self._driver.detach, entry.port.uuid)
            except VnetError as error:
                LOG.info("Port %s: %s", entry.port.uuid, error)
        if entry.tagged:
            entry.tagged = False
            self._announcer.untagged(entry, "tap-gone")

    async def _take(self, entry: Entry, link: Link) -> None:
        if entry.ifindex != link.ifindex:
            if entry.policy is None:
                return
            await self._links.lengthen(link.ifindex, self._queue)
            try:
                await asyncio.to_thread(self._driver.attach, entry.port.uuid, link.ifindex)
            except VnetError as error:
                LOG.warning("Port %s: %s", entry.port.uuid, error)
                return
            entry.ifindex = link.ifindex
        was_tagged = entry.tagged
        entry.tagged = link.alias == entry.port.alias or await self._tag(entry, link)
        if entry.tagged and not was_tagged:
            LOG.info(
                "Port %s of %s is on %s (interface %d)",
                entry.port.uuid, entry.port.instance, link.name, link.ifindex,
            )  # fmt: skip
            self._announcer.tagged(entry)

    async def _tag(self, entry: Entry, link: Link) -> bool:
        if entry.retags >= MAX_RETAGS:
            return False
        if entry.tagged:
            entry.retags += 1
            LOG.warning("The tag of %s was %r; writing it again", link.name, link.alias)
        return await self._set_alias(entry, link, entry.port.alias)

    async def _set_alias(self, entry: Entry, link: Link, alias: str) -> bool:
        try:
            await self._links.set_alias(link.ifindex, alias)
        except LinkGone:
            return False
        except (NetlinkError, OSError) as error:
            LOG.error("Port %s: tag of %s: %s", entry.port.uuid, link.name, error)
            return False
        return True


def _claim(entry: Entry) -> tuple[bool, bool]:
    """Sorts by right to a tap that two ports name: a running VM's port comes first."""
    return (entry.missing_since is not None, not entry.known)


def _follows_name(entry: Entry) -> bool:
    """Whether an interface of the tap's name must be the port's.

    While its VM is away, only a name that is made from the port's id: `vnet0` may be another
    VM's by now.
    """
    if entry.missing_since is None:
        return entry.known
    return entry.known and entry.port.tap == f"tap{entry.port.uuid[:11]}"
