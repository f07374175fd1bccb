"""What the local API needs of the rest of the agent, as narrow as it is used."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aiohttp import web
from oslo_config import cfg

from vnet_agent.bus import Bus
from vnet_agent.datapath.base import Driver
from vnet_agent.events.log import EventLog
from vnet_agent.handlers.tables import Tables
from vnet_agent.migration.totals import Totals
from vnet_agent.model.migration import Report
from vnet_agent.model.port import PortState
from vnet_agent.model.virt import HookCall
from vnet_agent.packets.feed import PacketFeed
from vnet_agent.packets.outs import PacketOuts
from vnet_agent.policy.store import PolicyStore


class Inventory(Protocol):
    def states(self) -> Sequence[PortState]: ...

    def get(self, port: str) -> PortState:
        """By port UUID, tap or MAC; raises UnknownPort."""


class Migrations(Protocol):
    def reports(self) -> Sequence[Report]: ...
    @property
    def totals(self) -> Totals: ...

    def report(self, id: str) -> Report:  # noqa: A002
        """Raises MigrationError for an unknown id."""

    async def on_hook(self, call: HookCall) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Services:
    """`status` adds to what `vnetctl status` shows; its values must be JSON."""

    conf: cfg.ConfigOpts
    inventory: Inventory
    driver: Driver
    policy: PolicyStore
    tables: Tables
    packets: PacketFeed
    packet_outs: PacketOuts
    events: EventLog
    migrations: Migrations
    bus: Bus
    status: Callable[[], dict[str, Any]]


SERVICES = web.AppKey("services", Services)
