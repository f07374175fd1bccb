"""The local API in a thread over a real datapath without a kernel, and vnetctl to ask it."""

import asyncio
import json
import threading

import datapath_bench as bench
from api_fakes import Migrations, State, handler_services
from packet_fakes import FedDriver

from vnet_agent import config
from vnet_agent.api.server import LocalApi
from vnet_agent.api.services import Services
from vnet_agent.bus import Bus
from vnet_agent.cli import shell
from vnet_agent.events.log import EventLog
from vnet_agent.exceptions import UnknownPort
from vnet_agent.model.port import Port
from vnet_agent.policy.store import PolicyStore


def port_of(entry):
    return Port(
        uuid=entry.port,
        instance=entry.instance,
        instance_name="vm",
        tap=f"tap{entry.local_id}",
        mac=entry.mac,
        addresses=entry.addresses,
    )


class Inventory:
    """Of the ports that the datapath holds."""

    def __init__(self, driver):
        self.driver = driver
        self.callbacks = []

    def states(self):
        return [State(port_of(entry), local_id=entry.local_id) for entry in self.driver.ports()]

    def subscribe(self, callback):
        self.callbacks.append(callback)

    def get(self, port):
        for state in self.states():
            if port in (state.port.uuid, state.port.tap, state.port.mac):
                return state
        raise UnknownPort(port=port)


class Agent:
    """`bench` has the datapath; `policy` is the store, and what it holds is in force."""

    def __init__(self, directory, capsys, made=None):
        self.capsys = capsys
        self.conf = config.load([], state_dir=str(directory / "state"))
        self.conf.set_override("host", "h1")
        self.socket = str(directory / "agent.sock")
        self.conf.set_override("api_socket", self.socket)
        self.bench = made or bench.Bench(driver=FedDriver(max_ports=8))
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.run(self._start())

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def _start(self):
        self.events, self.policy = EventLog(self.conf), PolicyStore(self.conf)
        self.inventory = Inventory(self.bench.driver)
        self.policy.on_change = self.apply
        await self.events.start()
        handlers = handler_services(self.conf, self.bench.driver, self.inventory)
        self.tables, self.packets = handlers["tables"], handlers["packets"]
        await self.tables.start()
        await self.packets.start()
        self.api = LocalApi(
            Services(
                conf=self.conf,
                inventory=self.inventory,
                driver=self.bench.driver,
                policy=self.policy,
                **handlers,
                events=self.events,
                migrations=Migrations(),
                bus=Bus(),
                status=dict,
            )
        )
        await self.api.start()

    async def apply(self):
        for state in self.inventory.states():
            policy = self.policy.resolve(state.port)
            await asyncio.to_thread(self.bench.driver.set_policy, state.port.uuid, policy)

    def put(self, *groups, origin="api"):
        self.run(self.policy.replace(groups, origin=origin))

    def stop(self):
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _stop(self):
        await self.api.close()
        await self.packets.close()
        await self.tables.close()
        await self.events.close()

    def ctl(self, *words):
        """Exit status, stdout, stderr."""
        status = shell.main(["--socket", self.socket, *words])
        return (status, *self.capsys.readouterr())

    def json(self, *words):
        status, out, err = self.ctl(*words, "-f", "json")
        assert (status, err) == (0, "")
        return json.loads(out)

    def refused(self, *words):
        """The one line on stderr."""
        status, out, err = self.ctl(*words)
        assert (status, out, err.count("\n")) == (1, "", 1), (status, out, err)
        assert "Traceback" not in err
        return err
