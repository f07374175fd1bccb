"""Tables of handlers over the C core: rules in its classifier, a flag at each port, packet-ins."""

import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.flags import set_flag
from vnet_agent.datapath.handling import MISSES, PacketIn, TableRule, TableState
from vnet_agent.model.handler import Miss

_SECOND = 1_000_000_000
#: A second's packet-ins of a port may come within this part of it, in ns.
_BURST_NS = _SECOND // 4
_REASONS = {1: "rule", 2: "miss"}

#: time_ns metadata local_id length captured cookie table why direction vlan tagged
_RECORD = struct.Struct("=QQIIIIBBBxHH")
_TAG = struct.Struct("!HH")
_VLAN = 0x8100

if c.LAYOUT["packet_in"][""][1] != _RECORD.size or c.LAYOUT["packet_in"]["tagged"] != (38, 2):
    raise ImportError("handler_tables.py and csrc/core/handler_abi.h disagree; rebuild")


class HandlerTables:
    """What a Driver's methods of the same names do; raises what the extension raises.

    The driver calls with its lock held. `rate` is how many frames a second of one port go to the
    controller at most.
    """

    def __init__(self, handle: c.Datapath, *, rate: int) -> None:
        self._c = handle
        self._rate = rate
        self._is_open = False
        #: What a port's flags have besides; not known at first.
        self.flag = -1
        if handle.handlers_left():
            self.open()
        else:
            self._show()

    def open(self) -> None:
        """Make the tables, or adopt those that are there; the ports have the flag afterwards."""
        if not self._is_open:
            self._c.handlers_open(_SECOND // self._rate, _BURST_NS)
            self._is_open = True
            self._show()

    def tables(self) -> list[TableState]:
        found = []
        for table in range(c.HANDLER_TABLES):
            items = self._c.handlers_items(table)
            if items is not None:
                miss, rules = items
                found.append(
                    TableState(
                        table=table,
                        miss=MISSES[miss],
                        rules={rule[0]: TableRule(*rule[1:]) for rule in rules},
                    )
                )
        return found

    def replace(self, table: int, rules: Sequence[TableRule], miss: Miss) -> list[int]:
        _check_sizes(rules)
        self.open()
        ids = self._c.handlers_replace(
            table,
            MISSES.index(miss),
            b"".join(rule.match for rule in rules),
            b"".join(rule.actions for rule in rules),
            b"".join(rule.cookie.to_bytes(4, sys.byteorder) for rule in rules),
        )
        self._show()
        return ids

    def insert(self, table: int, rule: TableRule) -> int:
        _check_sizes([rule])
        self.open()
        entry = self._c.handlers_insert(table, rule.match, rule.actions, rule.cookie)
        self._show()
        return entry

    def delete(self, table: int, entry: int) -> None:
        self.open()
        self._c.handlers_delete(table, entry)
        self._show()

    def _show(self) -> None:
        """While there is any table, every port's frames go through them, and while any rule
        translates, behind them through what it began."""
        flag = c.PORT_TABLES * self._c.handlers_used() | c.PORT_NAT * self._c.handlers_translate()
        if flag == self.flag:
            return
        self.flag = flag
        for data in self._c.ports():
            local_id = layout.number("port", "local_id", data)
            for each in (c.PORT_TABLES, c.PORT_NAT):
                set_flag(self._c, local_id, each, wanted=bool(flag & each))

    def read_packet_ins(self, names: Mapping[int, str]) -> list[PacketIn]:
        """`names` are ports by local id; frames of others are forgotten."""
        if not self._is_open:
            return []
        wall_ns = time.time_ns() - time.monotonic_ns()
        found: list[PacketIn] = []
        while data := self._c.packet_read():
            found += decode_packet_ins(data, names, wall_ns)
        return found


def _check_sizes(rules: Sequence[TableRule]) -> None:
    sizes = len(layout.pack("match")), len(layout.pack("actions"))
    for rule in rules:
        if (len(rule.match), len(rule.actions)) != sizes:
            raise ValueError("a rule's bytes are no rule's")
        if not 0 <= rule.cookie < 1 << 32:
            raise ValueError(f"cookie {rule.cookie} has more than 32 bits")


def decode_packet_ins(data: bytes, names: Mapping[int, str], wall_ns: int) -> Iterator[PacketIn]:
    """From whole records, one behind the other; `wall_ns` is added to their clock."""
    at = 0
    while at < len(data):
        (
            time_ns,
            metadata,
            local_id,
            length,
            captured,
            cookie,
            table,
            why,
            direction,
            tag,
            is_tagged,
        ) = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        frame = data[at : at + captured]
        at += captured
        if is_tagged:
            length += _TAG.size
            if captured >= 12:
                frame = frame[:12] + _TAG.pack(_VLAN, tag) + frame[12:]
        if local_id in names:
            yield PacketIn(
                port=names[local_id],
                time_ns=time_ns + wall_ns,
                egress=direction == 1,
                table=table,
                reason=_REASONS[why],
                cookie=cookie,
                metadata=metadata,
                length=length,
                data=frame,
            )
