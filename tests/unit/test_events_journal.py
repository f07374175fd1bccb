"""The journal: durable, in order, without holes; a bad disk or database loses nothing silently."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import sqlite3
import sys
from pathlib import Path

import msgspec
import pytest
from cloudevents.v1.http import from_json

from vnet_agent import config
from vnet_agent.events.journal import Draft, Journal, Recorded, format_time
from vnet_agent.events.log import EventLog
from vnet_agent.exceptions import JournalError, UnknownEvent
from vnet_agent.model.event import Cause, Type

VM = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


@pytest.fixture
def conf(tmp_path):
    conf = config.load([], state_dir=str(tmp_path))
    conf.set_override("host", "h1")
    return conf


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (a thread makes it true)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(conf):
    log = EventLog(conf)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


async def test_an_event_is_a_cloudevent(conf):
    async with running(conf) as log:
        event = await log.emit(
            Type.STOPPED, VM, {"name": "vm1"}, cause=Cause.GUEST, time_ns=1_700_000_000_123_456_789
        )
    oracle = from_json(msgspec.json.encode(event))
    assert oracle["specversion"] == "1.0"
    assert oracle["id"] == event.id == f"h1/{event.epoch}/000000000001"
    assert oracle["source"] == "/hosts/h1"
    assert oracle["type"] == "vnet.instance.stopped"
    assert oracle["subject"] == VM
    assert oracle["time"] == "2023-11-14T22:13:20.123456Z"
    assert oracle["datacontenttype"] == "application/json"
    assert oracle["sequence"] == "000000000001"
    assert oracle["cause"] == "guest"
    assert oracle["inferred"] is False
    assert oracle.data == {"name": "vm1"}


def test_time_has_a_fixed_width():
    assert format_time(1_000) == "1970-01-01T00:00:00.000001Z"


async def test_order_and_sequence_go_on_after_a_restart(conf):
    async with running(conf) as log:
        tasks = [asyncio.create_task(log.emit(Type.REBOOTED, str(n))) for n in range(600)]
        first = [await task for task in tasks]
        epoch = log.epoch
    async with running(conf) as log:
        last = await log.emit(Type.STARTED, None)
        events = await log.events(limit=1000)
    assert [e.subject for e in first] == [str(n) for n in range(600)]
    assert [int(e.sequence) for e in events] == list(range(1, 602))
    assert events == [*first, last]
    assert {e.epoch for e in events} == {epoch}


async def test_reading(conf):
    async with running(conf) as log:
        ids = []
        for n in range(10):
            kind = Type.STARTED if n % 2 else Type.STOPPED
            ids.append((await log.emit(kind, VM if n < 6 else None)).id)

        async def read(**how):
            return [ids.index(event.id) for event in await log.events(**how)]

        assert await read(limit=3) == [0, 1, 2]
        assert await read(limit=3, after=ids[4]) == [5, 6, 7]
        assert await read(limit=2, latest=True) == [8, 9]
        assert await read(types=[Type.STARTED]) == [1, 3, 5, 7, 9]
        assert await read(types=["vnet.instance.started"], subject=VM) == [1, 3, 5]
        assert await read(subject="x' OR 1") == []
        older = f"h1/{log.epoch - 1}/000000000099"
        assert await read(after=older, limit=1) == [0]
        for foreign in ("x", "", f"h2/{log.epoch}/000000000001", f"h1/{log.epoch + 1}/{1:012d}"):
            with pytest.raises(UnknownEvent):
                await log.events(after=foreign)


async def test_data_is_what_it_was_when_emitted(conf):
    async with running(conf) as log:
        data = {"n": [1]}
        task = asyncio.create_task(log.emit(Type.STARTED, VM, data))
        await asyncio.sleep(0)
        data["n"].append(2)
        assert (await task).data == {"n": [1]}
        with pytest.raises(TypeError):
            await log.emit(Type.STARTED, VM, {"n": object()})
        with pytest.raises(ValueError):
            await log.emit(Type.STARTED, "\ud800")
        assert (await log.emit(Type.STARTED, VM)).sequence == "000000000002"


async def test_states_are_recorded_with_the_event(conf):
    async with running(conf) as log:
        state = Recorded(name="vm1", state="running")
        await log.emit(Type.STARTED, VM, record={VM: state, "b": state})
        await log.record({"b": None})
    async with running(conf) as log:
        assert await log.recorded() == {VM: state}


async def test_subscribers_get_all_from_then_on(conf):
    async with running(conf) as log:
        await log.emit(Type.STARTED, "before")
        subscription = log.subscribe()
        emitted = [await log.emit(Type.REBOOTED, str(n)) for n in range(5)]
        assert [await anext(subscription) for _ in range(5)] == emitted
        other = log.subscribe()
        await other.aclose()
        assert [event async for event in other] == []
    assert [event async for event in subscription] == []


async def test_a_lagging_subscriber_is_let_go(conf, monkeypatch):
    monkeypatch.setattr("vnet_agent.events.log._LAG", 3)
    async with running(conf) as log:
        subscription = log.subscribe()
        emitted = [await log.emit(Type.REBOOTED, str(n)) for n in range(5)]
        assert [event async for event in subscription] == emitted[:3]


async def test_trims_what_every_sink_has(conf):
    conf.set_override("journal_size", 1000, group="events")
    async with running(conf) as log:
        log.set_sinks(["a", "b"])
        events = await asyncio.gather(*(log.emit(Type.STARTED, str(n)) for n in range(1500)))

        async def kept():
            return [int(event.sequence) for event in await log.events(limit=5000)]

        await log.acknowledge("a", events[-1])
        assert len(await kept()) == 1500
        await log.acknowledge("b", events[99])
        assert (await kept())[0] == 101
        await log.acknowledge("b", events[-1])
        assert await kept() == list(range(501, 1501))
        await log.acknowledge("b", events[0])  # late news changes nothing
        assert await log.unacknowledged("b", 10) == []
        assert len(await log.unacknowledged("new", 10)) == 10
    async with running(conf) as log:
        assert (await log.emit(Type.STARTED, None)).sequence == f"{1501:012d}"


async def test_an_emptied_journal_does_not_begin_anew(conf):
    path = Path(conf.state_dir) / "events.db"
    journal = Journal(path, host="h1")
    journal.open()
    journal.append([Draft(type=Type.STARTED)] * 3)
    journal.acknowledge("a", 3)
    assert journal.trim(["a"], keep=0) == 3
    journal.close()
    journal.open()
    assert journal.append([Draft(type=Type.STARTED)])[0].sequence == f"{4:012d}"
    journal.close()


async def test_without_sinks_the_journal_is_bounded(conf, monkeypatch):
    monkeypatch.setattr("vnet_agent.events.log._TRIM_EVERY", 100)
    conf.set_override("journal_size", 1000, group="events")
    async with running(conf) as log:
        for _ in range(13):
            await asyncio.gather(*(log.emit(Type.STARTED, None) for _ in range(100)))
        kept = await log.events(limit=5000)
        assert 1000 <= len(kept) <= 1100
        assert kept[-1].sequence == f"{1300:012d}"


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path):
    """A power cut cannot be played here, so the settings that survive one are looked at."""
    journal = Journal(tmp_path / "events.db", host="h1")
    journal.open()
    full = 2  # https://sqlite.org/pragma.html#pragma_synchronous
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == full
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    journal.close()


async def test_closed_is_an_error_not_a_loss(conf):
    log = EventLog(conf)
    await log.close()
    log = EventLog(conf)
    with pytest.raises(JournalError):
        await log.emit(Type.STARTED, None)
    await log.start()
    task = asyncio.create_task(log.emit(Type.STARTED, None))
    await asyncio.sleep(0)
    await log.close()
    assert (await task).sequence == f"{1:012d}"
    with pytest.raises(JournalError, match="not open"):
        await log.emit(Type.STARTED, None)


def refuse(monkeypatch, times, error):
    """The next `times` transactions fail as a disk makes them fail."""
    left = [times]
    append = Journal.append

    def failing(self, drafts):
        if left[0]:
            left[0] -= 1
            raise error
        return append(self, drafts)

    monkeypatch.setattr(Journal, "append", failing)


async def test_a_full_disk_is_one_error_and_nothing_is_lost(conf, monkeypatch, caplog):
    monkeypatch.setattr("vnet_agent.events.writer._RETRY_MIN", 0.001)
    async with running(conf) as log:
        refuse(monkeypatch, 4, sqlite3.OperationalError("database or disk is full"))
        with caplog.at_level(logging.INFO):
            emitted = await asyncio.gather(*(log.emit(Type.STARTED, str(n)) for n in range(3)))
        assert await log.events() == emitted
        assert log.status()["error"] is None
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "disk is full" in errors[0].getMessage()
    assert any("can be written again" in record.getMessage() for record in caplog.records)


async def test_a_disk_full_to_the_end_fails_the_callers(conf, monkeypatch, caplog):
    log = EventLog(conf)
    await log.start()
    refuse(monkeypatch, -1, OSError(errno.ENOSPC, "No space left"))
    task = asyncio.create_task(log.emit(Type.STARTED, "vm-that-started"))
    await until(lambda: log.status()["error"])
    await log.close()
    with pytest.raises(JournalError, match="No space"):
        await task
    assert "vm-that-started" in caplog.text


async def test_a_disk_that_is_really_full(conf):
    """SQLite itself says so, in the middle of a transaction, and takes it all back."""
    async with running(conf) as log:
        first = await log.emit(Type.STARTED, "first")
        limit = await log._writer.call(lambda j: j._db.execute("PRAGMA page_count").fetchone()[0])
        await log._writer.call(lambda j: j._db.execute(f"PRAGMA max_page_count = {limit}"))
        big = {"text": "x" * 200_000}
        task = asyncio.create_task(log.emit(Type.STARTED, "second", big))
        await until(lambda: log.status()["error"])
        assert "full" in log.status()["error"]
        assert not task.done()
        lift(log._journal)
        second = await task
        assert await log.events() == [first, second]
        assert second.sequence == f"{2:012d}"


async def test_a_full_disk_can_be_looked_at(conf, monkeypatch):
    """`vnetctl status` and the delivery of what is on disk already do not wait for the disk."""
    async with running(conf) as log:
        log.set_sinks(["controller"])
        first = await log.emit(Type.STARTED, "first")
        refuse(monkeypatch, -1, OSError(errno.ENOSPC, "No space left"))
        tasks = [asyncio.create_task(log.emit(Type.STARTED, "second"))]
        await until(lambda: log.status()["error"])
        tasks.append(asyncio.create_task(log.emit(Type.STARTED, "third")))
        async with asyncio.timeout(30):
            assert await log.pending() == 1
            assert await log.unacknowledged("controller", 10) == [first]
        assert not any(task.done() for task in tasks)
        monkeypatch.undo()
        emitted = await asyncio.gather(*tasks)
        assert await log.events() == [first, *emitted]


def lift(journal):
    """Raise the limit from within a retry: the thread is busy with the drafts."""
    append = journal.append

    def lifting(drafts):
        journal._db.execute("PRAGMA max_page_count = 1000000")
        return append(drafts)

    journal.append = lifting


async def test_a_file_that_is_no_database_is_set_aside(conf, tmp_path, caplog):
    (tmp_path / "events.db").write_bytes(b"this is no database" * 100)
    async with running(conf) as log:
        event = await log.emit(Type.STARTED, VM)
        events = await log.events()
    assert [e.type for e in events] == [Type.AGENT_RESYNCED, Type.STARTED]
    assert events[1] == event
    kept = Path(events[0].data["set_aside"])
    assert kept.read_bytes().startswith(b"this is no")
    assert caplog.text.count("is damaged") == 1


async def test_damage_while_running_begins_a_new_epoch(conf, tmp_path, monkeypatch):
    async with running(conf) as log:
        before = await log.emit(Type.STARTED, "a")
        damage = sqlite3.DatabaseError("database disk image is malformed")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        refuse(monkeypatch, 1, damage)
        after = await log.emit(Type.STARTED, "b")
        events = await log.events()
    assert after.epoch > before.epoch
    assert [e.type for e in events] == [Type.AGENT_RESYNCED, Type.STARTED]
    assert events[1] == after
    assert len(list(tmp_path.glob("events.db.damaged-*"))) >= 1


async def test_damaged_pages_are_found_at_start(conf, tmp_path):
    async with running(conf) as log:
        await asyncio.gather(*(log.emit(Type.STARTED, "x" * 500) for _ in range(200)))
        epoch = log.epoch
    path = tmp_path / "events.db"
    data = bytearray(path.read_bytes())
    data[8192:20480] = b"\xa5" * 12288
    path.write_bytes(data)
    async with running(conf) as log:
        assert log.epoch > epoch
        assert [e.type for e in await log.events()] == [Type.AGENT_RESYNCED]


async def test_two_agents_do_not_share_a_journal(conf):
    async with running(conf):
        other = EventLog(conf)
        with pytest.raises(JournalError, match="locked"):
            await other.start()


async def test_a_journal_of_the_future_is_refused(conf, tmp_path):
    async with running(conf):
        pass
    db = sqlite3.connect(tmp_path / "events.db")
    db.execute("UPDATE meta SET version = 99")
    db.commit()
    db.close()
    with pytest.raises(JournalError, match="version 99"):
        await EventLog(conf).start()


CHILD = """
import asyncio, sys
from vnet_agent import config
from vnet_agent.events.log import EventLog
from vnet_agent.model.event import Type

