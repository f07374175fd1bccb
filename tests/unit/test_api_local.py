"""The local API over a real Unix socket, with the rooms behind it played by fakes."""

import asyncio
import contextlib
import grp
import json
import os
import socket
import stat

import aiohttp
import msgspec
import pytest
from api_fakes import CONNECTION, PORT, VM, Driver, Inventory, Migrations, handler_services

from vnet_agent import config
from vnet_agent.api import events as events_api
from vnet_agent.api.server import LocalApi
from vnet_agent.api.services import Services
from vnet_agent.bus import Bus
from vnet_agent.events.log import EventLog
from vnet_agent.exceptions import DatapathError, RecordError, SocketError
from vnet_agent.migration import wire
from vnet_agent.model.event import Cause, Type
from vnet_agent.model.virt import HookCall
from vnet_agent.policy.store import PolicyStore


class Site:
    """An agent's rooms and a client of its API."""

    async def call(self, method, path, **how):
        async with self.http.request(method, f"http://agent{path}", **how) as response:
            body = await response.read()
            return response, body

    async def get(self, path, status=200):
        response, body = await self.call("GET", path)
        assert response.status == status, body
        return json.loads(body)

    async def problem(self, status, method, path, **how):
        response, body = await self.call(method, path, **how)
        assert response.status == status, body
        assert response.content_type == "application/problem+json"
        problem = json.loads(body)
        assert problem["status"] == status
        assert set(problem) == {"type", "title", "status", "detail"}
        return problem["detail"]


@pytest.fixture
def conf(tmp_path):
    conf = config.load([], state_dir=str(tmp_path / "state"))
    conf.set_override("host", "h1")
    conf.set_override("api_socket", str(tmp_path / "run" / "agent.sock"))
    conf.set_override("api_group", grp.getgrgid(os.getgid()).gr_name)
    return conf


@pytest.fixture
async def site(conf):
    site = Site()
    site.driver, site.migrations, site.bus = Driver(), Migrations(), Bus()
    site.events, site.policy = EventLog(conf), PolicyStore(conf)
    await site.events.start()
    site.services = Services(
        conf=conf,
        inventory=Inventory(),
        driver=site.driver,
        policy=site.policy,
        **handler_services(conf, site.driver, Inventory()),
        events=site.events,
        migrations=site.migrations,
        bus=site.bus,
        status=lambda: {"libvirt_connected": True},
    )
    site.api = LocalApi(site.services)
    await site.api.start()
    site.http = aiohttp.ClientSession(connector=aiohttp.UnixConnector(conf.api_socket))
    yield site
    await site.http.close()
    await site.api.close()
    await site.events.close()
    await site.bus.close()


async def test_status(site):
    site.events.set_sinks(["a"])
    event = await site.events.emit(Type.STARTED, VM)
    status = await site.get("/v1/status")
    assert status["host"] == "h1"
    assert status["ports"] == 1
    assert status["libvirt_connected"] is True
    assert status["events_pending"] == 1
    assert status["events_error"] is None
    await site.events.acknowledge("a", event)
    assert (await site.get("/v1/status"))["events_pending"] == 0


@pytest.mark.parametrize("name", [PORT.uuid, "tap1", PORT.mac])
async def test_ports(site, name):
    (port,) = (await site.get("/v1/ports"))["ports"]
    assert port == msgspec.to_builtins(PORT) | {
        "addresses": ["10.0.0.5"], "role": "active", "generation": 1, "ifindex": 7,
        "tagged": True, "local_id": 3, "alias": PORT.alias, "allowed_address_pairs": [],
    }  # fmt: skip
    shown = await site.get(f"/v1/ports/{name}")
    assert shown["counters"]["drops"] == {"policy": 6}
    assert shown["error"] is None
    assert len(shown["policy"]["rules"]) == 2


async def test_a_port_whose_counters_fail_is_still_shown(site):
    site.driver.error = DatapathError(operation="counters", detail="no map")
    shown = await site.get("/v1/ports/tap1")
    assert (shown["tap"], shown["counters"]) == ("tap1", None)
    assert "no map" in shown["error"]


