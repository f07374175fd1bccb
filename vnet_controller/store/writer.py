"""The one writer: requests that arrive together share a transaction and its flush to the disk."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from vnet_controller.metrics import Metrics

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Overloaded(Exception):
    """So many writes wait that a further one would only make it worse."""


@dataclass(frozen=True)
class Job:
    work: Callable[[Connection], Any]
    committed: Callable[[Any], None] | None
    done: asyncio.Future[Any]


class Writer:
    """Commits jobs in the order in which they were given.

    A job is a function of a connection. It may run more than once: when a transaction that it
    shares fails, each of its jobs is tried alone, so that one bad job harms no other.
    """

    def __init__(self, engine: AsyncEngine, metrics: Metrics, *, group: int, waiting: int) -> None:
        self._engine = engine
        self._metrics = metrics
        self._group = group
        self._queue: asyncio.Queue[Job | None] = asyncio.Queue(waiting)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop(), name="writer")

    async def close(self) -> None:
        """Commit what waits, then end."""
        if self._task is not None:
            await self._queue.put(None)
            await self._task

    async def run(
        self, work: Callable[[Connection], T], committed: Callable[[T], None] | None = None
    ) -> T:
        """Return what `work` returned, once that is durable.

        `committed` is called with it before anybody is answered, in the order of the commits.
        Raises Overloaded, or what `work` or the commit raised; nothing of it is then stored.
        """
        job = Job(work, committed, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull:
            raise Overloaded from None
        result: T = await job.done
        return result

    async def _loop(self) -> None:
        ending = False
        while not ending:
            jobs = [await self._queue.get()]
            while len(jobs) < self._group and not self._queue.empty():
                jobs.append(self._queue.get_nowait())
            ending = None in jobs
            await self._commit([job for job in jobs if job is not None])

    async def _commit(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        try:
            with self._metrics.commit_seconds.time():
                async with self._engine.begin() as connection:
                    results = await connection.run_sync(_run_all, jobs)
        except Exception as error:
            if len(jobs) > 1:
                LOG.warning("A shared transaction failed, its jobs are tried alone: %s", error)
                for job in jobs:
                    await self._commit([job])
            elif not jobs[0].done.done():
                jobs[0].done.set_exception(error)
            return
        self._metrics.commit_jobs.observe(len(jobs))
        for job, result in zip(jobs, results, strict=True):
            if job.committed is not None:
                job.committed(result)
            if not job.done.done():
                job.done.set_result(result)


def _run_all(connection: Connection, jobs: list[Job]) -> list[Any]:
    return [job.work(connection) for job in jobs]
