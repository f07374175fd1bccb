"""The agent's process: makes the parts, starts them in order, and stops them in reverse."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from typing import Any, Protocol

from oslo_config import cfg

from vnet_agent import state_dir, systemd
from vnet_agent.api.metrics import MetricsServer
from vnet_agent.api.server import LocalApi
from vnet_agent.api.services import Services
from vnet_agent.bus import Bus
from vnet_agent.controller.client import ControllerClient
from vnet_agent.controller.packets import PacketExchange
from vnet_agent.datapath.loader import load_driver
from vnet_agent.events.delivery import Deliveries
from vnet_agent.events.log import EventLog
from vnet_agent.events.translator import Translator
from vnet_agent.exceptions import VnetError
from vnet_agent.handlers.tables import Tables
from vnet_agent.inventory.inventory import Inventory
from vnet_agent.inventory.taps import NetlinkLinks
from vnet_agent.migration.manager import Migrations
from vnet_agent.packets.feed import PacketFeed
from vnet_agent.packets.outs import PacketOuts
from vnet_agent.policy.store import PolicyStore
from vnet_agent.version import version
from vnet_agent.virt.connection import Connection
from vnet_agent.virt.lookup import Lookup
from vnet_agent.virt.resync import Resync

LOG = logging.getLogger(__name__)

#: Seconds for what is on the bus to be handled before the agent stops.
DRAIN = 2.0
#: Of the time that is spent on removing expired connections at most, however many there are.
SHARE = 0.05


class Part(Protocol):
    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Daemon:
    """One agent. `run` returns after SIGTERM or SIGINT; the datapath stays as it is."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf
        self.driver = load_driver(conf)
        self.bus = Bus()
        self.virt = Connection.from_conf(conf, self.bus)
        self.lookup = Lookup.from_conf(conf)
        self.policy = PolicyStore(conf)
        self.log = EventLog(conf)
        self.inventory = Inventory(
            conf,
            bus=self.bus,
            driver=self.driver,
            policy=self.policy,
            events=self.log,
            links=NetlinkLinks(),
            domains=self.virt,
        )
        self.tables = Tables(
            conf,
            driver=self.driver,
            inventory=self.inventory,
            groups_of=lambda port: (group.name for group in self.policy.groups_of(port)),
        )
        self.packets = PacketFeed(self.driver, self.inventory, depth=conf.packets.queue)
        self.packet_outs = PacketOuts(self.driver, self.tables, self.inventory)
        self.controller = self._make_controller()
        self.migrations = Migrations(
            conf,
            self.bus,
            self.inventory,
            self.driver,
            self.log,
            self.controller,
            domains=self.virt.domains,
            find_domain=self.lookup.domain,
        )
        self.translator = Translator(
            conf,
            self.bus,
            self.log,
            elsewhere=self.controller.is_elsewhere if self.controller else None,
        )
        self.deliveries = Deliveries(conf, self.log)
        self.resync = Resync(
            self.bus,
            self.virt.domains,
            self.translator.resync,
            interval=conf.libvirt.resync_interval,
        )
        self.api = LocalApi(
            Services(
                conf=conf,
                inventory=self.inventory,
                driver=self.driver,
                policy=self.policy,
                tables=self.tables,
                packets=self.packets,
                packet_outs=self.packet_outs,
                events=self.log,
                migrations=self.migrations,
                bus=self.bus,
                status=self.status,
            )
        )
        self.metrics = MetricsServer(self.api.exporter, conf.metrics.listen)

    async def run(self) -> None:
        """Raises VnetError when the agent cannot start."""
        stop = asyncio.Event()
        with state_dir.locked(self.conf.state_dir):
            async with contextlib.AsyncExitStack() as stack:
                self._follow_signals(stop, stack)
                await self._start(stack)
                systemd.ready()
                LOG.info("vnet-agent %s is ready on %s", version(), self.conf.host)
                await stop.wait()
                systemd.stopping()
                LOG.info("Stopping; the datapath goes on without the agent")

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        await asyncio.to_thread(self.driver.open)
        stack.callback(self.driver.close)
        await self.policy.load()
        await self._start_part(stack, self.log)
        stack.push_async_callback(self._close_bus)
        await self._start_part(stack, self.inventory)
        stack.push_async_callback(self.lookup.close)
        self.policy.on_change = self._apply_policy
        for early in (self.tables, self.packets):
            await self._start_part(stack, early)
        # Migrations and events of what is there already come before libvirt's news of it.
        parts: list[Part] = [self.migrations, self.translator, self.deliveries]
        parts += (self.api, self.metrics)
        if self.controller is not None:
            parts.insert(0, self.controller)
        for part in (*parts, self.resync, self.virt):
            await self._start_part(stack, part)
            if part is self.migrations and self.controller is not None:
                self.controller.migration_url = self.migrations.url
        for loop in (self._collect(), systemd.feed_watchdog()):
            stack.callback(asyncio.create_task(loop).cancel)

    @staticmethod
    async def _start_part(stack: contextlib.AsyncExitStack, part: Part) -> None:
        """Close the part in any case: it may fail half started."""
        stack.push_async_callback(part.close)
        await part.start()

    async def _close_bus(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.bus.drain(), DRAIN)
        await self.bus.close()

    async def _apply_policy(self) -> None:
        await self.inventory.apply_policy()
        self.tables.notice_groups()

    def _make_controller(self) -> ControllerClient | None:
        if not self.conf.controller.url:
            return None
        client = ControllerClient(
            self.conf,
            inventory=self.inventory,
            policy=self.policy,
            epoch=lambda: self.log.epoch,
        )
        exchange = PacketExchange(client.call_host, self.packets, self.packet_outs)
        client.add_turn("Packet-ins to the controller", exchange.send_packet_ins)
        client.add_turn("Orders from the controller", exchange.fetch_orders)
        return client

    # -- while it runs

    def _follow_signals(self, stop: asyncio.Event, stack: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = asyncio.create_task(self.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        for number, action in (
            (signal.SIGTERM, stop.set),
            (signal.SIGINT, stop.set),
            (signal.SIGHUP, reload),
        ):
            loop.add_signal_handler(number, action)
            stack.callback(loop.remove_signal_handler, number)

    async def reload(self) -> None:
        """Read the policy file and what may change of the configuration; errors are logged."""
        systemd.reloading()
        try:
            await asyncio.to_thread(self.conf.mutate_config_files)
            await asyncio.to_thread(self.driver.configure)
            read = await self.policy.load_file()
            LOG.info("Reloaded the configuration%s", " and the policy file" if read else "")
        except (cfg.Error, VnetError) as error:
            LOG.error("Reload: %s", error)
        except Exception:
            LOG.exception("Reload failed")
        systemd.ready()

    async def _collect(self) -> None:
        took = 0.0
        while True:
            await asyncio.sleep(max(self.conf.datapath.collect_interval, took / SHARE))
            began = time.monotonic()
            try:
                await asyncio.to_thread(self.driver.collect)
            except Exception:
                LOG.exception("Removing expired connections failed")
            took = time.monotonic() - began

    def status(self) -> dict[str, Any]:
        """What `vnetctl status` shows besides what the local API knows itself."""
        controller = self.controller.status() if self.controller else {}
        return {
            "pid": os.getpid(),
            "datapath": self.conf.datapath.driver,
            "libvirt": self.conf.libvirt.uri,
            "libvirt_connected": self.virt.connected,
            "migration_url": self.migrations.url,
            "controller": self.conf.controller.url,
            "controller_reachable": controller.get("reachable", False),
            "policy_revision": controller.get("policy_revision", 0),
            "packet_ins": self.packets.status(),
        }
