"""Tables of the memory driver: what is refused, what stays, and what a trace says of them."""

import select

import frames as f
import pytest
from datapath_bench import INSTANCE, PEER, PEER4, PORT, SECOND, TAP, UPLINK, VM, VM4, Bench

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.handlers import compile_handler, decompile_rule
from vnet_agent.datapath.handling import TableRule
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.exceptions import DatapathError, UnknownPort
from vnet_agent.handlers.document import table_from_json
from vnet_agent.model.handler import MAX_RULES, Miss, show_handler

OTHER = "22222222-0000-4000-8000-000000000002"
FRAME = f.ether(VM, PEER, f.IPV4, f.ipv4(VM4, PEER4, f.UDP, f.udp(4000, 53)))
UDP = {"ip_proto": "udp", "eth_type": "ipv4"}


class Places:
    def __init__(self, driver):
        self._ids = {entry.port: entry.local_id for entry in driver.ports()}

    def local_id(self, port):
        return self._ids.get(port)

    def ids_of(self, instance):
        return sorted(self._ids.values()) if instance == INSTANCE else []

    def ids_in(self, group):
        return []


def compiled(driver, *rules, table=0):
    document = table_from_json({"rules": list(rules)}, table)
    return [item for rule in document.rules for item in compile_handler(rule, Places(driver))]


def load(driver, table, *rules, miss=Miss.CONTINUE):
    return driver.replace_table(table, compiled(driver, *rules, table=table), miss)


def flags(driver):
    return [layout.number("port", "flags", data) & c.PORT_TABLES for data in driver.native.ports()]


def send(bench, frame=FRAME):
    action, reason, _ = bench.native.process(c.FROM_PORT, TAP, frame)
    return "pass" if action == c.REDIRECT else c.REASONS[reason]


DROP = {"match": UDP, "actions": ["drop"]}


def test_every_port_has_the_flag_while_there_are_tables():
    bench = Bench()
    assert flags(bench.driver) == [0]
    load(bench.driver, 3, DROP)
    assert flags(bench.driver) == [c.PORT_TABLES]
    bench.set_port(OTHER, mac="52:54:00:00:00:03")
    bench.set_port()  # a change of the port leaves it alone
    assert flags(bench.driver) == [c.PORT_TABLES] * 2
    load(bench.driver, 3, miss=Miss.DROP)
    assert flags(bench.driver) == [c.PORT_TABLES] * 2
    load(bench.driver, 3)
    assert flags(bench.driver) == [0, 0]
    assert bench.driver.tables() == []


def test_single_rules_come_and_go():
    bench = Bench()
    (drop,) = compiled(bench.driver, DROP)
    first = bench.driver.insert_rule(5, drop)
    assert send(bench) == "handler"
    second = bench.driver.insert_rule(5, drop)
    assert first != second
    bench.driver.delete_rule(5, first)
    assert send(bench) == "handler"
    bench.driver.delete_rule(5, second)
    assert (send(bench), bench.driver.tables(), flags(bench.driver)) == ("pass", [], [0])
    with pytest.raises(DatapathError, match="no such table or rule"):
        bench.driver.delete_rule(5, second)


def test_the_tables_are_what_was_given():
    bench = Bench()
    rules = compiled(
        bench.driver,
        DROP | {"cookie": 7},
        {"match": {"in_port": PORT}, "actions": [{"set": {"metadata": 5}}, "normal"]},
    )
    ids = bench.driver.replace_table(2, rules, Miss.CONTROLLER)
    (state,) = bench.driver.tables()
    assert (state.table, state.miss) == (2, Miss.CONTROLLER)
    assert [state.rules[item] for item in ids] == rules
    # And again after the agent was away.
    bench.driver.close()
    bench.driver.open()
    assert bench.driver.tables() == [state]
    assert flags(bench.driver) == [c.PORT_TABLES]


OP = len(layout.pack("op"))