async def test_connections(site):
    found = await site.get("/v1/ports/tap1/connections?limit=3")
    assert found["connections"] == [msgspec.to_builtins(CONNECTION)] * 3
    rest = await site.get(f"/v1/ports/tap1/connections?cursor={found['cursor']}")
    assert (len(rest["connections"]), rest["cursor"]) == (2, None)


async def test_a_listing_that_breaks_off_says_so(site):
    site.driver.error = DatapathError(operation="flows", detail="the map is gone")
    found = await site.get("/v1/flows")
    assert len(found["flows"]) == 2
    assert "the map is gone" in found["error"]


@pytest.mark.parametrize("query", ["verdict=good", "cursor=x", "limit=0", "port=nope", "x=1"])
async def test_a_listing_of_nonsense_is_a_problem(site, query):
    await site.problem(404 if "port" in query else 400, "GET", f"/v1/flows?{query}")


async def test_export_is_a_whole_stream_and_import_takes_it(site):
    response, body = await site.call("GET", "/v1/ports/tap1/connections/export")
    assert response.content_type == wire.CONTENT_TYPE
    hello, records = wire.decode_stream(body)
    assert (hello.instance, hello.host) == (VM, "h1")
    assert hello.ports == (wire.StreamPort(uuid=PORT.uuid, mac=PORT.mac, generation=1),)
    assert [record.data for record in records] == [b"one", b"two"]
    response, answer = await site.call("POST", "/v1/ports/tap1/connections/import", data=body)
    assert json.loads(answer) == {"moved": 4, "refused": {"policy": 2}}
    assert site.driver.imported == [(PORT.uuid, b"one"), (PORT.uuid, b"two")]


async def test_an_export_that_fails_is_no_whole_stream(site):
    site.driver.error = DatapathError(operation="export", detail="map is gone")
    _, body = await site.call("GET", "/v1/ports/tap1/connections/export")
    with pytest.raises(RecordError, match="map is gone"):
        wire.decode_stream(body)


async def test_import_takes_all_or_nothing(site):
    _, body = await site.call("GET", "/v1/ports/tap1/connections/export")
    path = "/v1/ports/tap1/connections/import"
    assert "FINAL" in await site.problem(422, "POST", path, data=body[:-20])
    damaged = body[:-10] + bytes([body[-10] ^ 1]) + body[-9:]
    assert "CRC" in await site.problem(422, "POST", path, data=damaged)
    assert "no stream" in await site.problem(422, "POST", path, data=b"hello, world" * 10)
    await site.problem(422, "POST", path, data=b"")
    two = wire.Hello(session="", instance=VM, host="h", ports=(wire.StreamPort(
        uuid="a", mac="b", generation=1),) * 2)  # fmt: skip
    several = b"".join(wire.encode_stream([b"x"], two))
    assert "2 ports" in await site.problem(422, "POST", path, data=several)
    assert site.driver.imported == []


async def test_rules(site):
    text = "groups:\n- name: a\n  rules: [{direction: egress}]\n"
    _, body = await site.call("PUT", "/v1/rules?name=p.yaml", data=text)
    assert json.loads(body) == {"groups": 1, "rules": 1}
    shown = await site.get("/v1/rules")
    assert (shown["origin"], shown["groups"][0]["name"]) == ("api", "a")
    detail = await site.problem(422, "PUT", "/v1/rules?name=p.yaml", data=text + "x: 1\n")
    assert "p.yaml:4: unknown key 'x'" in detail
    detail = await site.problem(422, "PUT", "/v1/rules?name=p.yaml", data=b"a\n\xff\n")
    assert "p.yaml:2" in detail
    await site.problem(400, "PUT", "/v1/rules?name=a%0Ab", data=text)
    assert (await site.get("/v1/rules")) == shown


async def test_a_datapath_that_refuses_rules_leaves_the_old(site):
    async def changed():
        if site.policy.groups():
            raise DatapathError(operation="set_policy", detail="too many rules")

    site.policy.on_change = changed
    data = "groups: [{name: a}]"
    assert "too many" in await site.problem(500, "PUT", "/v1/rules", data=data)
    assert (await site.get("/v1/rules"))["groups"] == []


