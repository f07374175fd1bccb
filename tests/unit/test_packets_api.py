"""Packet-ins and packet-outs on the local API, with a datapath that holds what it is told."""

import base64
import http.client
import json
import socket
import threading

import datapath_bench as b
import pytest
from sight_agent import Agent

from vnet_agent.cli import packet as cli_packet
from vnet_agent.datapath.handlers import decompile_rule
from vnet_agent.datapath.handling import PacketIn
from vnet_agent.exceptions import DatapathError
from vnet_agent.packets.feed import show_packet_in

FRAME = bytes(range(60))
AWAY = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"


@pytest.fixture
def agent(tmp_path, capsys):
    agent = Agent(tmp_path, capsys)
    yield agent
    agent.stop()


@pytest.fixture
def entry(agent):
    return agent.bench.driver.ports()[0]


class Raw(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("agent", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


def post(agent, value):
    connection = Raw(agent.socket)
    connection.request("POST", "/v1/packet-outs", json.dumps(value).encode())
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


@pytest.fixture
def stream(agent):
    """Opens a stream; returns a function that reads the next object of it."""
    opened = []

    def open_stream(query=""):
        connection = Raw(agent.socket)
        opened.append(connection)
        connection.request("GET", f"/v1/packet-ins{query}")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "application/jsonl"
        assert response.readline() == b"\n"

        def read():
            while (line := response.readline()) == b"\n":
                pass
            return json.loads(line)

        return read

    yield open_stream
    for connection in opened:
        connection.close()


def packet(port, data=FRAME, **fields):
    given = {
        "port": port, "time_ns": 1_767_225_600_000_000_000, "egress": True, "table": 3,
        "reason": "rule", "cookie": 7, "metadata": 0x1F, "length": len(data), "data": data,
    }  # fmt: skip
    return PacketIn(**given | fields)


def feed(agent, *packets):
    for item in packets:
        agent.bench.driver.wire.feed(item)


def test_a_packet_in_is_a_line(agent, entry, stream):
    read = stream()
    feed(agent, packet(entry.port), packet(AWAY, egress=False, reason="miss", length=1500))
    assert read() == {
        "time": "2026-01-01T00:00:00.000000Z", "port": entry.port, "instance": entry.instance,
        "direction": "egress", "table": 3, "reason": "rule", "cookie": 7, "metadata": "0x1f",
        "length": 60, "frame": base64.b64encode(FRAME).decode(), "lost": 0,
    }  # fmt: skip
    second = read()
    assert (second["port"], second["instance"], second["reason"]) == (AWAY, None, "miss")
    assert (second["direction"], second["length"]) == ("ingress", 1500)


def test_each_reader_has_all(agent, entry, stream):
    first, second, of_port = stream(), stream(), stream(f"?port={entry.port}")
    feed(agent, packet(AWAY, cookie=1), packet(entry.port, cookie=2))
    assert [first()["cookie"], first()["cookie"]] == [1, 2]
    assert [second()["cookie"], second()["cookie"]] == [1, 2]
    assert of_port()["cookie"] == 2


def test_what_nobody_follows_is_forgotten(agent, entry, stream):
    feed(agent, packet(entry.port, cookie=1))
    while agent.packets.status()["read"] < 1:
        pass
    read = stream()
    feed(agent, packet(entry.port, cookie=2))
    assert read()["cookie"] == 2
    assert agent.packets.status() == {"read": 2, "lost": 0}


def test_a_flood_is_cut_and_told(agent, entry, stream):
    wire = agent.bench.driver.wire
    read = stream()
    depth = agent.conf.packets.queue
    with wire.lock:  # all of it is read at once
        wire.waiting += [packet(AWAY, cookie=number) for number in range(1000)]
        wire.waiting.append(packet(entry.port, cookie=5000))
    feed(agent, packet(entry.port, cookie=5001))
    assert [read()["cookie"] for _ in range(3)] == [0, 5000, 1]
    assert agent.packets.status() == {"read": 1002, "lost": 1000 - depth}
    rest = [read()["cookie"] for _ in range(depth - 1)]
    assert sorted(rest) == [*range(2, depth), 5001]
    feed(agent, packet(AWAY, cookie=9))
    assert read()["lost"] == 1000 - depth


def out(port, **fields):
    packet = {"port": port, "direction": "egress", "frame": base64.b64encode(FRAME).decode()}
    return packet | fields


def held_rules(agent, table=3):
    found = {state.table: state for state in agent.bench.driver.tables()}
    names = {entry.local_id: entry.port for entry in agent.bench.driver.ports()}
    rules = found[table].rules.values() if table in found else []
    return [decompile_rule(rule, names) for rule in rules]


RULE = {"table": 3, "match": {"ip_proto": "tcp"}, "actions": ["drop"], "cookie": 9}


def test_a_packet_goes_out(agent, entry):
    assert post(agent, {"packet": out(entry.port)}) == (200, {"rule": None, "sent": True})
    assert post(agent, {"packet": out(f"tap{entry.local_id}", direction="ingress", tables=True)})
    assert agent.bench.driver.wire.sent == [
        (entry.port, True, FRAME, False),
        (entry.port, False, FRAME, True),
    ]


def test_the_rule_is_in_force_before_the_packet(agent, entry, monkeypatch):
    seen = []
    driver = type(agent.bench.driver)
    monkeypatch.setattr(
        driver, "send_packet", lambda *_, **how: seen.append(len(held_rules(agent)))
    )
    status, answer = post(agent, {"rule": RULE, "packet": out(entry.port)})
    assert (status, answer["rule"]["id"], answer["rule"]["origin"]) == (200, 1, "operator")
    assert (answer["sent"], seen) == (True, [1])
    assert agent.json("table", "show", "3")[0]["cookie"] == 9


def test_a_rule_alone(agent):
    status, answer = post(agent, {"rule": RULE})
    assert (status, answer["rule"]["table"], answer["sent"]) == (200, 3, False)
    assert len(held_rules(agent)) == 1


@pytest.mark.parametrize(
    ("value", "status", "says"),
    [
        ({}, 422, "neither a rule nor a packet"),
        ({"rule": {**RULE, "actions": ["jump"]}, "packet": out(b.PORT)}, 422, "$.rule.actions[0]"),
        ({"rule": {"actions": ["drop"]}}, 422, "$.rule: a rule needs a table"),
        ({"rule": RULE, "packet": out("tap99")}, 404, "No port tap99"),
        ({"rule": RULE, "packet": out("x", frame="!")}, 422, "$.packet.frame: this is no base64"),
        ({"rule": RULE, "packet": out("x", frame="AAAA")}, 422, "3 bytes are no Ethernet frame"),
        ({"rule": RULE, "packet": out("x", direction="up")}, 422, "$.packet.direction: 'up'"),
        ({"rule": RULE, "packet": {"port": "x"}}, 422, "$.packet: Object missing"),
        ({"rule": RULE, "packet": out("x", colour=1)}, 422, "unknown field `colour`"),
        ({"rules": []}, 422, "unknown field `rules`"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_done(agent, value, status, says):
    answered, problem = post(agent, value)
    assert answered == status
    assert says in problem["detail"]
    assert held_rules(agent) == []
    assert agent.bench.driver.wire.sent == []


def test_a_packet_that_cannot_be_sent_leaves_the_rule(agent, entry, monkeypatch):
    def fail(*_, **how):
        raise DatapathError(operation="send", detail="no tap")

    monkeypatch.setattr(type(agent.bench.driver), "send_packet", fail)
    status, problem = post(agent, {"rule": RULE, "packet": out(entry.port)})
    assert (status, "no tap" in problem["detail"]) == (500, True)
    assert len(held_rules(agent)) == 1


def test_the_api_ends_with_open_streams(agent, stream):
    read = stream()
    agent.run(agent.api.close())
    with pytest.raises((ValueError, http.client.HTTPException, OSError)):
        read()


def test_vnetctl_shows_them(agent, entry):
    def send():
        while agent.packets.status()["read"] == 0:
            if agent.packets._queues:
                feed(agent, packet(entry.port), packet(entry.port, cookie=8))
                return

    thread = threading.Thread(target=send)
    thread.start()
    status, out, err = agent.ctl("packet", "watch", "--count", "2", "-f", "json")
    thread.join()
    assert (status, err) == (0, "")
    assert [json.loads(line)["cookie"] for line in out.splitlines()] == [7, 8]
    assert "No port tap99" in agent.refused("packet", "watch", "--port", "tap99")


def test_a_line_for_people():
    shown = show_packet_in(packet("p1"), None) | {"lost": 3}
    assert cli_packet._line(shown) == (
        "2026-01-01T00:00:00.000000Z  p1  egress  table=3  rule  cookie=0x7  60 bytes  "
        "(3 lost before it)"
    )
