"""Delivery: every event reaches every sink, in order, whatever the sink does."""

import asyncio
import contextlib
import logging
import random

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from vnet_agent import config
from vnet_agent.events import delivery
from vnet_agent.events.controller_sink import ControllerSink
from vnet_agent.events.delivery import Deliveries, load_sinks
from vnet_agent.events.log import EventLog
from vnet_agent.events.sink import EventSink
from vnet_agent.exceptions import EventRefused, VnetError
from vnet_agent.model.event import Type


@pytest.fixture
def conf(tmp_path):
    conf = config.load([], state_dir=str(tmp_path))
    conf.set_override("host", "h1")
    conf.set_override("retry_min", 0.05, group="controller")
    conf.set_override("retry_max", 0.1, group="controller")
    conf.set_override("batch_size", 7, group="controller")
    return conf


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (others make it true)
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(conf, **sinks):
    log = EventLog(conf)
    await log.start()
    deliveries = Deliveries(conf, log, {name: sink(conf) for name, sink in sinks.items()} or None)
    await deliveries.start()
    try:
        yield log, deliveries
    finally:
        await deliveries.close()
        await log.close()


class Collector(EventSink):
    def __init__(self, conf):
        super().__init__(conf)
        self.got = []
        self.batches = []

    async def deliver(self, events):
        self.batches.append([event.subject for event in events])
        self.got += events
        return {event.id for event in events}


