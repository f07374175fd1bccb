"""Packet-ins from the datapath to whoever follows them."""

import asyncio
import base64
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from vnet_agent.capture.offload import finish_checksum
from vnet_agent.datapath.base import Driver
from vnet_agent.datapath.handling import PacketIn
from vnet_agent.events.journal import format_time
from vnet_agent.exceptions import TablesUnsupported, VnetError
from vnet_agent.model.port import PortState
from vnet_agent.packets.fair import FairQueue

LOG = logging.getLogger(__name__)

Queue = FairQueue[dict[str, Any]]


class Inventory(Protocol):
    def states(self) -> Sequence[PortState]: ...


class PacketFeed:
    """Reads while somebody follows, each of whom has a queue that is fair to the ports.

    What comes while nobody follows is read and forgotten.
    """

    def __init__(self, driver: Driver, inventory: Inventory, *, depth: int) -> None:
        self._driver = driver
        self._inventory = inventory
        self._depth = depth
        self._queues: list[Queue] = []
        self._fd: int | None = None
        self._reading: asyncio.Task[None] | None = None
        self._read = 0
        self._lost = 0

    async def start(self) -> None:
        try:
            self._fd = self._driver.packet_in_fileno()
        except TablesUnsupported:
            return
        self._wait()

    async def close(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._fd = None
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    def add_follower(self) -> Queue:
        """As `follow`, for ever."""
        queue: Queue = FairQueue(depth=self._depth)
        self._queues.append(queue)
        return queue

    @contextlib.contextmanager
    def follow(self) -> Iterator[Queue]:
        """A queue of what comes from now on, in the form that JSON has."""
        queue = self.add_follower()
        try:
            yield queue
        finally:
            self._queues.remove(queue)
            self._lost += queue.lost

    def status(self) -> dict[str, int]:
        """`lost` found no room in a follower's queue; each follower counts."""
        lost = self._lost + sum(queue.lost for queue in self._queues)
        return {"read": self._read, "lost": lost}

    def _wait(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().add_reader(self._fd, self._on_readable)

    def _on_readable(self) -> None:
        """A thread reads: the driver may be busy with a table of many rules."""
        loop = asyncio.get_running_loop()
        if self._fd is not None:
            loop.remove_reader(self._fd)
            self._reading = loop.create_task(self._read_all(), name="Packet-ins")

    async def _read_all(self) -> None:
        try:
            packets = await asyncio.to_thread(lambda: list(self._driver.read_packet_ins()))
        except VnetError as error:
            LOG.error("Packet-ins cannot be read any more: %s", error)
            self._fd = None
            return
        self._hand_out(packets)
        self._wait()

    def _hand_out(self, packets: list[PacketIn]) -> None:
        self._read += len(packets)
        if not self._queues or not packets:
            return
        instances = {state.port.uuid: state.port.instance for state in self._inventory.states()}
        for packet in packets:
            shown = show_packet_in(packet, instances.get(packet.port))
            for queue in self._queues:
                queue.put(packet.port, shown)


def show_packet_in(packet: PacketIn, instance: str | None) -> dict[str, Any]:
    """`frame` is base64 of what was captured of `length` bytes; a whole frame is one that can be
    sent again, with the checksum that its sender may have left to the device."""
    data = finish_checksum(packet.data) if len(packet.data) == packet.length else packet.data
    return {
        "time": format_time(packet.time_ns),
        "port": packet.port,
        "instance": instance,
        "direction": "egress" if packet.egress else "ingress",
        "table": packet.table,
        "reason": packet.reason,
        "cookie": packet.cookie,
        "metadata": hex(packet.metadata),
        "length": packet.length,
        "frame": base64.b64encode(data).decode(),
    }
