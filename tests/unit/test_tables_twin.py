"""The operator's tables in C against their pure-Python twin, on frames and rules of hypothesis."""

import ipaddress

import frames as f
import twin as t
from datapath_bench import PORT, SECOND, TAP, UPLINK, VM4, VM6, Bench
from frame_strategies import VM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_strategies import steps
from twin_classifier import Rule, pack_rule
from twin_tables import TwinRule, TwinTable, TwinTables

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.handling import TableRule
from vnet_agent.model.handler import Miss
from vnet_agent.model.policy import ALLOW_ALL

OTHER, OTHER_TAP = "22222222-0000-4000-8000-000000000002", 66
CODES = {
    "normal": 1, "drop": 2, "output": 3, "goto": 4, "controller": 5, "mirror": 7, "copy": 12,
    "push_vlan": 9, "pop_vlan": 10,
}  # fmt: skip
FIELDS = {
    "source_mac": 1, "target_mac": 2, "source": 3, "destination": 4, "source_port": 7,
    "destination_port": 8, "dscp": 9, "hops": 10, "metadata": 11,
}  # fmt: skip


def pack_op(name: str, value, cookie: int) -> bytes:
    if name in ("output", "mirror", "copy"):
        return layout.pack("op", code=CODES[name], value=value)
    if name == "controller":
        return layout.pack("op", code=5, arg=65535, value=cookie)
    if name in CODES:
        return layout.pack("op", code=CODES[name], arg=value or 0)
    field = FIELDS[name]
    if name in ("source", "destination"):
        packed = ipaddress.ip_address(value).packed
        if len(packed) == 4:
            return layout.pack("op", code=6, field=field, wide=int.from_bytes(packed, "little"))
        halves = [int.from_bytes(packed[at : at + 8], "little") for at in (0, 8)]
        return layout.pack("op", code=6, field=field + 2, wide=halves[0]) + layout.pack(
            "op", code=6, field=field, wide=halves[1]
        )
    if name.endswith("_mac"):
        value = int.from_bytes(value.to_bytes(6, "big"), "little")
    return layout.pack("op", code=6, field=field, wide=value)


def table_rule(rule: TwinRule) -> TableRule:
    ops = b"".join(pack_op(name, value, rule.cookie) for name, value in rule.ops)
    return TableRule(
        match=pack_rule(rule.rule),
        actions=ops.ljust(len(layout.pack("actions")), b"\0"),
        cookie=rule.cookie,
    )


class Pair:
    """A port with tables, one of the same without, and the twin of both."""

    def __init__(self) -> None:
        self.bench, self.plain = Bench(), Bench()
        for bench in (self.bench, self.plain):
            bench.set_port(OTHER, mac="52:54:00:00:00:03")
            bench.driver.set_policy(OTHER, ALLOW_ALL)
            bench.driver.attach(OTHER, OTHER_TAP)
        self.now = self.bench.now
        self.twin = t.Twin(VM, (VM4, VM6), ALLOW_ALL)
        ids = {entry.port: entry.local_id for entry in self.bench.driver.ports()}
        assert (ids[PORT], ids[OTHER]) == (1, 2)
        taps = {0: UPLINK, 1: TAP, 2: OTHER_TAP}
        self.tables = TwinTables(self.twin, 1, 0, taps)
        # Without any table a frame would not be looked at so.
        self.load(14, TwinTable("continue", [TwinRule(Rule({}, {}), (("goto", 15),))]))

    def load(self, number: int, table: TwinTable) -> None:
        self.tables.tables[number] = table
        rules = [table_rule(rule) for rule in table.rules]
        self.bench.driver.replace_table(number, rules, Miss(table.miss))

    def run(self, bench: Bench, direction: t.Direction, frame: bytes):
        hook = c.FROM_PORT if direction is t.EGRESS else c.TO_PORT
        action, reason, out = bench.native.run(hook, TAP, frame, self.now)
        return action, c.REASONS[reason], out

    def check(self, direction: t.Direction, frame: bytes) -> None:
        expected = self.tables.process(direction, frame, self.now)
        got = self.run(self.bench, direction, frame)
        packets = list(self.bench.driver.read_packet_ins())
        if expected[0] == "normal":
            action, reason, out = self.run(self.plain, direction, expected[1])
            assert got == (action, reason, expected[2] + out)
            self.twin.process(direction, expected[1], self.now)
        elif expected[0] == "drop":
            assert got == (c.DROP, expected[1], expected[2])
        elif expected[0] == "leave":
            assert got == (c.REDIRECT, "none", expected[1])
        else:
            _, number, why, cookie, data, out = expected
            assert len(packets) == (got[0] == c.HANDED)
            if not packets:  # faster than the rate
                assert got == (c.DROP, "controller-rate", out)
                return
            (packet,) = packets
            assert got == (c.HANDED, "none", out)
            assert (packet.table, packet.reason, packet.cookie) == (number, why, cookie)
            assert (packet.port, packet.egress) == (PORT, direction is t.EGRESS)
            assert (packet.data, packet.length) == (data, len(data))
            return
        assert packets == []


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(steps, min_size=1, max_size=30))
def test_tables_do_what_their_twin_does(items) -> None:
    pair = Pair()
    for what, value in items:
        if what == "table":
            pair.load(*value)
        elif what == "sleep":
            pair.now += value * SECOND
        else:
            pair.check(what, value)
    held = {state.table: state for state in pair.bench.driver.tables()}
    for number, table in pair.tables.tables.items():
        if table.rules or table.miss != "continue":
            wanted = sorted(table_rule(rule) for rule in table.rules)
            assert held[number].miss == table.miss
            assert len(held[number].rules) == len(wanted)
        else:
            assert number not in held


def test_a_tcp_connection_is_seen_as_it_grows() -> None:
    pair = Pair()
    packet_in = TwinRule(Rule({}, {}), (("controller", None),))
    pair.load(15, TwinTable("continue", [packet_in]))
    for state, direction, flags in (
        (3, t.EGRESS, f.SYN),
        (1 | 4 | 16, t.INGRESS, f.SYN | f.ACK),
        (1 | 4, t.EGRESS, f.ACK),
    ):
        wanted = TwinRule(Rule({"state": state}, {"state": 0xFF}), (("normal", None),))
        pair.load(0, TwinTable("drop", [wanted]))
        ends = (VM4, "10.0.0.2") if direction is t.EGRESS else ("10.0.0.2", VM4)
        macs = (VM, "52:54:00:00:00:02")
        body = f.tcp(4000, 80, flags) if direction is t.EGRESS else f.tcp(80, 4000, flags)
        frame = f.ether(
            *(macs if direction is t.EGRESS else macs[::-1]), f.IPV4, f.ipv4(*ends, f.TCP, body)
        )
        assert pair.run(pair.bench, direction, frame)[1] == "none"


def test_type_and_code_are_those_of_icmp_alone() -> None:
    pair = Pair()
    for protocol, body in ((f.TCP, f.tcp(4000, 80, f.SYN)), (f.ICMP, f.icmp(8, ident=1))):
        frame = f.ether(VM, "52:54:00:00:00:02", f.IPV4, f.ipv4(VM4, "10.0.0.2", protocol, body))
        for name, value in (("type", 0), ("type", 8), ("type", 20), ("code", 0)):
            wanted = TwinRule(Rule({name: value}, {name: 0xFF}), (("drop", None),))
            pair.load(0, TwinTable("continue", [wanted]))
            pair.check(t.EGRESS, frame)
