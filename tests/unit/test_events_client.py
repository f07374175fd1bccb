"""The client of the controller: what it sends and takes; an outage disturbs nobody."""

import asyncio
import contextlib
import logging

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from vnet_agent import config
from vnet_agent.controller import client as client_module
from vnet_agent.controller.client import ControllerClient
from vnet_agent.exceptions import ControllerError
from vnet_agent.model.migration import Phase, Report
from vnet_agent.model.port import Port, Role

VM = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
PORT = Port(
    uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    instance=VM,
    instance_name="vm1",
    tap="tap1",
    mac="52:54:00:00:00:01",
    addresses=("10.0.0.5",),
)
REPORT = Report(
    id="m1", instance=VM, instance_name="vm1", side="source", source="h1", destination="h2",
    generation=2,
)  # fmt: skip


class PortState(msgspec.Struct, kw_only=True):
    port: Port
    role: Role = Role.ACTIVE
    generation: int = 1
    ifindex: int | None = 7
    tagged: bool = True
    local_id: int | None = None


class Inventory:
    def __init__(self):
        self.held = []
        self.callbacks = []

    def states(self):
        return list(self.held)

    def subscribe(self, callback):
        self.callbacks.append(callback)

    def set(self, *held):
        self.held = list(held)
        for callback in self.callbacks:
            callback()


class Policy:
    def __init__(self):
        self.replaced = []
        self.error = None
        self.members = []
        self.held = ""

    def mark(self, origin):
        assert origin == "controller"
        return self.held

    async def replace_members(self, members):
        self.members.append(members)

    async def add_members(self, members):
        self.members.append(("add", members))

    async def replace(self, groups, *, origin, mark=""):
        if self.error is not None:
            raise self.error
        assert origin == "controller"
        self.held = mark
        self.replaced.append([group.name for group in groups])


class Controller:
    """Records what comes, answers as the contract says, or with `fail`."""

    def __init__(self):
        self.beats, self.snapshots, self.reports = [], [], []
        self.policy = (0, [])
        self.members = {"digest": "0", "revision": 0, "members": {}}
        self.member_polls = []
        self.extra = {}
        self.polls = []
        self.instances = {}
        self.fail = {}
        self.changed = asyncio.Condition()
        self.app = web.Application(middlewares=[self.failing])
        self.app.add_routes(
            [
                web.put("/v1/hosts/h1", self.beat),
                web.put("/v1/hosts/h1/ports", self.ports),
                web.get("/v1/hosts/h1/policy", self.get_policy),
                web.get("/v1/hosts/h1/members", self.get_members),
                web.put("/v1/migrations/{id}", self.report),
                web.get("/v1/instances/{uuid}", self.instance),
            ]
        )

    @web.middleware
    async def failing(self, request, handler):
        for part, status in self.fail.items():
            if part in request.path:
                return web.json_response(
                    {"detail": "no"}, status=status, content_type="application/problem+json"
                )
        return await handler(request)

    async def beat(self, request):
        self.beats.append(await request.json())
        return web.json_response({"policy_revision": self.policy[0]})

    async def ports(self, request):
        self.snapshots.append((await request.json())["ports"])
        return web.json_response({})

    async def report(self, request):
        self.reports.append((request.match_info["id"], await request.json()))
        return web.json_response({})

    async def instance(self, request):
        found = self.instances.get(request.match_info["uuid"])
        if found is None:
            kind = "application/problem+json"
            return web.json_response({"detail": "none"}, status=404, content_type=kind)
        return web.json_response(found)

    async def get_policy(self, request):
        after = int(request.query["after"])
        self.polls.append(after)
        if after == self.policy[0]:
            async with self.changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.2)
        answer = {"revision": self.policy[0], "groups": self.policy[1]}
        return web.json_response(answer | self.extra)

    async def get_members(self, request):
        self.member_polls.append(request.query["after"])
        if request.query["after"] == self.members["digest"]:
            await asyncio.sleep(0.05)
        return web.json_response(self.members)

    async def set_policy(self, revision, *names):
        async with self.changed:
            self.policy = (revision, [{"name": name} for name in names])
            self.changed.notify_all()


