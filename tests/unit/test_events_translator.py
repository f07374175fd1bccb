"""What libvirt sends, as it was measured, and what must come of it: one row, one test."""

import asyncio

import pytest

from vnet_agent import config
from vnet_agent.bus import Bus
from vnet_agent.events import causes, lifecycle, translator
from vnet_agent.events.log import EventLog
from vnet_agent.model.event import Cause, Type
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState

VM = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
SECOND = 1_000_000_000


class Host:
    """A translator between a bus and a log, told of things and asked what it made of them."""

    def __init__(self, conf):
        self.conf = conf
        self.clock = 1_700_000_000 * SECOND
        self.elsewhere = None
        self.asked = []

    async def start(self):
        self.log, self.bus = EventLog(self.conf), Bus()
        await self.log.start()
        ask = self._ask if self.elsewhere is not None else None
        self.translator = translator.Translator(self.conf, self.bus, self.log, elsewhere=ask)
        await self.translator.start()

    async def _ask(self, uuid):
        self.asked.append(uuid)
        answer = self.elsewhere[uuid]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stop(self):
        await self.bus.drain()
        await self.translator.close()
        await self.bus.close()
        await self.log.close()

    async def restart(self):
        await self.stop()
        await self.start()

    def send(self, *names, uuid=VM, step=SECOND // 100):
        """`STOPPED/FAILED` is a lifecycle event, `+2` two seconds, any other word a kind."""
        for name in names:
            if name.startswith("+"):
                self.clock += int(float(name) * SECOND)
                continue
            self.clock += step
            event, _, detail = name.partition("/")
            kind = "lifecycle" if detail else name.lower()
            self.bus.publish(
                DomainEvent(
                    kind=kind,
                    uuid=uuid,
                    name="vm1",
                    event=event if detail else "",
                    detail=detail,
                    time_ns=self.clock,
                )
            )

    async def told(self, uuid=VM):
        """Everything about the instance: `type cause`, with a `~` before what is inferred."""
        await self.bus.drain()
        await self.translator.close()
        events = await self.log.events(limit=10_000, subject=uuid)
        return [
            f"{'~' if event.inferred else ''}{event.type.rpartition('.')[2]} {event.cause}"
            for event in events
        ]

    async def listing(self, *states, uuid=VM):
        """A full listing: `running`, or `paused/user`; nothing is a domain that is gone."""
        domains = []
        for number, text in enumerate(states):
            state, _, reason = text.partition("/")
            domains.append(
                DomainState(
                    uuid=uuid if number == 0 else f"other-{number}",
                    name="vm1",
                    state=state,
                    reason=reason or "unknown",
                )
            )
        await self.translator.resync(domains)

    def age(self):
        """As if the last events were long ago."""
        self.translator._seen.clear()
        self.translator._started.clear()


@pytest.fixture
async def host(tmp_path, monkeypatch):
    monkeypatch.setattr(translator, "SETTLE", 60.0)
    conf = config.load([], state_dir=str(tmp_path))
    conf.set_override("host", "h1")
    host = Host(conf)
    await host.start()
    yield host
    await host.stop()


START = ("RESUMED/UNPAUSED", "STARTED/BOOTED")
SAVE = ("SUSPENDED/PAUSED", "migration-iteration", "job-completed", "STOPPED/SAVED")

SCENARIOS = {
    "start": (START, ["started operator"]),
    "start paused": (
        ("STARTED/BOOTED", "SUSPENDED/PAUSED", "RESUMED/UNPAUSED"),
        ["started operator", "suspended operator", "resumed operator"],
    ),
    "reboot twice as sent": (
        (*START, "REBOOT", "REBOOT"),
        ["started operator", "rebooted unknown"],
    ),
    "reboot three times as sent": (
        (*START, "REBOOT", "REBOOT", "REBOOT"),
        ["started operator", "rebooted unknown"],
    ),
    "two reboots": (
        (*START, "REBOOT", "REBOOT", "+2", "REBOOT", "REBOOT", "REBOOT"),
        ["started operator", "rebooted unknown", "rebooted unknown"],
    ),
    "suspend, resume": (
        (*START, "SUSPENDED/PAUSED", "RESUMED/UNPAUSED"),
        ["started operator", "suspended operator", "resumed operator"],
    ),
    "attach, detach": ((*START, "device-added", "device-removed"), ["started operator"]),
    "guest poweroff": (
        (*START, "SHUTDOWN/GUEST", "STOPPED/SHUTDOWN"),
        ["started operator", "stopped guest"],
    ),
    "destroy": (
        (*START, "SHUTDOWN/HOST", "STOPPED/DESTROYED"),
        ["started operator", "stopped operator"],
    ),
    "destroy without warning": (
        (*START, "STOPPED/DESTROYED"),
        ["started operator", "stopped operator"],
    ),
    "QEMU told to end": (
        (*START, "SHUTDOWN/HOST", "STOPPED/SHUTDOWN"),
        ["started operator", "stopped operator"],
    ),
    "shutdown by nobody known": (
        (*START, "SHUTDOWN/FINISHED", "STOPPED/SHUTDOWN"),
        ["started operator", "stopped unknown"],
    ),
    "kill -9 of QEMU": ((*START, "STOPPED/FAILED"), ["started operator", "crashed host"]),
    "kill -9 of QEMU while suspended": (
        (*START, "SUSPENDED/PAUSED", "STOPPED/FAILED"),
        ["started operator", "suspended operator", "crashed host"],
    ),
    "panic, destroy": (
        (*START, "CRASHED/PANICKED", "STOPPED/CRASHED"),
        ["started operator", "crashed guest"],
    ),
    "panic, destroy, paused first": (
        (*START, "SUSPENDED/PAUSED", "CRASHED/PANICKED", "STOPPED/CRASHED"),
        ["started operator", "crashed guest"],
    ),
    "panic, restart": (
        (*START, "SUSPENDED/PAUSED", "CRASHED/PANICKED", "REBOOT", "RESUMED/UNPAUSED", "REBOOT"),
        ["started operator", "crashed guest", "rebooted host"],
    ),
    "panic, preserve, destroyed later": (
        (*START, "CRASHED/PANICKED", "+60", "SHUTDOWN/HOST", "STOPPED/DESTROYED"),
        ["started operator", "crashed guest", "stopped operator"],
    ),
    "crash that only ends": ((*START, "STOPPED/CRASHED"), ["started operator", "crashed guest"]),
    "panic again after a restart": (
        (*START, "CRASHED/PANICKED", "RESUMED/UNPAUSED", "CRASHED/PANICKED", "STOPPED/CRASHED"),
        ["started operator", "crashed guest", "crashed guest"],
    ),
    "managed save": (
        (*START, *SAVE),
        ["started operator", "suspended operator", "stopped operator"],
    ),
    "managed save, restore": (
        (*START, *SAVE, "STARTED/RESTORED", "RESUMED/FROM_SNAPSHOT"),
        ["started operator", "suspended operator", "stopped operator", "started operator"],
    ),
    "I/O error": (
        (*START, "SUSPENDED/IOERROR", "RESUMED/UNPAUSED"),
        ["started operator", "suspended host", "resumed operator"],
    ),
    "watchdog": ((*START, "SUSPENDED/WATCHDOG"), ["started operator", "suspended guest"]),
    "sleep and wake-up": (
        (*START, "PMSUSPENDED/MEMORY", "STARTED/WAKEUP"),
        ["started operator", "suspended guest", "resumed unknown"],
    ),
    "migration, source": (
        (*START, "migration-iteration", "SUSPENDED/MIGRATED", "STOPPED/MIGRATED", "job-completed"),
        ["started operator"],
    ),
    "migration, destination": (
        ("STARTED/MIGRATED", "DEFINED/ADDED", "RESUMED/MIGRATED"),
        [],
    ),
    "migrated here, then off": (
        ("STARTED/MIGRATED", "RESUMED/MIGRATED", "SHUTDOWN/GUEST", "STOPPED/SHUTDOWN"),
        ["stopped guest"],
    ),
    "migration fails at switchover, source": (
        (*START, "SUSPENDED/MIGRATED", "RESUMED/UNPAUSED", "SHUTDOWN/GUEST", "STOPPED/SHUTDOWN"),
        ["started operator", "stopped guest"],
    ),
    "migration fails, destination": (("STARTED/MIGRATED", "STOPPED/FAILED"), []),
    "migration fails before it came": (("STOPPED/FAILED",), []),
    "migration of a suspended guest, source": (
        (*START, "SUSPENDED/PAUSED", "STOPPED/MIGRATED"),
        ["started operator", "suspended operator"],
    ),
    "migration of a suspended guest, destination": (
        ("STARTED/MIGRATED", "SUSPENDED/PAUSED", "RESUMED/UNPAUSED"),
        ["resumed operator"],
    ),
    "there and back": (
        (
            *START, "SUSPENDED/MIGRATED", "STOPPED/MIGRATED",
            "STARTED/MIGRATED", "RESUMED/MIGRATED", "STOPPED/FAILED",
        ),
        ["started operator", "crashed host"],
    ),
    "post-copy, source": (
        (*START, "SUSPENDED/POSTCOPY", "STOPPED/MIGRATED"),
        ["started operator"],
    ),
    "post-copy, destination": (("STARTED/MIGRATED", "RESUMED/POSTCOPY", "RESUMED/MIGRATED"), []),
    "post-copy that breaks": (
        ("STARTED/MIGRATED", "RESUMED/POSTCOPY", "SUSPENDED/POSTCOPY_FAILED"),
        ["suspended host"],
    ),
    "started again without a stop": (
        (*START, "+60", *START),
        ["started operator", "~stopped unknown", "started operator"],
    ),
    "details of a later libvirt": (
        ("STARTED/NEW", "SUSPENDED/NEW", "RESUMED/NEW", "NEW/NEW", "STOPPED/NEW"),
        ["started unknown", "suspended unknown", "resumed unknown", "stopped unknown"],
    ),
    "a hint holds for one stop only": (
        (*START, "SHUTDOWN/GUEST", "STOPPED/SHUTDOWN", *START, "STOPPED/SHUTDOWN"),
        ["started operator", "stopped guest", "started operator", "stopped unknown"],
    ),
    "a shutdown that became a reboot": (
        (*START, "SHUTDOWN/GUEST", "REBOOT", "RESUMED/UNPAUSED", "STOPPED/SHUTDOWN"),
        ["started operator", "rebooted unknown", "stopped unknown"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(host, name):
    sent, told = SCENARIOS[name]
    host.send(*sent)
    assert await host.told() == told


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario_then_resync_says_nothing_new(host, name):
    """After each scenario the records agree with what libvirt would list."""
    sent, told = SCENARIOS[name]
    host.send(*sent)
    await host.told()
    host.age()
    state = host.translator._state(VM)
    listed = {
        lifecycle.RUNNING: ["running/booted"],
        lifecycle.PAUSED_STATE: ["paused/user"],
        lifecycle.CRASHED: ["crashed/panicked"],
        None: [],
    }[state]
    await host.listing(*listed)
    assert await host.told() == told


def test_every_row_of_the_table_is_an_event_of_libvirt():
    names = {
        "DEFINED": "ADDED UPDATED RENAMED FROM_SNAPSHOT",
        "UNDEFINED": "REMOVED RENAMED",
        "STARTED": "BOOTED MIGRATED RESTORED FROM_SNAPSHOT WAKEUP",
        "SUSPENDED": "PAUSED MIGRATED IOERROR WATCHDOG RESTORED FROM_SNAPSHOT API_ERROR POSTCOPY "
        "POSTCOPY_FAILED",
        "RESUMED": "UNPAUSED MIGRATED FROM_SNAPSHOT POSTCOPY POSTCOPY_FAILED",
        "STOPPED": "SHUTDOWN DESTROYED CRASHED MIGRATED SAVED FAILED FROM_SNAPSHOT",
        "SHUTDOWN": "FINISHED GUEST HOST",
        "PMSUSPENDED": "MEMORY DISK",
        "CRASHED": "PANICKED CRASHLOADED",
    }
    assert {event for event, _ in causes.LIFECYCLE} == set(names)
    for event, detail in causes.LIFECYCLE:
        assert detail == "*" or detail in names[event].split()


async def test_time_is_when_it_happened_and_data_says_what(host):
    host.send(*START)
    await host.told()
    (event,) = await host.log.events(subject=VM)
    assert event.time.startswith("2023-11-14T22:13:20.02")
    assert event.data == {"name": "vm1", "reason": "started/booted"}


async def test_instances_do_not_mix(host):
    host.send(*START)
    host.send(*START, uuid="b")
    host.send("REBOOT", "SHUTDOWN/GUEST")
    host.send("REBOOT", "STOPPED/SHUTDOWN", uuid="b")
    assert await host.told() == ["started operator", "rebooted unknown"]
    assert await host.told("b") == ["started operator", "rebooted unknown", "stopped unknown"]


async def test_a_pause_is_told_by_itself_after_a_while(host, monkeypatch):
    monkeypatch.setattr(translator, "SETTLE", 0.0)
    news = host.log.subscribe()
    host.send(*START, "SUSPENDED/PAUSED")
    async with asyncio.timeout(20):
        assert [(await anext(news)).type for _ in range(2)] == [Type.STARTED, Type.SUSPENDED]


async def test_a_pause_held_back_is_told_at_the_end(host):
    host.send(*START, "SUSPENDED/PAUSED")
    await host.bus.drain()
    await host.restart()
    assert await host.told() == ["started operator", "suspended operator"]


RESYNC = [
    # recorded by, listed as (none: gone), told
    ((), ["running/booted"], ["~started unknown"]),
    ((), ["blocked"], ["~started unknown"]),
    ((), ["paused/user"], ["~started unknown", "~suspended operator"]),
    ((), ["paused/migration"], []),
    ((), ["paused/starting-up"], []),
    ((), ["shutoff/shutdown"], []),
    ((), ["shutoff/failed"], []),
    ((), [], []),
    (START, ["running"], []),
    (START, ["nostate"], []),
    (START, ["shutdown"], []),
    (START, ["paused/user"], ["~suspended operator"]),
    (START, ["paused/ioerror"], ["~suspended host"]),
    (START, ["paused/watchdog"], ["~suspended guest"]),
    (START, ["paused/migration"], []),
    (START, ["paused/save"], []),
    (START, ["paused/snapshot"], []),
    (START, ["paused/crashed"], ["~crashed guest"]),
    (START, ["pmsuspended"], ["~suspended guest"]),
    (START, ["crashed/panicked"], ["~crashed guest"]),
    (START, ["shutoff/shutdown"], ["~stopped unknown"]),
    (START, ["shutoff/destroyed"], ["~stopped operator"]),
    (START, ["shutoff/crashed"], ["~crashed guest"]),
    (START, ["shutoff/failed"], ["~crashed host"]),
    (START, ["shutoff/saved"], ["~stopped operator"]),
    (START, ["shutoff/daemon"], ["~stopped unknown"]),
    (START, ["shutoff/migrated"], []),
    (START, [], ["~stopped unknown"]),
    ((*START, "SUSPENDED/PAUSED"), ["running"], ["~resumed unknown"]),
    ((*START, "SUSPENDED/PAUSED"), ["paused/user"], []),
    ((*START, "SUSPENDED/PAUSED"), [], ["~stopped unknown"]),
    ((*START, "CRASHED/PANICKED"), ["crashed/panicked"], []),
    ((*START, "CRASHED/PANICKED"), ["shutoff/crashed"], []),
    ((*START, "CRASHED/PANICKED"), ["running"], ["~started unknown"]),
    ((*START, "SUSPENDED/MIGRATED"), [], []),
    ((*START, "SUSPENDED/MIGRATED"), ["running"], []),
    ((*START, "SUSPENDED/MIGRATED"), ["shutoff/migrated"], []),
    ((*START, "SUSPENDED/MIGRATED"), ["shutoff/destroyed"], ["~stopped operator"]),
    (("STARTED/MIGRATED",), [], []),
    (("STARTED/MIGRATED",), ["running/migrated"], []),
    (("STARTED/MIGRATED",), ["paused/migration"], []),
    (("STARTED/MIGRATED",), ["paused/user"], []),
    (("STARTED/MIGRATED",), ["shutoff/failed"], []),
    ((*START, "SUSPENDED/MIGRATED", "STOPPED/MIGRATED"), [], []),
]


@pytest.mark.parametrize("over", ["reconnect", "restart"])
@pytest.mark.parametrize(("sent", "listed", "told"), RESYNC)
async def test_resync(host, sent, listed, told, over):
    host.send(*sent)
    before = await host.told()
    if over == "restart":
        await host.restart()
    else:
        host.bus.publish(ConnectionChange(connected=False))
        host.bus.publish(ConnectionChange(connected=True))
    await host.listing(*listed)
    assert (await host.told())[len(before) :] == told
    host.age()
    await host.listing(*listed)  # and it is told once only
    assert (await host.told())[len(before) :] == told


async def test_a_reconnect_is_told_once_with_what_it_found(host):
    async def resyncs():
        events = await host.log.events(types=[Type.AGENT_RESYNCED])
        return [event.data for event in events]

    await host.listing("running", "running")
    assert await resyncs() == [{"instances": 2, "differences": 2}]
    host.age()
    await host.listing("running", "running")  # the periodic one, nothing new
    assert len(await resyncs()) == 1
    host.bus.publish(ConnectionChange(connected=True))
    await host.listing("running", "running")
    assert (await resyncs())[1:] == [{"instances": 2, "differences": 0}]


async def test_the_agent_says_that_it_started(host):
    await host.restart()
    assert len(await host.log.events(types=[Type.AGENT_STARTED])) == 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (True, []),
        (False, ["~stopped unknown"]),
        (None, []),
        (RuntimeError("controller is away"), []),
    ],
)
async def test_vanished_in_the_gap(host, answer, told):
    host.elsewhere = {VM: answer}
    await host.restart()
    host.send(*START)
    before = await host.told()
    host.age()
    await host.listing()
    assert (await host.told())[len(before) :] == told
    assert host.asked == [VM]


async def test_a_stop_is_told_when_the_controller_is_back(host):
    host.elsewhere = {VM: None, "b": None}
    await host.restart()
    host.send(*START)
    host.send(*START, uuid="b")
    await host.told()
    host.age()
    await host.listing()
    assert host.asked == [VM]  # an answer that did not come once is not waited for again
    host.elsewhere |= {VM: False, "b": True}
    await host.restart()
    await host.listing()
    assert await host.told() == ["started operator", "~stopped unknown"]
    assert await host.told("b") == ["started operator"]


async def test_an_old_listing_does_not_outweigh_fresh_news(host):
    host.send(*START)
    await host.listing()  # made before the start
    assert await host.told() == ["started operator"]
    host.send("SHUTDOWN/GUEST", "STOPPED/SHUTDOWN")
    await host.listing("running")  # made before the stop
    assert await host.told() == ["started operator", "stopped guest"]


async def test_a_listing_waits_for_the_news_before_it(host):
    host.send(*START, "SHUTDOWN/GUEST", "STOPPED/SHUTDOWN")
    await host.listing("shutoff/shutdown")
    assert await host.told() == ["started operator", "stopped guest"]


async def test_a_start_that_the_listing_told_is_not_told_again(host):
    await host.listing("running")
    host.send(*START)
    assert await host.told() == ["~started unknown"]
    host.send("STOPPED/DESTROYED", *START)
    assert (await host.told())[1:] == ["stopped operator", "started operator"]


async def test_a_stop_that_the_listing_told_is_not_told_again(host):
    host.send(*START)
    await host.told()
    host.age()
    await host.listing("shutoff/destroyed")
    host.send("SHUTDOWN/HOST", "STOPPED/DESTROYED", *START)
    assert await host.told() == ["started operator", "~stopped operator", "started operator"]


STATES = (
    None,
    lifecycle.RUNNING,
    lifecycle.PAUSED_STATE,
    lifecycle.CRASHED,
    lifecycle.INCOMING,
    lifecycle.LEAVING,
)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("meaning", sorted(set(causes.LIFECYCLE.values()), key=repr), ids=repr)
def test_what_is_told_of_a_stop_leaves_nothing_recorded(state, meaning):
    outcome = lifecycle.advance(state, meaning)
    kinds = [told.type for told in outcome.told]
    if kinds and kinds[-1] is Type.STOPPED:
        assert outcome.state is None
    if state is None and meaning.move is not causes.Move.START:
        assert kinds == []
    assert all(isinstance(told.cause, Cause) for told in outcome.told)


async def test_a_listing_that_took_long_invents_nothing(host, monkeypatch):
    """A slow hook of another VM holds a listing up for longer than news count as fresh."""
    host.send("STARTED/BOOTED", "RESUMED/UNPAUSED", "SHUTDOWN/GUEST", "STOPPED/SHUTDOWN")
    told = await host.told()
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + 10)
    listed = [DomainState(uuid=VM, name="vm1", state="running", reason="booted")]
    await host.translator.resync(listed, age=12.0)
    assert await host.told() == told
    await host.translator.resync(listed, age=1.0)
    assert await host.told() == [*told, "~started unknown"]