async def test_events(site):
    ids = [(await site.events.emit(Type.STARTED, str(n), cause=Cause.HOST)).id for n in range(5)]

    async def found(query):
        return [event["subject"] for event in (await site.get(f"/v1/events{query}"))["events"]]

    assert await found("") == list("01234")
    assert await found(f"?after={ids[1]}&limit=2") == ["2", "3"]
    assert await found("?latest=1&limit=2") == ["3", "4"]
    assert await found("?type=vnet.instance.stopped") == []
    both = "?type=vnet.instance.stopped&type=vnet.instance.started&subject=3"
    assert await found(both) == ["3"]


async def read_stream(response, count):
    """The first `count` events of a stream."""
    events = []
    async with asyncio.timeout(20):
        while len(events) < count:
            line = (await response.content.readline()).decode()
            assert line, "the stream ended"
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
    return events


async def test_the_stream_begins_with_its_answer(site):
    async with site.http.get("http://agent/v1/events/stream") as response:
        assert response.content_type == "text/event-stream"
        emitted = [await site.events.emit(Type.STARTED, str(n)) for n in range(3)]
        streamed = await read_stream(response, 3)
    assert streamed == msgspec.to_builtins(emitted)


async def test_the_stream_goes_on_after_the_last_event_id(site, monkeypatch):
    monkeypatch.setattr(events_api, "_PAGE", 3)
    ids = [(await site.events.emit(Type.STARTED, str(n))).id for n in range(10)]
    headers = {"Last-Event-ID": ids[1]}
    path = "http://agent/v1/events/stream"
    async with site.http.get(path, headers=headers) as response:
        more = [await site.events.emit(Type.STARTED, str(n)) for n in range(10, 13)]
        streamed = await read_stream(response, 11)
    assert [event["id"] for event in streamed] == ids[2:] + [event.id for event in more]


async def test_the_stream_filters(site):
    path = f"http://agent/v1/events/stream?type=vnet.instance.stopped&subject={VM}"
    async with site.http.get(path) as response:
        await site.events.emit(Type.STARTED, VM)
        await site.events.emit(Type.STOPPED, "other")
        wanted = await site.events.emit(Type.STOPPED, VM)
        assert [event["id"] for event in await read_stream(response, 1)] == [wanted.id]


async def test_a_quiet_stream_says_that_it_lives(site, monkeypatch):
    monkeypatch.setattr(events_api, "KEEP_ALIVE", 0.01)
    async with site.http.get("http://agent/v1/events/stream") as response:
        for _ in range(3):
            assert await response.content.readline() == b":\n"
            assert await response.content.readline() == b"\n"
        event = await site.events.emit(Type.STARTED, VM)
        assert [e["id"] for e in await read_stream(response, 1)] == [event.id]


async def test_open_streams_do_not_hold_the_end(site):
    async with site.http.get("http://agent/v1/events/stream") as response:
        async with asyncio.timeout(20):
            await site.api.close()
            with contextlib.suppress(aiohttp.ClientError):
                await response.content.read()
    assert site.events._subscriptions == set()


async def test_migrations(site):
    assert (await site.get("/v1/migrations"))["migrations"][0]["id"] == "m1"
    assert (await site.get("/v1/migrations/m1"))["phase"] == "done"
    assert "unknown" in await site.problem(404, "GET", "/v1/migrations/m2")


HOOK = {"domain": "vm1", "operation": "migrate", "suboperation": "begin", "xml": "<domain/>"}


@pytest.fixture
async def heard(site):
    heard = []

    async def hear(call):
        heard.append((call, list(site.migrations.calls)))

    site.bus.subscribe(HookCall, hear)
    return heard


async def test_hook(site, heard):
    response, _ = await site.call("POST", "/v1/hook", json=HOOK)
    assert response.status == 200
    await site.bus.drain()
    ((call, before),) = heard
    assert before == [call]  # migrations were told first
    assert (call.domain, call.operation, call.xml) == ("vm1", "migrate", "<domain/>")
    assert call.time_ns > 0


async def test_a_hook_that_fails_inside_is_answered_and_published(site, heard, caplog):
    site.migrations.error = RuntimeError("peer list is empty")
    response, _ = await site.call("POST", "/v1/hook", json=HOOK)
    assert response.status == 200
    await site.bus.drain()
    assert len(heard) == 1
    assert "peer list is empty" in caplog.text