class Site:
    pass


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (others make it true)
            await asyncio.sleep(0.005)


@pytest.fixture
def conf(tmp_path):
    conf = config.load([], state_dir=str(tmp_path))
    conf.set_override("host", "h1")
    for name, value in {"retry_min": 0.05, "retry_max": 0.1, "heartbeat_interval": 0.2}.items():
        conf.set_override(name, value, group="controller")
    return conf


@pytest.fixture
async def site(conf, monkeypatch):
    """A controller, and a client that is about to start."""
    monkeypatch.setattr(client_module, "DEBOUNCE", 0.01)
    site = Site()
    site.controller, site.inventory, site.policy = Controller(), Inventory(), Policy()
    site.server = TestServer(site.controller.app)
    await site.server.start_server()
    conf.set_override("url", str(site.server.make_url("")), group="controller")
    site.client = ControllerClient(
        conf, inventory=site.inventory, policy=site.policy, epoch=lambda: 17
    )
    yield site
    await site.client.close()
    await site.server.close()


async def test_heartbeats(site):
    await site.client.start()
    await until(lambda: len(site.controller.beats) >= 2)
    beat = site.controller.beats[0]
    assert set(beat) == {"version", "epoch", "migration_url", "started", "datapath"}
    assert (beat["epoch"], beat["datapath"]) == (17, {"driver": "ebpf"})
    assert beat["migration_url"] == "http://127.0.0.1:7471"
    assert beat["started"].endswith("Z")
    assert site.client.is_reachable


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"listen_address": "::1"}, "http://[::1]:7471"),
        ({"cert_file": "/c", "listen_port": 1}, "https://127.0.0.1:1"),
        ({"advertise_url": "https://h1:7471/"}, "https://h1:7471"),
    ],
)
async def test_the_url_at_which_peers_find_this_agent(site, conf, options, url):
    for name, value in options.items():
        conf.set_override(name, value, group="migration")
    client = ControllerClient(conf, inventory=site.inventory, policy=site.policy, epoch=int)
    assert client.migration_url == url


async def test_the_inventory_is_sent_whole_and_again_when_it_changes(site):
    await site.client.start()
    await until(lambda: site.controller.snapshots == [[]])
    site.inventory.set(PortState(port=PORT))
    site.inventory.set(PortState(port=PORT, role=Role.MOVED, generation=2))
    await until(lambda: len(site.controller.snapshots) == 2)
    (sent,) = site.controller.snapshots[-1]
    assert sent == msgspec.to_builtins(PORT) | {
        "addresses": ["10.0.0.5"],
        "allowed_address_pairs": [],
        "role": "moved",
        "generation": 2,
        "tagged": True,
        "ifindex": 7,
    }


async def test_the_inventory_is_sent_periodically(site, monkeypatch):
    monkeypatch.setattr(client_module, "SNAPSHOT_PERIOD", 0.01)
    await site.client.start()
    await until(lambda: len(site.controller.snapshots) >= 3)


async def test_an_inventory_that_was_refused_is_sent_again(site):
    site.controller.fail = {"/ports": 404}
    await site.client.start()
    await until(lambda: len(site.controller.beats) >= 2)
    assert site.controller.snapshots == []
    site.inventory.set(PortState(port=PORT))
    site.controller.fail = {}
    await until(lambda: site.controller.snapshots)
    assert site.controller.snapshots[-1][0]["tap"] == "tap1"


async def test_policy_is_taken_when_there_is_a_new_one(site):
    await site.client.start()
    await until(lambda: site.controller.polls)
    await site.controller.set_policy(3, "a")
    await until(lambda: site.policy.replaced == [["a"]])
    await site.controller.set_policy(4, "a", "b")
    await until(lambda: len(site.policy.replaced) == 2)
    await until(lambda: site.controller.polls[-1] == 4)
    await site.controller.set_policy(5)
    await until(lambda: site.policy.replaced == [["a"], ["a", "b"], []])
    assert site.client.status()["policy_revision"] == 5