async def main():
    conf = config.load([], state_dir=sys.argv[1])
    conf.set_override("host", "h1")
    log = EventLog(conf)
    await log.start()

    async def emit(lane):
        n = 0
        while True:
            n += 1
            event = await log.emit(Type.REBOOTED, f"{lane}-{n}")
            sys.stdout.write(event.id + "\\n")
            sys.stdout.flush()

    await asyncio.gather(*(emit(lane) for lane in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("printed_before_kill", [1, 37, 400])
async def test_what_emit_returned_survives_sigkill(conf, tmp_path, printed_before_kill):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path), stdout=asyncio.subprocess.PIPE, env=environment
    )
    printed = [(await child.stdout.readline()).decode() for _ in range(printed_before_kill)]
    child.send_signal(signal.SIGKILL)
    printed += (await child.stdout.read()).decode().splitlines(keepends=True)
    await child.wait()
    printed = [line.strip() for line in printed if line.endswith("\n")]

    async with running(conf) as log:
        events = await log.events(limit=1_000_000)
    ids = [event.id for event in events]
    assert set(printed) <= set(ids)
    assert len(printed) >= printed_before_kill
    assert [int(event.sequence) for event in events] == list(range(1, len(events) + 1))
    for lane in range(8):  # each lane's events are in the order of its calls, none missing
        mine = [e.subject for e in events if e.subject.startswith(f"{lane}-")]
        assert mine == [f"{lane}-{n}" for n in range(1, len(mine) + 1)]


def test_the_json_form_has_no_surprises():
    draft = Draft(type=Type.STARTED, data={"a": 1})
    event = Journal(Path("x"), host="h")._make(draft, Type.STARTED, 7)
    assert set(json.loads(msgspec.json.encode(event))) == {
        "id", "source", "type", "time", "sequence", "epoch", "subject", "inferred", "cause",
        "data", "specversion", "datacontenttype",
    }  # fmt: skip
