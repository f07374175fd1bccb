"""The journal's database: what happened, how far each sink has it, and each instance's state.

Used by one thread at a time. An event gets its sequence when it is committed, not before: what
could not be written leaves no hole.
"""

import contextlib
import datetime
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from vnet_agent.exceptions import JournalError
from vnet_agent.files import replace_file
from vnet_agent.model.event import Cause, Event, Type

LOG = logging.getLogger(__name__)

VERSION = 1
SEQUENCE_WIDTH = 12

#: Primary result codes (https://sqlite.org/rescode.html) of a file that is no sound database.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_SCHEMA = """
CREATE TABLE meta (version INTEGER NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    subject TEXT,
    body BLOB NOT NULL
);
CREATE INDEX events_subject ON events (subject, sequence);
CREATE INDEX events_type ON events (type, sequence);
CREATE TABLE sinks (name TEXT PRIMARY KEY, acknowledged INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE instances (uuid TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL)
    WITHOUT ROWID;
"""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An instance's last recorded state; an instance that is off is not recorded."""

    name: str
    state: str


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written in one transaction: an event, changes of recorded states, or both.

    In `record` None forgets the instance.
    """

    type: Type | None = None
    subject: str | None = None
    data: dict[str, Any] = {}
    cause: Cause = Cause.UNKNOWN
    inferred: bool = False
    time_ns: int = 0
    record: Mapping[str, Recorded | None] = {}


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged, so that trying again cannot help."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC with microseconds, of nanoseconds since 1970."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


class Journal:
    """One database file; every method but `open` needs it open. Raises sqlite3.Error."""

    def __init__(self, path: Path, *, host: str) -> None:
        self.path = path
        self.epoch = 0
        self.last = 0
        self._host = host
        self._db: sqlite3.Connection | None = None

    @property
    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError("the journal is closed")
        return self._db

    # -- life

    def open(self) -> None:
        """Open the journal or make a new one, of a new epoch."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=1.0)
        try:
            self._prepare(self._db)
        except BaseException:
            self.close()
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            with self._transaction():
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                row = (VERSION, self._next_epoch())
                db.execute("INSERT INTO meta VALUES (?, ?)", row)
                db.execute(f"PRAGMA user_version = {VERSION}")
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            error = sqlite3.DatabaseError(problem)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        version, self.epoch = db.execute("SELECT version, epoch FROM meta").fetchone()
        if version != VERSION:
            detail = f"{self.path} has version {version}, this agent writes {VERSION}"
            raise JournalError(detail=detail)
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        self.last = row[0] if row else 0

    def _next_epoch(self) -> int:
        """Seconds since 1970, and more than any epoch before, even if the clock went back."""
        path = self.path.with_name(self.path.name + ".epoch")
        before = 0
        with contextlib.suppress(OSError, ValueError):
            before = int(path.read_text())
        epoch = max(int(time.time()), before + 1)
        replace_file(path, str(epoch).encode())
        return epoch

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def set_aside(self) -> Path:
        """Move a damaged database out of the way; the next `open` begins a new epoch."""
        self.close()
        kept = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(str(kept) + suffix)
        return kept

    # -- writing

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        db = self._open_db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
            raise

    def append(self, drafts: Sequence[Draft]) -> list[Event | None]:
        """Write all drafts, or none, durably; returns their events, None for a mere record."""
        events: list[Event | None] = []
        last = self.last
        with self._transaction() as db:
            for draft in drafts:
                event = None
                if draft.type is not None:
                    last += 1
                    event = self._make(draft, draft.type, last)
                    row = (last, event.type.value, event.subject, msgspec.json.encode(event))
                    db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", row)
                events.append(event)
                self._record(db, draft.record)
        self.last = last
        return events

    def _make(self, draft: Draft, kind: Type, number: int) -> Event:
        sequence = f"{number:0{SEQUENCE_WIDTH}d}"
        return Event(
            id=f"{self._host}/{self.epoch}/{sequence}",
            source=f"/hosts/{self._host}",
            type=kind,
            time=format_time(draft.time_ns),
            sequence=sequence,
            epoch=self.epoch,
            subject=draft.subject,
            inferred=draft.inferred,
            cause=draft.cause,
            data=draft.data,
        )

    @staticmethod
    def _record(db: sqlite3.Connection, record: Mapping[str, Recorded | None]) -> None:
        for uuid, recorded in record.items():
            if recorded is None:
                db.execute("DELETE FROM instances WHERE uuid = ?", (uuid,))
            else:
                row = (uuid, recorded.name, recorded.state)
                db.execute("INSERT OR REPLACE INTO instances VALUES (?, ?, ?)", row)

    def acknowledge(self, sink: str, number: int) -> None:
        """Note that `sink` has everything up to sequence `number`; never goes back."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO sinks VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET "
                "acknowledged = max(acknowledged, excluded.acknowledged)",
                (sink, number),
            )

    def trim(self, sinks: Iterable[str], *, keep: int) -> int:
        """Remove what every sink has, except the last `keep` events; returns how many."""
        upto = min([self.last - keep, *(self.acknowledged(sink) for sink in sinks)])
        with self._transaction() as db:
            cursor = db.execute("DELETE FROM events WHERE sequence <= ?", (upto,))
        return int(cursor.rowcount)

    # -- reading

    def acknowledged(self, sink: str) -> int:
        query = "SELECT acknowledged FROM sinks WHERE name = ?"
        row = self._open_db.execute(query, (sink,)).fetchone()
        return int(row[0]) if row else 0

    def count(self) -> int:
        return int(self._open_db.execute("SELECT count(*) FROM events").fetchone()[0])

    def instances(self) -> dict[str, Recorded]:
        rows = self._open_db.execute("SELECT uuid, name, state FROM instances")
        return {uuid: Recorded(name=name, state=state) for uuid, name, state in rows}

    def read(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        types: Iterable[str] = (),
        subject: str | None = None,
        latest: bool = False,
    ) -> list[Event]:
        """Events with a sequence above `after`, in order: the first `limit`, or the latest."""
        where = ["sequence > ?"]
        values: list[Any] = [after]
        if wanted := [str(kind) for kind in types]:
            where.append(f"type IN ({','.join('?' * len(wanted))})")
            values += wanted
        if subject is not None:
            where.append("subject = ?")
            values.append(subject)
        order = "DESC" if latest else "ASC"
        query = f"SELECT body FROM events WHERE {' AND '.join(where)} ORDER BY sequence {order}"
        rows = self._open_db.execute(f"{query} LIMIT ?", [*values, limit]).fetchall()
        events = [msgspec.json.decode(body, type=Event) for (body,) in rows]
        return events[::-1] if latest else events
