"""The schema's way up and down, the writer's transactions, and forgetting."""

import asyncio
import json
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from controller_support import VM, call, make_event, make_report, post_events, run_server
from sqlalchemy.engine import Connection

from vnet_controller.intake import JSON, Limits, decode_events
from vnet_controller.metrics import Metrics
from vnet_controller.store import ingest, journal, retention
from vnet_controller.store.database import Database, migrate_schema
from vnet_controller.store.schema import EVENTS, METADATA
from vnet_controller.store.writer import Overloaded, Writer


def make_database(directory: Any) -> Database:
    return Database(f"sqlite+aiosqlite:///{directory}/controller.db", busy_timeout=5)


def decode(*events: dict[str, Any]) -> Any:
    return decode_events(json.dumps(events).encode(), JSON, Limits(1000, 65536))


async def test_up_with_data_down_and_up_again(tmp_path: Any) -> None:
    database = make_database(tmp_path)
    try:
        await database.open()
        report = make_report()
        events = decode(make_event(), make_event("migration.completed", "beta", data=report))
        store = partial(ingest.ingest_events, incoming=events, now_us=1)
        async with database.writer.begin() as connection:
            await connection.run_sync(store)
        await database.open()  # an upgrade of what is up to date keeps the data
        page = await database.read(
            lambda c: journal.read_after(c, after=0, limit=10, wanted=journal.Filter())
        )
        assert [row.id for row in page.rows] == [item.event.id for item in events]
        await migrate_schema(database.writer, lambda config: command.downgrade(config, "base"))
        tables = await database.read(lambda c: sa.inspect(c).get_table_names())
        assert tables == ["alembic_version"]
        await database.open()
        assert await database.read(journal.read_head) == 0
    finally:
        await database.close()


async def test_the_schema_and_its_history_agree(tmp_path: Any) -> None:
    database = make_database(tmp_path)
    try:
        await database.open()

        def compare(connection: Connection) -> Any:
            return compare_metadata(MigrationContext.configure(connection), METADATA)

        assert await database.read(compare) == []
    finally:
        await database.close()


async def test_a_failed_upgrade_leaves_nothing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vnet_controller.alembic.versions import v0001_first

    database = make_database(tmp_path)
    monkeypatch.setattr("alembic.op.bulk_insert", lambda *_: 1 / 0)
    assert v0001_first.down_revision is None
    try:
        with pytest.raises(ZeroDivisionError):
            await database.open()
        assert await database.read(lambda c: sa.inspect(c).get_table_names()) == []
        monkeypatch.undo()
        await database.open()
    finally:
        await database.close()


async def test_commits_reach_the_disk_and_readers_cannot_write(tmp_path: Any) -> None:
    database = make_database(tmp_path)
    try:
        await database.open()

        def pragma(name: str, connection: Connection) -> Any:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

        async with database.writer.connect() as connection:
            assert await connection.run_sync(partial(pragma, "synchronous")) == 2
            assert await connection.run_sync(partial(pragma, "journal_mode")) == "wal"
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            await database.read(lambda c: c.execute(sa.delete(EVENTS)))
    finally:
        await database.close()


async def test_requests_that_wait_together_share_a_commit(tmp_path: Any) -> None:
    database, metrics = make_database(tmp_path), Metrics()
    writer = Writer(database.writer, metrics, group=64, waiting=100)
    try:
        await database.open()
        events = [decode(make_event()) for _ in range(20)]
        jobs = [partial(ingest.ingest_events, incoming=one, now_us=1) for one in events]
        order: list[int] = []
        running = [
            asyncio.create_task(writer.run(job, lambda rows: order.append(rows[0].position)))
            for job in jobs
        ]
        await asyncio.sleep(0)
        writer.start()
        await asyncio.gather(*running)
        assert order == list(range(1, 21))
        registry = metrics.registry
        assert registry.get_sample_value("vnet_controller_commit_jobs_count") == 1
        assert registry.get_sample_value("vnet_controller_commit_jobs_sum") == 20
    finally:
        await writer.close()
        await database.close()


async def test_one_bad_job_harms_no_other(tmp_path: Any) -> None:
    database = make_database(tmp_path)
    writer = Writer(database.writer, Metrics(), group=64, waiting=100)
    try:
        await database.open()

        def spoil(connection: Connection) -> None:
            connection.execute(sa.delete(EVENTS))
            raise ValueError("spoilt")

        first, last = decode(make_event()), decode(make_event())
        running = [
            asyncio.create_task(writer.run(work))
            for work in (
                partial(ingest.ingest_events, incoming=first, now_us=1),
                spoil,
                partial(ingest.ingest_events, incoming=last, now_us=1),
            )
        ]
        await asyncio.sleep(0)
        writer.start()
        results = await asyncio.gather(*running, return_exceptions=True)
        assert isinstance(results[1], ValueError)
        assert await database.read(journal.read_head) == 2
    finally:
        await writer.close()
        await database.close()


async def test_too_many_waiting_writes_are_refused(tmp_path: Any) -> None:
    database = make_database(tmp_path)
    writer = Writer(database.writer, Metrics(), group=64, waiting=1)
    try:
        await database.open()
        waiting = asyncio.create_task(writer.run(journal.read_head))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await writer.run(journal.read_head)
        writer.start()
        assert await waiting == 0
    finally:
        await writer.close()
        await database.close()


async def test_what_is_old_is_forgotten_and_positions_go_on(tmp_path: Any) -> None:
    async with run_server(tmp_path) as (server, session):
        await post_events(
            session, make_event(subject="ended"), make_event("stopped", subject="ended")
        )
        await post_events(
            session, make_event(), make_event("migration.completed", data=make_report())
        )
        forget = server.services.writer.run
        assert await forget(partial(retention.forget_old, before_us=1)) == 0
        assert await forget(partial(retention.forget_old, before_us=2**62)) == 4
        page = await call(session, "GET", "/v1/events")
        assert page == {"events": [], "cursor": 4}
        left = (await call(session, "GET", "/v1/instances"))["instances"]
        assert [instance["uuid"] for instance in left] == [VM]
        assert (await call(session, "GET", "/v1/migrations"))["migrations"] == []
        await post_events(session, make_event())
        assert (await call(session, "GET", "/v1/events?after=4"))["cursor"] == 5


async def test_the_running_controller_forgets_by_itself(tmp_path: Any) -> None:
    from controller_support import wait_until

    options = {"database__retention_days": 1e-7, "database__retention_interval": 1.0}
    async with run_server(tmp_path, **options) as (_, session):
        await post_events(session, make_event())

        async def is_empty() -> bool:
            return not (await call(session, "GET", "/v1/events"))["events"]

        await wait_until(is_empty)
