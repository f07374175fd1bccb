"""Pulls the state of a migrating VM's ports, stream after stream until one came whole."""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from vnet_agent import exceptions
from vnet_agent.datapath.base import ImportResult
from vnet_agent.migration import wire
from vnet_agent.migration.peer import ERRORS, Peer, Refused
from vnet_agent.migration.session import News

if TYPE_CHECKING:
    from vnet_agent.migration.destination import DestinationRunner

LOG = logging.getLogger(__name__)

_BACKOFF = (0.05, 2.0)
#: Streams that may be found corrupt before the state is given up.
_CORRUPT = 5
#: Streams that may break once the guest is here: a source that only ever begins is no help.
_LATE = 20
#: Answers "I do not have it" that are believed once the guest is here: its agent may be starting.
_ABSENT = 4
#: Seconds in which the source must take note of FINAL; only a number of the report needs it.
_CONFIRM = 1.0


class _Broken(Exception):
    """This stream ended early; another may be opened."""


class Puller:
    """Imports are idempotent: a new stream starts with a full copy again, and its counts too."""

    def __init__(self, owner: "DestinationRunner") -> None:
        self._owner = owner
        self._attempt = 0
        self._corrupt = 0
        self._late = 0
        self._absent = 0
        self._ports: list[str | None] = []
        self._moved = 0
        self._over = False

    async def run(self) -> None:
        """Until FINAL is imported or there is no more hope; cancelled when the session ends."""
        delay = _BACKOFF[0]
        while not self._over:
            peer = self._owner.peer
            assert peer is not None
            before = self._attempt, self._moved
            try:
                await self._pull(peer)
            except Refused as error:
                await self._refused(error)
            except (_Broken, exceptions.DatapathError, *ERRORS) as error:
                self._broken(str(error) or type(error).__name__)
            except exceptions.RecordError as error:
                self._corrupted(error)
            except exceptions.VnetError as error:
                self._give_up(f"import failed: {error}")
            if self._over:
                return
            if self._moved > before[1]:
                delay = _BACKOFF[0]
            await asyncio.sleep(delay)
            delay = min(2 * delay, _BACKOFF[1])

    async def _pull(self, peer: Peer) -> None:
        self._attempt += 1
        async with peer.stream(self._owner.report.id, self._attempt) as body:
            decoder = wire.Decoder()
            self._owner.post(News.STREAM_OPENED)
            async for data in body.iter_any():
                if self._owner.session.arrived:
                    self._owner.touch()
                for frame in decoder.feed(data):
                    await self._take(peer, frame)
            decoder.finish()

    async def _take(self, peer: Peer, frame: wire.Frame) -> None:
        report = self._owner.report
        match frame:
            case wire.Hello():
                self._greet(frame)
            case wire.Records():
                await self._import(frame)
            case wire.RoundEnd():
                report.precopy_rounds = frame.round + 1
                if frame.round == 0:
                    report.connections_moved = self._moved
                    self._owner.post(News.COPIED, f"full copy: {self._moved} connections")
            case wire.Final():
                report.precopy_rounds = max(0, frame.rounds - 1)
                await self._confirm(peer)
                self._over = True
                self._owner.post(News.FINAL_IMPORTED)
                # Only now: the guest does not wait until they are counted.
                report.connections_moved = await self._count()
            case wire.Abort(verdict=wire.Verdict.RETRY):
                raise _Broken(frame.reason)
            case wire.Abort(verdict=wire.Verdict.KEPT):
                self._over = True
                self._owner.post(News.SOURCE_KEPT, frame.reason)
            case wire.Abort():
                self._give_up(f"the source ended the stream: {frame.reason}")

    def _greet(self, hello: wire.Hello) -> None:
        report = self._owner.report
        if (hello.session, hello.attempt) != (report.id, self._attempt):
            raise exceptions.RecordError(detail="the stream is another session's", offset=0)
        held = self._owner.context.inventory.of_instance(report.instance)
        here = {state.port.uuid for state in held}
        mine = [port for port in self._owner.saved.ports if port.uuid in here]
        by_uuid = {port.uuid: port.uuid for port in mine}
        by_mac = {port.mac: port.uuid for port in mine}
        self._ports = [by_uuid.get(p.uuid) or by_mac.get(p.mac) for p in hello.ports]
        for port, target in zip(hello.ports, self._ports, strict=True):
            if target is None:
                report.error = report.error or f"port {port.uuid} of the source is not here"
        self._moved = 0
        report.connections_refused = {}

    async def _import(self, records: wire.Records) -> None:
        port = self._ports[records.port]
        if port is None:
            return
        driver = self._owner.context.driver
        result: ImportResult = await self._owner.context.in_thread(
            lambda: driver.import_records(port, records.data)
        )
        self._moved += result.moved
        refused = self._owner.report.connections_refused
        for reason, count in result.refused.items():
            if count:
                refused[reason] = refused.get(reason, 0) + count

    async def _count(self) -> int:
        """Connections now in the ports' tables: each counts once, however often it was sent."""
        driver = self._owner.context.driver
        total = 0
        for port in filter(None, self._ports):
            try:
                counters = await self._owner.context.in_thread(partial(driver.counters, port))
            except exceptions.VnetError as error:
                LOG.warning("Migration %s: %s", self._owner.report.id, error)
                return self._moved
            total += counters.connections
        return total

    async def _confirm(self, peer: Peer) -> None:
        try:
            async with asyncio.timeout(_CONFIRM):
                reply = await peer.imported(self._owner.report.id)
        except (Refused, *ERRORS) as error:
            LOG.info("Migration %s: FINAL not confirmed: %s", self._owner.report.id, error)
            return
        self._owner.report.final_delta_ms = reply.final_delta_ms

    # -- what went wrong

    async def _refused(self, error: Refused) -> None:
        """404: the source has restarted, and the session must be opened there anew."""
        if error.status != 404 and error.status < 500:
            return self._give_up(str(error))
        self._broken(str(error))
        try:
            await self._owner.reopen()
        except Refused as again:
            if again.status != 404 and again.status < 500:
                return self._give_up(str(again))
            if self._owner.session.arrived:
                self._absent += 1
            if self._absent >= _ABSENT:
                return self._give_up("the source does not have the port any more")
        except ERRORS as again:
            LOG.info("Migration %s: no answer: %s", self._owner.report.id, again)
        else:
            self._absent = 0
            if self._owner.session.arrived:
                await self._owner.ask_final()
        return None

    def _corrupted(self, error: exceptions.RecordError) -> None:
        self._corrupt += 1
        if self._corrupt >= _CORRUPT:
            return self._give_up(f"{_CORRUPT} streams were corrupt, the last: {error}")
        return self._broken(str(error))

    def _broken(self, detail: str) -> None:
        self._late += self._owner.session.arrived
        if self._late > _LATE:
            return self._give_up(f"too many streams broke, the last: {detail}")
        LOG.warning("Migration %s: stream broken: %s", self._owner.report.id, detail)
        return self._owner.post(News.STREAM_BROKEN, detail)

    def _give_up(self, reason: str) -> None:
        self._over = True
        self._owner.post(News.NO_STATE, reason)
