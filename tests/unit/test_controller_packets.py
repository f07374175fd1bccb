"""The loop: a frame goes to the controller, and a rule and the frame come back."""

import asyncio
import base64
import contextlib
import json

import api_fakes
import datapath_bench as bench
import pytest
from controller_support import call, run_server, wait_until
from packet_fakes import FedDriver
from sight_agent import Inventory

from vnet_agent import config
from vnet_agent.controller.client import ControllerClient
from vnet_agent.controller.packets import PacketExchange
from vnet_agent.datapath.handlers import decompile_rule
from vnet_agent.datapath.handling import PacketIn
from vnet_agent.exceptions import ControllerError
from vnet_agent.model.handler import Origin
from vnet_agent.policy.store import PolicyStore
from vnet_controller import packets as packets_module

FRAME = bytes(range(60))
RULE = {"table": 3, "match": {"ip_proto": "tcp"}, "actions": ["drop"], "cookie": 9}


def packet_in(port="p1", **fields):
    given = {
        "time": "2026-01-01T00:00:00Z", "port": port, "instance": None, "direction": "egress",
        "table": 0, "reason": "rule", "cookie": 1, "metadata": "0x0", "length": 60, "lost": 0,
        "frame": base64.b64encode(FRAME).decode(),
    }  # fmt: skip
    return given | fields


@pytest.fixture
async def site(tmp_path):
    async with run_server(tmp_path / "controller") as (server, session):
        yield server, session


@pytest.fixture(autouse=True)
def directory(tmp_path):
    (tmp_path / "controller").mkdir()


async def read(response):
    """The next object of a stream of lines."""
    while True:
        line = await asyncio.wait_for(response.content.readline(), 20)
        if line.strip():
            return json.loads(line)


async def poll(session, host="h1", wait=0, after=0, epoch=""):
    params = {"after": after, "epoch": epoch, "wait": wait}
    return await call(session, "GET", f"/v1/hosts/{host}/orders", params=params)


async def order(session, value, host="h1", expect=202):
    return await call(session, "POST", f"/v1/hosts/{host}/packet-outs", expect, json=value)


async def test_packet_ins_reach_those_who_follow(site):
    _, session = site
    async with (
        session.get("/v1/packet-ins/stream") as everything,
        session.get("/v1/packet-ins/stream?host=h2") as of_host,
        session.get("/v1/packet-ins/stream?port=p2") as of_port,
    ):
        for response in (everything, of_host, of_port):
            assert response.content_type == "application/jsonl"
            assert await response.content.readline() == b"\n"
        body = {"packet_ins": [packet_in("p1", lost=3), packet_in("p2")]}
        assert await call(session, "POST", "/v1/hosts/h1/packet-ins", json=body) == {"taken": 2}
        body = {"packet_ins": [packet_in("p9")]}
        await call(session, "POST", "/v1/hosts/h2/packet-ins", json=body)
        seen = [await read(everything) for _ in range(3)]
        assert seen[0] == {"host": "h1"} | packet_in("p1", lost=3)
        assert [(item["host"], item["port"]) for item in seen] == [
            ("h1", "p1"),
            ("h1", "p2"),
            ("h2", "p9"),
        ]
        assert (await read(of_host))["port"] == "p9"
        assert (await read(of_port))["host"] == "h1"


async def test_a_ports_flood_is_cut_and_told(site):
    _, session = site
    async with session.get("/v1/packet-ins/stream") as stream:
        assert await stream.content.readline() == b"\n"
        flood = [packet_in("flood", cookie=number) for number in range(999)]
        body = {"packet_ins": [*flood, packet_in("quiet")]}
        await call(session, "POST", "/v1/hosts/h1/packet-ins", json=body)
        seen = [await read(stream) for _ in range(packets_module.DEPTH + 1)]
        assert [item["port"] for item in seen[:3]] == ["flood", "quiet", "flood"]
        body = {"packet_ins": [packet_in("flood", lost=5)]}
        await call(session, "POST", "/v1/hosts/h1/packet-ins", json=body)
        assert (await read(stream))["lost"] == 5 + 999 - packets_module.DEPTH