async def test_members_are_taken_when_there_are_others(site):
    web = {"web": {"0": ["10.0.0.1"], "7": ["2001:db8::1"]}}
    await site.client.start()
    await until(lambda: len(site.controller.member_polls) >= 2)
    assert site.policy.members == []  # a controller that never had a group takes nobody away
    site.controller.members = {"digest": "1", "revision": 3, "members": web}
    await until(lambda: site.policy.members)
    site.controller.members = {"digest": "2", "revision": 3, "members": {}}
    await until(lambda: len(site.policy.members) == 2)
    assert site.policy.members == [
        {"web": {0: ("10.0.0.1",), 7: ("2001:db8::1",)}},
        {},
    ]


async def test_strange_members_are_refused_whole(site, caplog):
    strange = {"web": {"0": ["10.0.0.1", "10.0.0.300"]}}
    site.controller.members = {"digest": "1", "revision": 3, "members": strange}
    await site.client.start()
    await until(lambda: "10.0.0.300" in caplog.text)
    assert site.policy.members == []


async def test_members_come_with_the_rules_that_ask_for_them(site, monkeypatch):
    order = []
    monkeypatch.setattr(site.policy, "add_members", lambda members: note(order, members))
    monkeypatch.setattr(site.policy, "replace", lambda groups, **how: note(order, "groups"))
    await site.client.start()
    site.controller.extra = {"members": {"web": {"0": ["10.0.0.1"]}}}
    await site.controller.set_policy(3, "a")
    await until(lambda: len(order) == 2)
    assert order == [{"web": {0: ("10.0.0.1",)}}, "groups"]


async def note(order, what):
    order.append(what)


async def test_a_controller_without_policy_takes_none_away(site):
    await site.client.start()
    await site.controller.set_policy(2, "a")
    await until(lambda: site.policy.replaced == [["a"]])
    await until(lambda: site.controller.polls[-1] == 2)
    await site.controller.set_policy(0)
    await until(lambda: site.controller.polls[-1] == 0)
    await site.controller.set_policy(1, "c")  # a new database counts anew
    await until(lambda: site.policy.replaced == [["a"], ["c"]])


async def test_a_new_database_may_count_to_the_same_revision(site):
    await site.controller.set_policy(1, "a")
    await site.client.start()
    await until(lambda: site.policy.replaced == [["a"]])
    site.controller.policy = (1, [{"name": "b"}])  # the agent did not ask in between
    await until(lambda: site.policy.replaced == [["a"], ["b"]])


async def test_a_restart_takes_no_old_policy_again(site, conf):
    """What an operator loaded on this host since then stays until the controller has news."""
    await site.controller.set_policy(4, "a")
    await site.client.start()
    await until(lambda: site.policy.replaced == [["a"]])
    await site.client.close()
    site.client = ControllerClient(
        conf, inventory=site.inventory, policy=site.policy, epoch=lambda: 17
    )
    before = len(site.controller.polls)
    await site.client.start()
    await until(lambda: len(site.controller.polls) >= before + 2)
    assert set(site.controller.polls[before:]) == {4}
    assert site.policy.replaced == [["a"]]
    await site.controller.set_policy(5, "b")
    await until(lambda: site.policy.replaced == [["a"], ["b"]])


async def test_policy_that_this_host_cannot_take_is_tried_again(site, caplog):
    site.policy.error = RuntimeError("no room in the datapath")
    await site.controller.set_policy(1, "a")
    await site.client.start()
    await until(lambda: len(site.controller.polls) >= 3)
    assert site.client.status()["policy_revision"] == 0
    site.policy.error = None
    await until(lambda: site.policy.replaced == [["a"]])
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "no room" in warnings[0]


async def test_wrong_policy_is_refused_as_a_whole(site, caplog):
    site.controller.policy = (1, [{"name": "a"}, {"name": "b", "rules": [{"direction": "up"}]}])
    await site.client.start()
    await until(lambda: len(site.controller.polls) >= 2)
    assert site.policy.replaced == []
    assert "$.groups[1].rules[0].direction: 'up'" in caplog.text
    await site.controller.set_policy(2, "good")
    await until(lambda: site.policy.replaced == [["good"]])


