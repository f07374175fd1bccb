"""All that is particular to SQLite; no other file may assume it."""

from typing import Any

from sqlalchemy import BigInteger, Integer, event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeEngine

#: A 64-bit key that SQLite uses as its rowid, so that it needs no second index.
POSITION: TypeEngine[int] = BigInteger().with_variant(Integer, "sqlite")


def prepare_engine(engine: AsyncEngine, *, busy_timeout: float, writes: bool) -> None:
    """Make `engine`'s connections durable and its transactions explicit; others stay untouched.

    WAL lets readers go on while the writer commits; synchronous=FULL flushes each commit to the
    disk. Python's driver would begin transactions late and only before some statements, so it is
    told not to, and BEGIN is said here: IMMEDIATE where writing is meant, so that no transaction
    fails halfway for want of the lock.
    """
    if engine.dialect.name != "sqlite":
        return
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA query_only = {int(not writes)}")
        cursor.close()

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", connect)
    event.listen(engine.sync_engine, "begin", start)