async def test_orders_come_until_they_are_done(site):
    server, session = site
    assert (await poll(session))["orders"] == []
    assert await order(session, {"rule": RULE}) == {"number": 1}
    await order(session, {"rule": RULE | {"cookie": 2}})
    first = await poll(session)
    assert first["epoch"] == server.services.packets.epoch
    assert [item["number"] for item in first["orders"]] == [1, 2]
    assert first["orders"][0] == {"number": 1, "rule": RULE}
    assert (await poll(session, epoch="another", after=9))["orders"] == first["orders"]
    rest = await poll(session, epoch=first["epoch"], after=1)
    assert [item["number"] for item in rest["orders"]] == [2]
    assert (await poll(session, epoch=first["epoch"], after=2))["orders"] == []
    assert (await poll(session, host="h2"))["orders"] == []


async def test_a_host_waits_for_its_order(site):
    _, session = site
    waiting = asyncio.create_task(poll(session, wait=100))
    await until(lambda: "h1" in site[0].services.packets._hosts)
    await order(session, {"rule": RULE})
    assert [item["number"] for item in (await asyncio.wait_for(waiting, 20))["orders"]] == [1]


async def test_a_controller_that_stops_answers_who_waits(tmp_path):
    async with run_server(tmp_path / "controller") as (server, session):
        waiting = asyncio.create_task(poll(session, wait=100))
        stream = await session.get("/v1/packet-ins/stream")
        await until(lambda: "h1" in server.services.packets._hosts)
        server.services.packets.close()
        assert (await asyncio.wait_for(waiting, 20))["orders"] == []
        assert await asyncio.wait_for(stream.content.read(), 20) == b"\n"


@pytest.mark.parametrize(
    ("value", "status", "says"),
    [
        ({}, 422, "neither a rule nor a packet"),
        ({"rule": {"table": 3, "actions": ["jump"]}}, 422, "$.rule.actions[0]: 'jump'"),
        ({"packet": {"port": "x", "direction": "egress", "frame": "!"}}, 422, "no base64"),
        ([], 400, "Expected `object`"),
    ],
)
async def test_orders_that_mean_nothing_are_refused(site, value, status, says):
    _, session = site
    await poll(session)
    assert says in (await order(session, value, expect=status))["detail"]
    assert (await poll(session))["orders"] == []


async def test_orders_have_a_bound_and_a_host(site, monkeypatch):
    _, session = site
    assert "has not asked" in (await order(session, {"rule": RULE}, expect=404))["detail"]
    monkeypatch.setattr(packets_module, "MOST_ORDERS", 2)
    await poll(session)
    for _ in range(2):
        await order(session, {"rule": RULE})
    assert "Too many orders" in (await order(session, {"rule": RULE}, expect=503))["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/hosts/h1/packet-ins", {"packet_ins": [{}]}, 400),
        ("/v1/hosts/h1/packet-ins", {"packet_ins": [packet_in()] * 1001}, 400),
        ("/v1/hosts/-/packet-ins", {"packet_ins": []}, 400),
        ("/v1/hosts/h1/packet-outs?x=1", {"rule": RULE}, 400),
    ],
)
async def test_requests_that_mean_nothing(site, path, body, status):
    await call(site[1], "POST", path, status, json=body)


class Host:
    """An agent's half of the loop over a datapath that holds what it is told."""

    def __init__(self, directory, url):
        self.conf = config.load([], state_dir=str(directory))
        self.conf.set_override("host", "h1")
        self.conf.set_override("url", url, group="controller")
        self.conf.set_override("retry_max", 0.2, group="controller")
        self.driver = bench.Bench(driver=FedDriver(max_ports=8)).driver
        self.inventory = Inventory(self.driver)
        parts = api_fakes.handler_services(self.conf, self.driver, self.inventory)
        self.tables, self.feed = parts["tables"], parts["packets"]
        self.client = ControllerClient(
            self.conf,
            inventory=self.inventory,
            policy=PolicyStore(self.conf),
            epoch=lambda: 1,
        )
        self.exchange = PacketExchange(self.client.call_host, self.feed, parts["packet_outs"])
        self.client.add_turn("ins", self.exchange.send_packet_ins)
        self.client.add_turn("orders", self.exchange.fetch_orders)

    async def __aenter__(self):
        await self.tables.start()
        await self.feed.start()
        await self.client.start()
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        await self.feed.close()
        await self.tables.close()

    @property
    def port(self):
        return self.driver.ports()[0].port

    def rules(self):
        return [
            decompile_rule(rule, {})
            for state in self.driver.tables()
            for rule in state.rules.values()
        ]

    def sees(self, frame=FRAME, **fields):
        given = {
            "port": self.port, "time_ns": 0, "egress": True, "table": 0, "reason": "miss",
            "cookie": 0, "metadata": 0, "length": len(frame), "data": frame,
        }  # fmt: skip
        self.driver.wire.feed(PacketIn(**given | fields))