@pytest.mark.parametrize(
    ("ops", "table", "says"),
    [
        ([{"code": 8, "value": 1}], 0, "action 0"),  # METER
        ([{"code": 11, "value": 1}], 0, "action 0"),  # GROUP
        ([{"code": 99}], 0, "action 0"),
        ([{"code": 10}, {"code": 4, "arg": 3}], 3, "action 1"),
        ([{"code": 4, "arg": 16}], 3, "action 0"),
        ([{"code": 6, "field": 13}], 0, "action 0"),
        ([{"code": 7, "value": 0}], 0, "action 0"),
        ([{"code": 13, "field": 0}], 0, "action 0"),  # NAT
        ([{"code": 13, "field": 5}], 0, "action 0"),
        ([{"code": 13, "field": 1, "value": 2 | 1 << 16}], 0, "action 0"),
        ([{"code": 13, "field": 1, "value": 1 << 16}], 0, "action 0"),
        ([{"code": 2}], 16, "no such table"),
    ],
)
def test_what_the_programs_cannot_do_is_refused_and_nothing_changed(ops, table, says):
    bench = Bench()
    (rule,) = compiled(bench.driver, {"actions": ["normal"]})
    load(bench.driver, 0, DROP)
    before = bench.driver.tables()
    actions = b"".join(layout.pack("op", **op) for op in ops).ljust(8 * OP, b"\0")
    with pytest.raises(DatapathError, match=says):
        bench.driver.replace_table(table, [rule, TableRule(rule.match, actions, 0)], Miss.CONTINUE)
    with pytest.raises(DatapathError):
        bench.driver.insert_rule(table, TableRule(rule.match, actions, 0))
    assert bench.driver.tables() == before


def test_what_lies_behind_the_end_is_nobodys():
    bench = Bench()
    (rule,) = compiled(bench.driver, DROP)
    actions = (layout.pack("op", code=2) + layout.pack("op", code=8)).ljust(8 * OP, b"\0")
    bench.driver.insert_rule(0, TableRule(rule.match, actions, 0))
    assert send(bench) == "handler"


def test_rules_that_are_none_are_refused():
    bench = Bench()
    (rule,) = compiled(bench.driver, DROP)
    with pytest.raises(DatapathError, match="no rule's"):
        bench.driver.insert_rule(0, TableRule(rule.match[:-1], rule.actions, 0))
    with pytest.raises(DatapathError, match="32 bits"):
        bench.driver.insert_rule(0, TableRule(rule.match, rule.actions, 1 << 32))
    backwards = bytearray(rule.match)
    offset, _ = c.LAYOUT["match"]["source_ports"]
    backwards[offset : offset + 4] = b"\2\0\1\0"
    with pytest.raises(DatapathError, match="contradicts itself"):
        bench.driver.insert_rule(0, TableRule(bytes(backwards), rule.actions, 0))
    assert bench.driver.tables() == []


def test_there_is_room_for_so_many_rules():
    driver = MemoryDriver(max_ports=4)
    driver.open()
    (rule,) = compiled(driver, DROP)
    most = [TableRule(rule.match, rule.actions, cookie % (1 << 32)) for cookie in range(MAX_RULES)]
    driver.replace_table(0, most[:-1], Miss.CONTINUE)
    driver.insert_rule(1, rule)
    with pytest.raises(DatapathError, match="room for 100000"):
        driver.insert_rule(1, rule)
    # Replaced while it is all there, and every rule does something else.
    driver.replace_table(0, most[1:], Miss.DROP)
    with pytest.raises(DatapathError, match="room for 100000"):
        driver.replace_table(0, most, Miss.DROP)
    assert len(driver.tables()[0].rules) == MAX_RULES - 1


def test_packet_ins_wake_their_reader_and_are_limited():
    bench = Bench(driver=MemoryDriver(max_ports=8, packet_rate=8))
    load(bench.driver, 0, {"actions": [{"controller": {"max_len": 14}}], "cookie": 3})
    fd = bench.driver.packet_in_fileno()
    assert not select.select([fd], [], [], 0)[0]
    assert [send(bench) for _ in range(5)].count("controller-rate") == 2
    assert select.select([fd], [], [], 0)[0]
    seen = list(bench.driver.read_packet_ins())
    assert [(item.data, item.length, item.cookie) for item in seen] == [
        (FRAME[:14], len(FRAME), 3)
    ] * 3
    assert not select.select([fd], [], [], 0)[0]
    assert bench.driver.counters(PORT).drops == {"controller-rate": 2}
    bench.now += 125_000_000
    bench.native.set_clock(bench.now)
    assert send(bench) == "none"


