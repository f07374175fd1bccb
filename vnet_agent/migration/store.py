"""Reports and open sessions on disk: what a restarted agent goes on from."""

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from vnet_agent.model.migration import Report
from vnet_agent.model.port import Port

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: Reports that are kept, the last ones.
LIMIT = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS report (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, body BLOB NOT NULL);
"""


class OpenSession(msgspec.Struct, kw_only=True):
    """A destination's session that is not over; enough to go on with it after a restart.

    `source_host` and `source_url` are empty until a source answered; `announced` says whether
    the event of its start was emitted.
    """

    id: str
    instance: str
    instance_name: str
    ports: tuple[Port, ...]
    started_ns: int
    generation: int = 0
    source_host: str = ""
    source_url: str = ""
    guest_started: bool = False
    announced: bool = False


class Store:
    """One SQLite file; all work on it in one thread of its own, in the order of the calls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="migration-store")
        self._database: sqlite3.Connection | None = None
        self._reports: dict[str, Report] = {}

    async def open(self) -> list[OpenSession]:
        """Read everything; a file that cannot be read is set aside, and an empty one made."""
        return await self._run(self._open)

    async def close(self) -> None:
        await self._run(self._close)
        self._thread.shutdown()

    def reports(self) -> list[Report]:
        """The newest last."""
        return list(self._reports.values())

    def find(self, session: str) -> Report | None:
        return self._reports.get(session)

    def add(self, report: Report) -> None:
        """Show it from now on; `save` makes it last."""
        self._reports[report.id] = report
        while len(self._reports) > LIMIT:
            del self._reports[next(iter(self._reports))]

    async def save(self, report: Report) -> None:
        body = msgspec.json.encode(report)
        await self._run(lambda: self._save_report(report.id, body))

    async def save_session(self, session: OpenSession) -> None:
        body = msgspec.json.encode(session)
        await self._run(
            lambda: self._execute("INSERT OR REPLACE INTO session VALUES (?, ?)", session.id, body)
        )

    async def drop_session(self, session: str) -> None:
        await self._run(lambda: self._execute("DELETE FROM session WHERE id = ?", session))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> list[OpenSession]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._load()
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            self._close()
            aside = self._path.with_name(f"{self._path.name}.unreadable")
            LOG.error("%s cannot be read (%s); set aside as %s", self._path, error, aside)
            os.replace(self._path, aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._path}{suffix}")
            return self._load()

    def _load(self) -> list[OpenSession]:
        self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)
        rows = self._database.execute("SELECT body FROM report ORDER BY number")
        reports = [msgspec.json.decode(body, type=Report) for (body,) in rows]
        self._reports = {report.id: report for report in reports}
        rows = self._database.execute("SELECT body FROM session ORDER BY rowid")
        return [msgspec.json.decode(body, type=OpenSession) for (body,) in rows]

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _save_report(self, session: str, body: bytes) -> None:
        self._execute(
            "INSERT INTO report (id, body) VALUES (?, ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            session,
            body,
        )
        self._execute(
            "DELETE FROM report WHERE number <= (SELECT MAX(number) FROM report) - ?", LIMIT
        )

    def _execute(self, statement: str, *values: object) -> None:
        if self._database is not None:
            self._database.execute(statement, values)
