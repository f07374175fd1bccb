"""What the inventory needs to know of network interfaces, whoever tells it."""

from collections.abc import Callable
from typing import Protocol

import msgspec


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One network interface of this namespace."""

    ifindex: int
    name: str
    alias: str = ""


class LinkGone(Exception):
    """The interface vanished before it could be changed."""


class Links(Protocol):
    """A table of the interfaces that follows the kernel's news."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def by_name(self, name: str) -> Link | None: ...

    def by_index(self, ifindex: int) -> Link | None: ...

    async def refresh(self) -> None:
        """Read all of them: of some changes to an interface that is down there are no news."""

    async def set_alias(self, ifindex: int, alias: str) -> None:
        """Set or, with an empty one, clear the alias; LinkGone when there is no such interface."""

    async def lengthen(self, ifindex: int, frames: int) -> None:
        """Let the queue of a tap hold so many frames, unless a VM that has sent something reads
        it: the kernel drops frames for some milliseconds while a queue changes its length."""

    def subscribe(self, callback: Callable[[], None]) -> None:
        """`callback` runs in the event loop after each change of the table."""
