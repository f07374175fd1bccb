"""The kernel's interfaces over rtnetlink: a table that follows its news, and their aliases."""

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_NEWLINK, RTMGRP_LINK

from vnet_agent.inventory.links import Link, LinkGone

LOG = logging.getLogger(__name__)

#: Bytes of news that may wait; beyond, the kernel drops them and the table is read anew.
NEWS_BUFFER = 4 * 1024 * 1024
#: Seconds before the table is read anew when reading it failed.
RETRY = 1.0


class NetlinkLinks:
    """The Links of the network namespace that `start` is called in."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._news: Any = None
        self._requests: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._requests = AsyncIPRoute()
        self._news = AsyncIPRoute(rcvbuf=NEWS_BUFFER)
        await self._news.bind(groups=RTMGRP_LINK)
        await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for socket in (self._news, self._requests):
            if socket is not None:
                socket.close()

    def by_name(self, name: str) -> Link | None:
        return next((link for link in self._links.values() if link.name == name), None)

    def by_index(self, ifindex: int) -> Link | None:
        return self._links.get(ifindex)

    async def set_alias(self, ifindex: int, alias: str) -> None:
        try:
            await self._requests.link("set", index=ifindex, ifalias=alias)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                raise LinkGone(f"no interface {ifindex}") from None
            raise
        link = self._links.get(ifindex)
        if link is not None:
            self._links[ifindex] = Link(ifindex=ifindex, name=link.name, alias=alias)

    async def lengthen(self, ifindex: int, frames: int) -> None:
        try:
            (message,) = await self._requests.link("get", index=ifindex)
            in_use = message.get_attr("IFLA_CARRIER") and _has_sent(message)
            if not in_use and (message.get_attr("IFLA_TXQLEN") or 0) < frames:
                await self._requests.link("set", index=ifindex, txqlen=frames)
        except (NetlinkError, ValueError) as error:
            LOG.info("The queue of interface %d keeps its length: %s", ifindex, error)

    def subscribe(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def _follow(self) -> None:
        while True:
            try:
                async for message in self._news.get():
                    self._apply(message)
            except (NetlinkError, OSError) as error:
                LOG.warning("News of interfaces were lost (%s); reading all of them", error)
                await self._recover()
            except Exception:
                LOG.exception("News of interfaces cannot be understood; reading all of them")
                await asyncio.sleep(RETRY)
                await self._recover()
            self._tell()

    async def _recover(self) -> None:
        while True:
            try:
                await self.refresh()
                return
            except (NetlinkError, OSError) as error:
                LOG.error("Reading the interfaces failed: %s", error)
                await asyncio.sleep(RETRY)

    async def refresh(self) -> None:
        # News that still wait in the socket may bring an older state back for a moment: the last
        # of them is right again.
        links = {}
        async for message in await self._requests.link("dump"):
            link = _decode(message)
            if link is not None:
                links[link.ifindex] = link
        self._links = links

    def _apply(self, message: Any) -> None:
        # A bridge tells of its ports in messages of its own family, where "deleted" means "no
        # longer in the bridge".
        if message.get("family"):
            return
        kind = message["header"]["type"]
        if kind == RTM_DELLINK:
            self._links.pop(message["index"], None)
        elif kind == RTM_NEWLINK:
            link = _decode(message)
            if link is not None:
                self._links[link.ifindex] = link

    def _tell(self) -> None:
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                LOG.exception("Telling of a changed interface failed")


def _has_sent(message: Any) -> bool:
    """Whether anything came from the VM: what its kernel does first when it has booted."""
    counts = message.get_attr("IFLA_STATS64")
    return bool(counts and counts["rx_packets"])


def _decode(message: Any) -> Link | None:
    """The interface a message tells of; None for messages about one aspect only."""
    name = message.get_attr("IFLA_IFNAME")
    if not name:
        return None
    alias = message.get_attr("IFLA_IFALIAS") or ""
    return Link(ifindex=message["index"], name=name, alias=alias)
