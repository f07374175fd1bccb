"""The agent's rooms behind the local API, played by fakes."""

import msgspec

from vnet_agent.datapath.base import Connection, Flow, FlowPage, ImportResult, PortCounters
from vnet_agent.exceptions import MigrationError, UnknownPort
from vnet_agent.handlers.tables import Tables
from vnet_agent.migration.totals import Totals
from vnet_agent.model.migration import Phase, Report
from vnet_agent.model.port import Port, Role
from vnet_agent.packets.feed import PacketFeed
from vnet_agent.packets.outs import PacketOuts

VM = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
PORT = Port(
    uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    instance=VM,
    instance_name="vm1",
    tap="tap1",
    mac="52:54:00:00:00:01",
    addresses=("10.0.0.5",),
    project="acme",
)
CONNECTION = Connection(
    protocol="tcp", local="10.0.0.5", local_port=80, remote="10.0.0.9", remote_port=4000,
    state="established", origin="remote", assured=True, remaining_ms=1000, mark=0,
    egress_packets=1, egress_bytes=2, ingress_packets=3, ingress_bytes=4,
)  # fmt: skip
FLOW = Flow(
    **msgspec.structs.asdict(CONNECTION), port=PORT.uuid, verdict="allow", generation=3,
    fresh=False, idle_ms=5,
)  # fmt: skip
COUNTERS = PortCounters(
    rx_frames=1, rx_bytes=2, tx_frames=3, tx_bytes=4, connections=5, drops={"policy": 6}
)
REPORT = Report(
    id="m1", instance=VM, instance_name="vm1", side="source", source="h1", destination="h2",
    generation=2, phase=Phase.DONE,
)  # fmt: skip


class State(msgspec.Struct):
    port: Port
    role: Role = Role.ACTIVE
    generation: int = 1
    ifindex: int | None = 7
    tagged: bool = True
    local_id: int | None = 3


class Inventory:
    def states(self):
        return [State(PORT)]

    def get(self, port):
        if port in (PORT.uuid, PORT.tap, PORT.mac):
            return State(PORT)
        raise UnknownPort(port=port)


class Driver:
    def __init__(self):
        self.imported = []
        self.error = None

    def _check(self):
        if self.error is not None:
            raise self.error

    def counters(self, port):
        self._check()
        return COUNTERS

    def flows(self, port, *, match, cursor=None, limit):
        """Five of them, two at most at a time; `error` hits the second page."""
        at = int(cursor or 0)
        if at or isinstance(self.error, RuntimeError):
            self._check()
        count = min(limit, 2, 5 - at)
        after = at + count
        return FlowPage(flows=[FLOW] * count, cursor=str(after) if after < 5 else None)

    def export(self, port, *, since=0):
        yield b"one"
        yield b""
        self._check()
        yield b"two"

    def import_records(self, port, records):
        self._check()
        self.imported.append((port, records))
        return ImportResult(moved=2, refused={"policy": 1})


class Migrations:
    def __init__(self):
        self.calls = []
        self.gate = None
        self.error = None

    totals = Totals()

    def reports(self):
        return [REPORT]

    def report(self, id):  # noqa: A002
        if id != "m1":
            raise MigrationError(session=id, detail="unknown on this host")
        return REPORT

    async def on_hook(self, call):
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.calls.append(call)


def handler_services(conf, driver, inventory):
    """Tables of handlers and what belongs to them, not started."""
    tables = Tables(conf, driver=driver, inventory=inventory)
    return {
        "tables": tables,
        "packets": PacketFeed(driver, inventory, depth=conf.packets.queue),
        "packet_outs": PacketOuts(driver, tables, inventory),
    }
