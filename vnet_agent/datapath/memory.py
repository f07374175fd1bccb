"""The memory driver: the C core without a kernel, for tests, simulation and traces."""

from collections.abc import Iterator, Sequence

from oslo_config import cfg

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.flowcache import FlowcacheDriver
from vnet_agent.datapath.handling import PacketIn, TableRule, TableState
from vnet_agent.datapath.held_tables import HeldTables
from vnet_agent.model.handler import Miss


class MemoryDriver(FlowcacheDriver):
    """Holds everything in this process: `close` keeps it for a later `open`, as pins would.

    Nothing runs on interfaces: a test feeds frames to `native.process`.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts | None = None,
        *,
        max_ports: int = 1024,
        answers: bool = False,
    ) -> None:
        super().__init__(conf.datapath.max_ports if conf is not None else max_ports)
        self._answers = conf.datapath.answer_neighbours if conf is not None else answers
        self._kept: c.Native | None = None
        #: Made when it is first asked for: it holds a descriptor.
        self._held_tables: HeldTables | None = None

    @property
    def held(self) -> HeldTables:
        if self._held_tables is None:
            self._held_tables = HeldTables()
        return self._held_tables

    @property
    def native(self) -> c.Native:
        """The datapath itself; raises DatapathError when it is not open."""
        handle = self._c
        if not isinstance(handle, c.Native):
            raise TypeError("not a native datapath")
        return handle

    def open(self) -> None:
        if self._kept is None:
            self._kept = c.Native(self._max_ports)
        self._adopt(self._kept)

    def close(self) -> None:
        self._handle = None

    def destroy(self) -> None:
        self._handle = None
        self._kept = None
        if self._held_tables is not None:
            self._held_tables.close()
            self._held_tables = None

    # -- tables of handlers

    def tables(self) -> list[TableState]:
        return self.held.tables()

    def replace_table(self, table: int, rules: Sequence[TableRule], miss: Miss) -> list[int]:
        return self.held.replace_table(table, rules, miss)

    def insert_rule(self, table: int, rule: TableRule) -> int:
        return self.held.insert_rule(table, rule)

    def delete_rule(self, table: int, rule_id: int) -> None:
        self.held.delete_rule(table, rule_id)

    def packet_in_fileno(self) -> int:
        return self.held.packet_in_fileno()

    def read_packet_ins(self) -> Iterator[PacketIn]:
        return self.held.read_packet_ins()

    def send_packet(self, port: str, *, egress: bool, frame: bytes, through_tables: bool) -> None:
        self.held.send_packet(
            self._key_of(port), egress=egress, frame=frame, through_tables=through_tables
        )

    def _key_of(self, port: str) -> str:
        """Raises UnknownPort."""
        self._id(port)
        return self._key(port)
