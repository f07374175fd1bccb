"""What runs one session: takes news, performs the actions, keeps the report."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from oslo_config import cfg

from vnet_agent.datapath.base import Driver
from vnet_agent.migration import seams
from vnet_agent.migration.session import Action, News, Session
from vnet_agent.migration.store import Store
from vnet_agent.migration.totals import Totals
from vnet_agent.model.migration import Phase, Report, Step

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: News that say nothing about the guest: they do not put the idle time-out off.
_NOISE = frozenset({News.STREAM_OPENED, News.STREAM_BROKEN, News.COPIED, News.TIMEOUT})


class Context:
    """What all sessions of a manager share."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        inventory: seams.Inventory,
        driver: Driver,
        events: seams.EventLog,
        controller: seams.Controller | None,
        store: Store,
        executor: Executor,
        *,
        find_domain: seams.FindDomain | None = None,
    ) -> None:
        self.conf = conf
        self.host: str = conf.host
        self.inventory = inventory
        self.driver = driver
        self.events = events
        self.controller = controller
        self.store = store
        self.find_domain = find_domain
        self.totals = Totals()
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._executor = executor

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run a blocking call; when cancelled, still wait for it: what it does is done then."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise


class Runner:
    """One session on one host.

    `post` changes the session at once and wakes what is urgent; everything that waits is done
    in order by one task. `finished` is set when the session is over and its report is stored.
    """

    def __init__(self, context: Context, session: Session, report: Report) -> None:
        self.context = context
        self.session = session
        self.report = report
        self.finished = asyncio.Event()
        self._actions: asyncio.Queue[list[Action]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._steps = 0
        self._heard = time.monotonic()
        self._record_steps()

    @property
    def over(self) -> bool:
        return self.session.over

    def start(self) -> None:
        self.context.store.add(self.report)
        self.spawn(self._work(), "session")

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run in the background; an exception is logged, and the session goes on."""
        task = asyncio.create_task(work, name=f"{name} of {self.report.id}")
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def post(self, news: News, detail: str = "") -> None:
        """Take news; in the event loop's thread only."""
        if self.session.over:
            return
        if news not in _NOISE:
            self.touch()
        before = len(self.session.passed)
        actions = [a for a in self.session.handle(news, detail) if not self._perform_now(a)]
        self._record_steps()
        if actions or len(self.session.passed) > before:
            self._actions.put_nowait(actions)

    def touch(self) -> None:
        """The other side is alive: the idle time-out starts anew."""
        self._heard = time.monotonic()

    async def close(self) -> None:
        """Stop without a word: a restarted agent goes on with the session."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            await asyncio.sleep(0)

    # -- for the two sides

    def _perform_now(self, action: Action) -> bool:
        """Do what must not wait behind other work; False leaves it to `_perform`."""
        del action
        return False

    async def _perform(self, action: Action) -> None:
        raise NotImplementedError

    async def _begin(self) -> None:
        """Before the first action."""

    async def _publish(self, *, last: bool) -> None:
        """After each change of the session, before the report is stored; once with `last`."""

    # -- inside

    async def _work(self) -> None:
        await self._begin()
        if not self.session.over:
            await self._record()
        while not (self.session.over and self._actions.empty()):
            try:
                async with asyncio.timeout(self._remaining()):
                    actions = await self._actions.get()
            except TimeoutError:
                if self._remaining() <= 0:
                    self.touch()
                    self.post(News.TIMEOUT)
                continue
            for action in actions:
                await self._try(action)
            if not self.session.over:
                await self._record()
        await self._record()
        self.finished.set()

    def _remaining(self) -> float:
        timeout: float = self.context.conf.migration.idle_timeout
        return max(0.0, self._heard + timeout - time.monotonic())

    async def _try(self, action: Action) -> None:
        LOG.debug("Migration %s: %s", self.report.id, action.name)
        try:
            await self._perform(action)
        except Exception as error:
            LOG.exception("Migration %s: %s failed", self.report.id, action.name)
            self.report.error = self.report.error or f"{action.name.lower()}: {error}"

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("Migration: %s failed", task.get_name(), exc_info=error)

    def _record_steps(self) -> None:
        for phase, detail in self.session.passed[self._steps :]:
            self._steps += 1
            self.report.steps.append(Step(phase=phase, time_ns=time.time_ns(), detail=detail))
            LOG.info(
                "Migration %s of %s (%s): %s%s",
                self.report.id,
                self.report.instance_name,
                self.report.side,
                phase.value,
                f": {detail}" if detail else "",
            )
        self.report.phase = self.session.phase
        self.report.error = self.report.error or self.session.error

    async def _record(self) -> None:
        """The report of a session that is over is stored only after its last event: a restarted
        agent would take it for told."""
        last = self.session.over
        try:
            await self._publish(last=last)
            if self.session.over and not last:
                return
            await self.context.store.save(self.report)
        except Exception:
            LOG.exception("Migration %s: the report could not be stored", self.report.id)
        if self.context.controller is not None:
            copy = msgspec.structs.replace(self.report, steps=list(self.report.steps))
            self.spawn(self.context.controller.report_migration(copy), "report")


def is_over(report: Report) -> bool:
    return report.phase in (Phase.DONE, Phase.ABORTED)