async def test_a_slow_hook_is_answered_in_time_and_goes_on(site, heard):
    site.migrations.gate = asyncio.Event()
    response, _ = await site.call("POST", "/v1/hook", json=HOOK)
    assert response.status == 200
    await site.bus.drain()
    assert len(heard) == 1
    assert site.migrations.calls == []
    site.migrations.gate.set()
    async with asyncio.timeout(20):
        while not site.migrations.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("status", "method", "path", "body"),
    [
        (404, "GET", "/v1/ports/none", None),
        (404, "GET", "/v1/ports/none/connections", None),
        (404, "GET", "/v1/ports/none/connections/export", None),
        (404, "POST", "/v1/ports/none/connections/import", b""),
        (404, "GET", "/v1/nothing", None),
        (405, "DELETE", "/v1/ports", None),
        (400, "GET", "/v1/ports?colour=red", None),
        (400, "GET", "/v1/status?x", None),
        (400, "GET", "/v1/events?limit=0", None),
        (400, "GET", "/v1/events?limit=-1", None),
        (400, "GET", "/v1/events?limit=10001", None),
        (400, "GET", "/v1/events?limit=x", None),
        (400, "GET", "/v1/events?limit=%D9%A1", None),
        (400, "GET", "/v1/events?type=vnet.instance.exploded", None),
        (400, "GET", "/v1/events?after=h2%2F1%2F1", None),
        (400, "GET", "/v1/events/stream?after=x", None),
        (400, "GET", "/v1/ports/tap1/connections?limit=1000001", None),
        (400, "POST", "/v1/hook", b""),
        (400, "POST", "/v1/hook", b"{}"),
        (400, "POST", "/v1/hook", b'{"domain": 1, "operation": "x"}'),
        (400, "POST", "/v1/hook", b'{"domain": "' + b"x" * 1025 + b'", "operation": "x"}'),
        (400, "POST", "/v1/hook", b"[" * 100_000),
        (400, "POST", "/v1/hook", b'{"domain": "\xff", "operation": "x"}'),
        (413, "POST", "/v1/hook", b" " * (14 << 20)),
        (413, "PUT", "/v1/rules", b" " * (14 << 20)),
        (422, "PUT", "/v1/rules", b" " * (2 << 20)),
    ],
)
async def test_bad_requests_are_problems(site, status, method, path, body):
    detail = await site.problem(status, method, path, data=body)
    assert detail
    assert (await site.get("/v1/status"))["host"] == "h1"


async def test_what_nobody_foresaw_is_a_problem_without_secrets(site, caplog):
    site.driver.error = RuntimeError("secret")
    detail = await site.problem(500, "GET", "/v1/ports/tap1/connections")
    assert "secret" not in detail
    assert "secret" in caplog.text


async def test_the_socket_is_for_root_and_the_group(site, conf):
    found = os.stat(conf.api_socket)
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_gid == os.getgid()


async def test_without_the_group_it_is_for_root_alone(site, conf):
    await site.api.close()
    conf.set_override("api_group", "no-such-group")
    await site.api.start()
    assert stat.S_IMODE(os.stat(conf.api_socket).st_mode) == 0o600


async def test_the_end_takes_the_socket_away(site, conf):
    await site.api.close()
    assert not os.path.exists(conf.api_socket)
    assert os.listdir(os.path.dirname(conf.api_socket)) == []


async def test_a_stale_socket_is_replaced(site, conf):
    await site.api.close()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(conf.api_socket)
    await site.api.start()
    assert (await site.get("/v1/status"))["host"] == "h1"


async def test_a_live_one_is_refused_and_goes_on(site):
    other = LocalApi(site.services)
    with pytest.raises(SocketError, match="another agent serves there"):
        await other.start()
    await other.close()
    assert (await site.get("/v1/status"))["host"] == "h1"


async def test_what_is_no_socket_is_left_alone(site, conf, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    conf.set_override("api_socket", str(path))
    with pytest.raises(SocketError, match="no socket"):
        await LocalApi(site.services).start()
    assert path.read_text() == "data"


async def test_a_path_that_is_too_long_is_one_clear_error(site, conf, tmp_path):
    conf.set_override("api_socket", str(tmp_path / ("x" * 120)))
    with pytest.raises(SocketError, match="too long"):
        await LocalApi(site.services).start()
