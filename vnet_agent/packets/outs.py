"""Does what an answer says: the rule is in force before the packet goes."""

import asyncio
from typing import Protocol

from vnet_agent.datapath.base import Driver
from vnet_agent.handlers.state import StoredRule
from vnet_agent.handlers.tables import Tables
from vnet_agent.model.handler import Origin
from vnet_agent.model.port import PortState
from vnet_agent.packets.answer import Answer


class Inventory(Protocol):
    def get(self, port: str) -> PortState: ...


class PacketOuts:
    def __init__(self, driver: Driver, tables: Tables, inventory: Inventory) -> None:
        self._driver = driver
        self._tables = tables
        self._inventory = inventory

    async def apply(self, answer: Answer, *, origin: Origin) -> StoredRule | None:
        """The rule that is in force now, if the answer has one.

        Raises UnknownPort before anything is done; what Tables.add raises; and DatapathError when
        the packet could not be sent, while the rule stays.
        """
        packet = answer.packet
        port = None if packet is None else self._inventory.get(packet.port).port.uuid
        rule = None
        if answer.rule is not None:
            table, handler = answer.rule
            (rule,) = await self._tables.add(table, [handler], origin=origin)
        if packet is not None and port is not None:
            await asyncio.to_thread(
                self._send, port, packet.direction == "egress", packet.data(), packet.tables
            )
        return rule

    def _send(self, port: str, egress: bool, frame: bytes, through_tables: bool) -> None:
        self._driver.send_packet(port, egress=egress, frame=frame, through_tables=through_tables)
