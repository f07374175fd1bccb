"""Packet-ins of the fleet for those who follow them, and orders for the hosts.

All of it is news and lives in this process: what a dead controller held is gone, and hosts see by
its epoch that it counts anew.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from vnet_agent.packets.fair import FairQueue

#: Frames of one port that wait for one follower.
DEPTH = 64
#: Orders that wait for one host.
MOST_ORDERS = 1000
#: Orders of one answer; whole frames of them stay below what an agent reads.
BATCH = 64

Queue = FairQueue[dict[str, Any]]


class OrdersFull(Exception):
    """The host does not take its orders fast enough."""


class UnknownHost(Exception):
    """The host never asked for orders."""


class _Host:
    """Orders that the host has not said it has done, each with its number."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, dict[str, Any]]] = deque()
        self.last = 0
        self.news = asyncio.Event()


class Packets:
    def __init__(self) -> None:
        self.epoch = uuid.uuid4().hex
        self._hosts: dict[str, _Host] = {}
        self._queues: list[Queue] = []
        self.is_closed = False

    def close(self) -> None:
        """Answer everybody who waits."""
        self.is_closed = True
        for host in self._hosts.values():
            host.news.set()
        for queue in self._queues:
            queue.close()

    # -- in

    def publish(self, host: str, packets: list[dict[str, Any]]) -> None:
        for packet in packets:
            shown = {"host": host, **packet}
            for queue in self._queues:
                queue.put((host, packet["port"]), shown)

    @contextlib.contextmanager
    def follow(self) -> Iterator[Queue]:
        queue: Queue = FairQueue(depth=DEPTH)
        self._queues.append(queue)
        try:
            yield queue
        finally:
            self._queues.remove(queue)

    # -- out

    def order(self, name: str, order: dict[str, Any]) -> int:
        """The order's number. Raises UnknownHost, OrdersFull."""
        host = self._hosts.get(name)
        if host is None:
            raise UnknownHost(name)
        if len(host.waiting) >= MOST_ORDERS:
            raise OrdersFull(name)
        host.last += 1
        host.waiting.append((host.last, order))
        host.news.set()
        return host.last

    async def orders(
        self, name: str, *, epoch: str, after: int, wait: float
    ) -> list[dict[str, Any]]:
        """The next ones behind `after`, which the host has done, within `wait` seconds."""
        host = self._hosts.setdefault(name, _Host())
        if epoch == self.epoch:
            while host.waiting and host.waiting[0][0] <= after:
                host.waiting.popleft()
        if not host.waiting and wait > 0 and not self.is_closed:
            host.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(host.news.wait(), wait)
        return [{"number": number, **order} for number, order in islice(host.waiting, BATCH)]