def test_a_full_ring_is_said():
    bench = Bench(driver=MemoryDriver(max_ports=8, packet_rate=1_000_000))
    load(bench.driver, 0, {"actions": ["controller"]})
    frame = FRAME + bytes(60000)
    told = [send(bench, frame) for _ in range(20)]
    assert told.count("none") == (1 << 20) // (len(frame) + 40)
    assert set(told) == {"none", "controller-rate"}


def test_packets_go_out():
    bench = Bench()
    load(bench.driver, 0, {"match": {"direction": "egress"}, "actions": ["drop"]})
    bench.driver.send_packet(PORT, egress=True, frame=FRAME, through_tables=True)
    assert list(bench.driver.sent) == []
    bench.driver.send_packet(PORT, egress=True, frame=FRAME, through_tables=False)
    assert list(bench.driver.sent) == [(UPLINK, FRAME)]
    with pytest.raises(UnknownPort):
        bench.driver.send_packet(OTHER, egress=True, frame=FRAME, through_tables=False)
    bench.driver.detach(PORT)
    with pytest.raises(DatapathError, match="no interface"):
        bench.driver.send_packet(PORT, egress=True, frame=FRAME, through_tables=False)


def test_a_meter_lets_so_much_through():
    bench = Bench()
    slow = {"match": UDP, "actions": [{"meter": {"kbps": 8, "burst_kbits": 1}}, "normal"]}
    load(bench.driver, 0, slow)
    # A byte takes a millisecond, and 125 of them are the burst.
    assert [send(bench) for _ in range(5)] == ["pass"] * 3 + ["rate"] * 2
    bench.now += SECOND // 1000
    bench.native.set_clock(bench.now)
    assert [send(bench), send(bench)] == ["pass", "rate"]
    assert bench.driver.trace(PORT, FRAME, egress=True).verdict == "forward"
    # Another table of the same rule goes on with what was taken; another cookie begins anew.
    load(bench.driver, 0, slow)
    assert send(bench) == "rate"
    load(bench.driver, 0, slow | {"cookie": 1})
    assert send(bench) == "pass"