async def until(condition):
    async def holds():
        return bool(condition())

    await wait_until(holds)


def url_of(server):
    host, port = server.addresses[0]
    return f"http://{host}:{port}"


async def test_a_frame_comes_and_a_rule_and_the_frame_go(site, tmp_path):
    server, session = site
    async with (
        Host(tmp_path / "h1", url_of(server)) as host,
        session.get("/v1/packet-ins/stream") as stream,
    ):
        await until(lambda: "h1" in server.services.packets._hosts)
        assert await stream.content.readline() == b"\n"
        sent_with = []
        real = type(host.driver).send_packet

        def send(driver, *words, **how):
            sent_with.append(len(host.rules()))
            real(driver, *words, **how)

        type(host.driver).send_packet = send
        try:
            host.sees()
            seen = await read(stream)
            assert (seen["host"], seen["port"], seen["reason"]) == ("h1", host.port, "miss")
            packet = {"port": seen["port"], "direction": "egress", "frame": seen["frame"]}
            await order(session, {"rule": RULE, "packet": packet})
            await until(lambda: host.driver.wire.sent)
        finally:
            type(host.driver).send_packet = real
        assert sent_with == [1]
        assert host.driver.wire.sent == [(host.port, True, FRAME, False)]
        (rule,) = host.tables.ordered(3)
        assert (rule.handler.cookie, rule.origin) == (9, Origin.CONTROLLER)
        # The next order is asked for with the first one done.
        await order(session, {"rule": RULE | {"actions": ["normal"], "cookie": 5}})
        await until(lambda: [rule.cookie for rule in host.rules()] == [5])
        assert len(host.driver.wire.sent) == 1


async def test_what_a_host_cannot_do_stops_nothing(site, tmp_path, caplog):
    server, session = site
    async with Host(tmp_path / "h1", url_of(server)) as host:
        await until(lambda: "h1" in server.services.packets._hosts)
        packet = {
            "port": "tap99",
            "direction": "egress",
            "frame": base64.b64encode(FRAME).decode(),
        }
        await order(session, {"packet": packet})
        await order(session, {"rule": RULE})
        await until(host.rules)
        assert "No port tap99" in caplog.text


async def test_a_controller_that_begins_anew_is_heard(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        async with run_server(tmp_path / "controller") as (server, session):
            port = server.addresses[0][1]
            await poll(session)
            for _ in range(3):
                await order(session, {"rule": RULE})
            host = await stack.enter_async_context(Host(tmp_path / "h1", url_of(server)))
            await until(lambda: host.exchange._done == 3)
        async with run_server(tmp_path / "controller", listen_port=port) as (server, session):
            await until(lambda: "h1" in server.services.packets._hosts)
            await order(session, {"rule": RULE | {"cookie": 77}})
            await until(lambda: [rule.cookie for rule in host.rules()] == [77])


async def test_an_order_that_comes_twice_is_done_once(tmp_path):
    host = Host(tmp_path / "h1", "http://controller")
    async with contextlib.AsyncExitStack() as stack:
        await host.tables.start()
        stack.push_async_callback(host.tables.close)
        packet = {"port": host.port, "direction": "egress", "frame": packet_in()["frame"]}
        asked = []

        async def answer(method, path, *, params, wait):
            asked.append((method, path, params["after"], params["epoch"]))
            return {"epoch": "e", "orders": [{"number": 4, "packet": packet}]}

        host.exchange._call = answer
        await host.exchange.fetch_orders()
        await host.exchange.fetch_orders()
        assert asked == [("GET", "/orders", "0", ""), ("GET", "/orders", "4", "e")]
        assert len(host.driver.wire.sent) == 1


@pytest.mark.parametrize(
    "strange", [[], {"epoch": "e"}, {"epoch": "e", "orders": [{}]}, {"epoch": 1, "orders": []}]
)
async def test_strange_orders_are_a_controllers_error(tmp_path, strange):
    host = Host(tmp_path / "h1", "http://controller")

    async def answer(*_words, **_how):
        return strange

    host.exchange._call = answer
    with pytest.raises(ControllerError, match="strange orders"):
        await host.exchange.fetch_orders()