async def test_locate(site):
    assert await site.client.locate(VM) is None  # not even started
    await site.client.start()
    assert await site.client.locate(VM) is None
    site.controller.instances[VM] = {"host": "h2", "migration_url": "http://h2:1"}
    assert await site.client.locate(VM) == ("h2", "http://h2:1")
    site.controller.instances[VM] = {"host": "h2", "migration_url": None}
    assert await site.client.locate(VM) is None
    site.controller.fail = {"/instances": 500}
    assert await site.client.locate(VM) is None


async def test_is_elsewhere(site):
    await site.client.start()
    assert await site.client.is_elsewhere(VM) is False
    site.controller.instances[VM] = {"host": "h1"}
    assert await site.client.is_elsewhere(VM) is False
    site.controller.instances[VM] = {"host": "h2"}
    assert await site.client.is_elsewhere(VM) is True
    site.controller.fail = {"/instances": 503}
    assert await site.client.is_elsewhere(VM) is None
    await site.server.close()
    assert await site.client.is_elsewhere(VM) is None


async def test_reports_are_sent_until_they_are_there_the_last_word_only(site):
    site.controller.fail = {"/migrations": 503}
    await site.client.start()
    await site.client.report_migration(REPORT)
    await site.client.report_migration(msgspec.structs.replace(REPORT, id="m2"))
    await until(lambda: site.controller.beats)
    done = msgspec.structs.replace(REPORT, phase=Phase.DONE)
    await site.client.report_migration(done)
    done.error = "changed after it was handed over"
    assert site.client.status()["reports_waiting"] == 2
    site.controller.fail = {}
    await until(lambda: site.client.status()["reports_waiting"] == 0)
    assert [identity for identity, _ in site.controller.reports] == ["m2", "m1"]
    sent = site.controller.reports[-1][1]
    assert (sent["host"], sent["phase"], sent["error"]) == ("h1", "done", None)


async def test_a_report_that_is_refused_does_not_hold_the_next(site, caplog):
    site.controller.fail = {"/migrations/m1": 422}
    await site.client.start()
    await site.client.report_migration(REPORT)
    await site.client.report_migration(msgspec.structs.replace(REPORT, id="m2"))
    await until(lambda: site.controller.reports)
    assert site.controller.reports[0][0] == "m2"
    assert "The report of migration m1 is refused" in caplog.text


async def test_reports_are_bounded(site, monkeypatch):
    monkeypatch.setattr(client_module, "MAX_REPORTS", 2)
    for n in range(4):
        await site.client.report_migration(msgspec.structs.replace(REPORT, id=str(n)))
    assert list(site.client._reports) == ["2", "3"]


async def test_an_outage_is_said_once_per_task_and_then_over(site, caplog):
    with caplog.at_level(logging.INFO):
        site.controller.fail = {"/v1": 503}
        await site.client.start()
        await until(lambda: len([r for r in caplog.records if r.levelno == logging.WARNING]) >= 4)
        site.controller.fail = {}
        await until(lambda: "Heartbeat to the controller: works again" in caplog.text)
        await until(lambda: "Policy from the controller: works again" in caplog.text)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == len(set(warned)) == 4


async def test_certificates_that_are_not_there_are_one_clear_error(conf, site):
    conf.set_override("ca_file", "/nowhere/ca.pem", group="controller")
    with pytest.raises(ControllerError, match="certificates"):
        await site.client.start()


@pytest.mark.parametrize(
    "answer", [b"", b"null", b"[1]", b"\xff\xff", b'{"host": "\xff"}', b"[" * 100_000]
)
@pytest.mark.parametrize("status", [200, 400, 404])
async def test_answers_that_are_none(site, answer, status):
    """Whatever stands where the controller should be: nobody knows, and nobody stumbles."""

    async def answer_all(_):
        return web.Response(body=answer, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer_all)
    async with TestServer(app) as server:
        site.client._conf.set_override("url", str(server.make_url("")), group="controller")
        await site.client.start()
        assert await site.client.locate(VM) is None
        assert await site.client.is_elsewhere(VM) is None
        await site.client.close()