@pytest.mark.parametrize("kbps", [1, 7, 1000, 10_000_000, (1 << 32) - 1])
def test_a_meter_is_exact_at_any_rate(kbps):
    bench = Bench()
    frame = FRAME + bytes(1500 - len(FRAME))
    meter = {"meter": {"kbps": kbps, "burst_kbits": 12}}
    load(bench.driver, 0, {"match": UDP, "actions": [meter, "normal"]})
    passed, step = 0, max(frame_ns(kbps, len(frame)) // 3, 1)
    for _ in range(600):
        passed += send(bench, frame) == "pass"
        bench.now += step
        bench.native.set_clock(bench.now)
    cost = len(frame) * 8_000_000 / kbps
    # The burst, a frame that overdraws it, and what the rate brings meanwhile.
    expected = min(600, (600 * step + 12_000_000_000 / kbps) / cost)
    assert expected - 1 <= passed <= expected + 2


def frame_ns(kbps, length):
    return length * 8_000_000 // kbps


def test_several_ports_are_a_group():
    bench = Bench()
    bench.set_port(OTHER, mac="52:54:00:00:00:03")
    bench.driver.attach(OTHER, 66)
    third = "33333333-0000-4000-8000-000000000003"
    bench.set_port(third, mac="52:54:00:00:00:04")
    bench.driver.attach(third, 67)
    load(bench.driver, 0, {"match": UDP, "actions": [{"output": [OTHER, third, "uplink"]}]})
    (state,) = bench.driver.tables()
    (rule,) = state.rules.values()
    names = {entry.local_id: entry.port for entry in bench.driver.ports()}
    shown = show_handler(decompile_rule(rule, names))["actions"]
    assert shown == [{"copy": OTHER}, {"copy": third}, {"output": "uplink"}]
    action, _, out = bench.native.run(c.FROM_PORT, TAP, FRAME)
    assert (action, out) == (c.REDIRECT, [(66, FRAME), (67, FRAME), (UPLINK, FRAME)])


def test_a_trace_says_which_tables_and_changes_nothing():
    bench = Bench(driver=MemoryDriver(max_ports=8, packet_rate=4))
    mark = {"match": UDP, "actions": [{"set": {"metadata": 9, "udp_dst": 99}}, {"goto": 4}]}
    (first,) = load(bench.driver, 1, mark)
    (second,) = load(
        bench.driver, 4, {"match": {"metadata": 9}, "actions": ["normal"]}, miss=Miss.DROP
    )
    assert send(bench) == "pass"
    run = bench.driver.trace(PORT, FRAME, egress=True)
    assert [(step.table, step.rule, step.miss) for step in run.tables] == [
        (1, first, None),
        (4, second, None),
    ]
    # The connection is that of the frame as the tables left it.
    assert (run.verdict, run.cache, run.connection.remote_port) == ("forward", "hit", 99)
    load(bench.driver, 4, miss=Miss.CONTROLLER)
    for _ in range(9):
        run = bench.driver.trace(PORT, FRAME, egress=True)
        assert (run.verdict, run.reason) == ("controller", None)
    assert run.tables[-1].miss is Miss.CONTROLLER
    assert list(bench.driver.read_packet_ins()) == []
    load(bench.driver, 4, miss=Miss.DROP)
    run = bench.driver.trace(PORT, FRAME, egress=True)
    assert (run.verdict, run.reason) == ("drop", "handler")
    assert bench.driver.counters(PORT).drops == {}


def test_a_trace_knows_the_connection_before_and_behind_the_tables():
    bench = Bench()
    assert send(bench) == "pass"
    new = {**UDP, "conn_state": "+new", "udp_dst": 53}
    actions = [{"set": {"udp_dst": 99}}, "normal"]
    load(bench.driver, 0, {"match": new, "actions": actions})
    answer = f.ether(PEER, VM, f.IPV4, f.ipv4(PEER4, VM4, f.UDP, f.udp(53, 4000)))
    assert bench.native.process(c.TO_PORT, TAP, answer)[0] == c.PASS
    # It is established by now: the rule is not its.
    run = bench.driver.trace(PORT, FRAME, egress=True)
    assert [(step.rule, step.miss) for step in run.tables] == [(None, Miss.CONTINUE)]
    assert (run.cache, run.connection.remote_port) == ("hit", 53)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_mark_stays_with_the_connection(is_there):
    bench = Bench()
    if is_there:
        assert send(bench) == "pass"
    load(bench.driver, 0, {"match": UDP, "actions": [{"set": {"conn_mark": 0x77}}, "normal"]})
    assert send(bench) == "pass"
    assert [conn.mark for conn in bench.driver.connections(PORT)] == [0x77]
    load(bench.driver, 0, {"match": {**UDP, "conn_mark": "0x70/0xf0"}, "actions": ["drop"]})
    assert send(bench) == "handler"
    # Without the tables it is as any other.
    load(bench.driver, 0)
    assert send(bench, FRAME.replace(b"\x0f\xa0", b"\x0f\xa1")) == "pass"
    assert sorted(conn.mark for conn in bench.driver.connections(PORT)) == [0, 0x77]


def test_errors_are_related_to_what_they_quote():
    bench = Bench()
    assert send(bench) == "pass"
    match = {"ip_proto": "icmp", "conn_state": "+trk+rel"}
    load(bench.driver, 0, {"match": match, "actions": ["drop"]})
    for port, reason in ((53, "handler"), (54, "none")):
        quoted = f.ipv4(VM4, PEER4, f.UDP, f.udp(4000, port))
        error = f.icmp(3, 3, payload=quoted)
        frame = f.ether(PEER, VM, f.IPV4, f.ipv4(PEER4, VM4, f.ICMP, error))
        assert c.REASONS[bench.native.process(c.TO_PORT, TAP, frame)[1]] == reason


def test_a_port_without_security_is_not_checked_before_the_tables():
    bench = Bench()
    bench.set_port(port_security=False)
    load(bench.driver, 0, {"match": UDP, "actions": ["drop"]})
    spoofed = f.ether("52:54:00:00:00:77", PEER, f.IPV4, f.ipv4("1.2.3.4", PEER4, 17, f.udp(1, 2)))
    assert send(bench, spoofed) == "handler"
    broken = f.ether(VM, PEER, f.IPV4, b"\x45" + bytes(30))
    assert send(bench, broken) == "pass"