class FlakyController:
    """Stores by id, as the contract says, and fails in every way that a network has."""

    def __init__(self, seed):
        self.stored = {}
        self.requests = 0
        self.random = random.Random(seed)
        self.app = web.Application()
        self.app.router.add_post("/v1/events", self.post)

    async def post(self, request):
        self.requests += 1
        fate = self.random.choice(
            ["ok", "ok", "503", "drop before", "drop after", "partly", "429", "nonsense"]
        )
        events = await request.json()
        if fate == "503":
            return web.Response(status=503, text="later")
        if fate == "429":
            return web.json_response({"detail": "slower"}, status=429)
        if fate == "drop before":
            request.transport.close()
            return web.Response()
        if fate == "nonsense":
            return web.Response(text="<html>")
        if fate == "partly":
            events = events[: len(events) // 2]
        for event in events:
            self.stored.setdefault(event["id"], event)
        if fate == "drop after":
            request.transport.close()
        return web.json_response({"durable": [event["id"] for event in events]})


@pytest.mark.parametrize("seed", range(2))
async def test_a_flaky_controller_has_every_event_once(conf, seed):
    controller = FlakyController(seed)
    async with TestServer(controller.app) as server:
        conf.set_override("url", str(server.make_url("")), group="controller")
        async with running(conf, controller=ControllerSink) as (log, _):
            emitted = [await log.emit(Type.REBOOTED, str(n)) for n in range(60)]
            await until(lambda: len(controller.stored) == 60)
        async with running(conf, controller=ControllerSink) as (log, deliveries):
            emitted += [await log.emit(Type.REBOOTED, str(n)) for n in range(60, 80)]
            await until(lambda: len(controller.stored) == 80)
            await until(
                lambda: deliveries.status()["controller"]["acknowledged"] == emitted[-1].id
            )
            assert await log.unacknowledged("controller", 10) == []
    assert list(controller.stored) == [event.id for event in emitted]
    assert [event["subject"] for event in controller.stored.values()] == [
        str(n) for n in range(80)
    ]


async def test_a_controller_that_is_away_is_logged_once_and_loses_nothing(conf, caplog):
    server = TestServer(web.Application())
    await server.start_server()
    url = str(server.make_url(""))
    await server.close()
    conf.set_override("url", url, group="controller")
    async with running(conf, controller=ControllerSink) as (log, deliveries):
        event = await log.emit(Type.STARTED, "vm")
        await until(lambda: deliveries.status()["controller"]["failures"] >= 3)
        assert await log.unacknowledged("controller", 10) == [event]
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert url in warnings[0].getMessage()


async def test_events_go_in_batches_in_order(conf):
    async with running(conf, a=Collector) as (log, deliveries):
        await until(lambda: True)
        emitted = await asyncio.gather(*(log.emit(Type.STARTED, str(n)) for n in range(20)))
        sink = deliveries._sinks["a"]
        await until(lambda: len(sink.got) >= 20)
        assert sink.got == list(emitted)
        assert max(map(len, sink.batches)) <= 7


async def test_a_stuck_sink_does_not_hold_the_others(conf):
    class Stuck(Collector):
        async def deliver(self, events):
            await asyncio.Event().wait()

    async with running(conf, stuck=Stuck, good=Collector) as (log, deliveries):
        emitted = [await log.emit(Type.STARTED, str(n)) for n in range(10)]
        await until(lambda: deliveries._sinks["good"].got == emitted)
        assert await log.unacknowledged("stuck", 100) == emitted


async def test_a_refused_event_is_passed_over_and_named(conf, caplog):
    class Picky(Collector):
        async def deliver(self, events):
            if any(event.subject in ("3", "11") for event in events):
                raise EventRefused(detail="not that one")
            return await super().deliver(events)

    async with running(conf, picky=Picky) as (log, deliveries):
        await asyncio.gather(*(log.emit(Type.STARTED, str(n)) for n in range(20)))
        sink = deliveries._sinks["picky"]
        await until(lambda: len(sink.got) == 18)
        await until(lambda: deliveries.status()["picky"]["acknowledged"].endswith("20"))
        assert [int(e.subject) for e in sink.got] == [n for n in range(20) if n not in (3, 11)]
        assert deliveries.status()["picky"]["refused"] == 2
        assert len(await log.events(limit=100)) == 20  # it stays in the journal
    passed = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(passed) == 2
    assert "subject='3'" in passed[0]
    assert "not that one" in passed[0]


@pytest.mark.parametrize(
    ("status", "kind", "is_refused"),
    [
        (400, "problem+json", True),
        (413, "problem+json", True),
        (422, "problem+json", True),
        (404, "problem+json", False),
        (429, "problem+json", False),
        (500, "problem+json", False),
        (302, "problem+json", False),
        # A proxy that was sent plain HTTP, or has a limit of its own: nothing may be lost by it.
        (400, "json", False),
        (413, "json", False),
    ],
)
async def test_which_answers_are_final(conf, status, kind, is_refused):
    async def post(request):
        return web.json_response(
            {"detail": "because"}, status=status, content_type=f"application/{kind}"
        )

    app = web.Application()
    app.router.add_post("/v1/events", post)
    async with TestServer(app) as server:
        conf.set_override("url", str(server.make_url("/")), group="controller")
        sink = ControllerSink(conf)
        await sink.start()
        try:
            with pytest.raises(VnetError, match=f"{status}: because") as caught:
                await sink.deliver([])
            assert isinstance(caught.value, EventRefused) is is_refused
        finally:
            await sink.close()


async def test_a_new_epoch_is_delivered_from_its_beginning(conf, tmp_path):
    async with running(conf, a=Collector) as (log, deliveries):
        for n in range(5):
            await log.emit(Type.STARTED, str(n))
        await until(lambda: len(deliveries._sinks["a"].got) == 5)
    (tmp_path / "events.db").write_bytes(b"no database at all")
    async with running(conf, a=Collector) as (log, deliveries):
        event = await log.emit(Type.STARTED, "after")
        await until(lambda: event in deliveries._sinks["a"].got)
        assert [e.type for e in deliveries._sinks["a"].got] == [Type.AGENT_RESYNCED, Type.STARTED]


class Entry:
    def __init__(self, name, target):
        self.name, self._target = name, target

    def load(self):
        return self._target


@pytest.fixture
def entry_points(monkeypatch):
    class Manager:
        def __init__(self, namespace):
            assert namespace == "vnet_agent.event_sink"

        def list_entry_points(self):
            return [
                Entry("controller", ControllerSink),
                Entry("list", list),
                Entry("a", Collector),
            ]

    monkeypatch.setattr(delivery, "ExtensionManager", Manager)


def test_sinks_are_loaded_by_name_and_checked(conf, entry_points):
    conf.set_override("sinks", ["a", "controller", "a"], group="events")
    assert list(load_sinks(conf)) == ["a"]  # no controller is configured
    conf.set_override("url", "http://c", group="controller")
    assert list(load_sinks(conf)) == ["a", "controller"]
    conf.set_override("sinks", ["list"], group="events")
    with pytest.raises(VnetError, match="is no EventSink"):
        load_sinks(conf)
    conf.set_override("sinks", ["b"], group="events")
    with pytest.raises(VnetError, match="there is no 'b'; known are a, controller, list"):
        load_sinks(conf)
    conf.set_override("sinks", [], group="events")
    assert load_sinks(conf) == {}
