"""Packet-ins to the controller, and its orders back: rules, packets, or both."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from vnet_agent.exceptions import ControllerError, VnetError
from vnet_agent.model.handler import Origin
from vnet_agent.packets.answer import read_answer
from vnet_agent.packets.feed import PacketFeed
from vnet_agent.packets.outs import PacketOuts

LOG = logging.getLogger(__name__)

#: Packet-ins of one request; whole frames of them stay below the controller's body_size.
BATCH = 64
#: Seconds that the controller may hold a question for orders.
ORDERS_WAIT = 30

#: Method, path below this host's, body; params, wait.
Call = Callable[..., Awaitable[Any]]


class _Orders(msgspec.Struct):
    """`epoch` is another one after each start of the controller, which counts anew then."""

    epoch: str
    orders: list[dict[str, Any]]


class PacketExchange:
    """Turns for the controller's client. `call` asks the controller about this host.

    Packet-ins are news: those that the controller does not take at once are lost. Orders are
    numbered and are asked for until they came; one is done once.
    """

    def __init__(self, call: Call, feed: PacketFeed, outs: PacketOuts) -> None:
        self._call = call
        self._queue = feed.add_follower()
        self._outs = outs
        self._epoch = ""
        self._done = 0

    async def send_packet_ins(self) -> None:
        """One batch, when there is something to send."""
        await self._queue.wait()
        packets = [taken.item | {"lost": taken.lost} for taken in self._queue.take(BATCH)]
        await self._call("POST", "/packet-ins", {"packet_ins": packets})

    async def fetch_orders(self) -> None:
        """One question; the controller answers when it has orders that were not done."""
        before = asyncio.get_running_loop().time()
        params = {"after": str(self._done), "epoch": self._epoch, "wait": str(ORDERS_WAIT)}
        found = await self._call("GET", "/orders", params=params, wait=ORDERS_WAIT)
        try:
            answer = msgspec.convert(found, _Orders)
            numbered = [(int(order.pop("number")), order) for order in answer.orders]
        except (msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
            raise ControllerError(url="/orders", detail=f"strange orders: {error!r}") from None
        if answer.epoch != self._epoch:
            self._epoch, self._done = answer.epoch, 0
        for number, order in numbered:
            if number > self._done:
                await self._do(order)
                self._done = number
        if not numbered and asyncio.get_running_loop().time() - before < 1.0:
            await asyncio.sleep(1.0)  # one that does not wait must not be asked without a pause

    async def _do(self, order: dict[str, Any]) -> None:
        try:
            await self._outs.apply(read_answer(order), origin=Origin.CONTROLLER)
        except VnetError as error:
            LOG.error("An order of the controller cannot be done: %s", error)
