"""Opening the database: engines, and the schema brought up to date."""

import asyncio
from collections.abc import Callable
from importlib.resources import files
from typing import TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from vnet_controller.store import sqlite

T = TypeVar("T")


class Database:
    """Two engines on one database: one connection that writes, and a pool that only reads."""

    def __init__(self, url: str, *, busy_timeout: float) -> None:
        self.writer = create_async_engine(url, pool_size=1, max_overflow=0)
        self.reader = create_async_engine(url, pool_size=4, max_overflow=4)
        sqlite.prepare_engine(self.writer, busy_timeout=busy_timeout, writes=True)
        sqlite.prepare_engine(self.reader, busy_timeout=busy_timeout, writes=False)

    async def open(self) -> None:
        """Create or upgrade the schema; raises SQLAlchemyError when that cannot be done."""
        await migrate_schema(self.writer, lambda config: command.upgrade(config, "head"))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run `query` on one consistent snapshot and return its result."""
        async with self.reader.connect() as connection:
            return await connection.run_sync(query)

    async def close(self) -> None:
        await asyncio.gather(self.reader.dispose(), self.writer.dispose())


async def migrate_schema(engine: AsyncEngine, step: Callable[[Config], None]) -> None:
    """Run an alembic command, such as an upgrade, in one transaction of `engine`."""
    config = Config()
    config.set_main_option("script_location", str(files("vnet_controller") / "alembic"))

    def run(connection: Connection) -> None:
        config.attributes["connection"] = connection
        step(config)

    async with engine.begin() as connection:
        await connection.run_sync(run)
