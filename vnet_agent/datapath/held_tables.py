"""Tables of handlers as the memory driver has them: held, and run by nobody.

A test puts packet-ins in with `feed`, and finds frames that were sent in `sent`.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vnet_agent.datapath import layout
from vnet_agent.datapath._flowcache import HANDLER_TABLES
from vnet_agent.datapath.handling import PacketIn, TableRule, TableState
from vnet_agent.exceptions import DatapathError
from vnet_agent.model.handler import MAX_RULES, Miss

_SIZES = len(layout.pack("match")), len(layout.pack("actions"))


class SentPacket(NamedTuple):
    port: str
    egress: bool
    frame: bytes
    through_tables: bool


class HeldTables:
    """What a Driver's methods of the same names do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables = [
            TableState(table=number, miss=Miss.CONTINUE, rules={})
            for number in range(HANDLER_TABLES)
        ]
        self._last_id = 0
        self._waiting: list[PacketIn] = []
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.sent: list[SentPacket] = []

    def close(self) -> None:
        os.close(self._fd)

    def feed(self, packet: PacketIn) -> None:
        with self._lock:
            self._waiting.append(packet)
            os.eventfd_write(self._fd, 1)

    def tables(self) -> list[TableState]:
        with self._lock:
            return [
                TableState(table=state.table, miss=state.miss, rules=dict(state.rules))
                for state in self._tables
                if state.rules or state.miss is not Miss.CONTINUE
            ]

    def replace_table(self, table: int, rules: Sequence[TableRule], miss: Miss) -> list[int]:
        with self._lock:
            state = self._find(table)
            self._check(rules, len(rules) - len(state.rules))
            ids = [self._last_id + number for number in range(1, len(rules) + 1)]
            self._last_id += len(rules)
            found = dict(zip(ids, rules, strict=True))
            self._tables[table] = TableState(table=table, miss=miss, rules=found)
            return ids

    def insert_rule(self, table: int, rule: TableRule) -> int:
        with self._lock:
            state = self._find(table)
            self._check([rule], 1)
            self._last_id += 1
            state.rules[self._last_id] = rule
            return self._last_id

    def delete_rule(self, table: int, rule_id: int) -> None:
        with self._lock:
            if self._find(table).rules.pop(rule_id, None) is None:
                raise DatapathError(
                    operation="delete_rule", detail=f"there is no rule {rule_id} in table {table}"
                )

    def packet_in_fileno(self) -> int:
        return self._fd

    def read_packet_ins(self) -> Iterator[PacketIn]:
        with self._lock:
            packets, self._waiting = self._waiting, []
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)
        yield from packets

    def send_packet(self, port: str, *, egress: bool, frame: bytes, through_tables: bool) -> None:
        self.sent.append(SentPacket(port, egress, frame, through_tables))

    def _find(self, table: int) -> TableState:
        if not 0 <= table < HANDLER_TABLES:
            raise DatapathError(operation="tables", detail=f"there is no table {table}")
        return self._tables[table]

    def _check(self, rules: Sequence[TableRule], more: int) -> None:
        for rule in rules:
            if (len(rule.match), len(rule.actions)) != _SIZES:
                raise DatapathError(operation="tables", detail="a rule's bytes are no rule's")
        if sum(len(state.rules) for state in self._tables) + more > MAX_RULES:
            raise DatapathError(operation="tables", detail=f"there is room for {MAX_RULES} rules")
