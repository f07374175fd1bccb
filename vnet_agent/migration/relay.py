"""The VM's frames that its last host still gets, until all know the way here."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from vnet_agent import exceptions
from vnet_agent.handover.destination import Arriving, DestinationHandover
from vnet_agent.handover.outbox import Marker
from vnet_agent.migration import messages, wire
from vnet_agent.migration.peer import ERRORS, Peer, Refused

if TYPE_CHECKING:
    from vnet_agent.migration.destination import DestinationRunner

LOG = logging.getLogger(__name__)

_BACKOFF = (0.02, 1.0)
#: Streams that may break before no more frames are expected.
_ATTEMPTS = 8
#: Seconds for which the last MARK is waited for, and behind it for frames that come late.
_LAST = 1.0
_LATE = 0.1


class Relay:
    """Of one session; `run` in a task of its own. The migration goes on, whatever happens here."""

    def __init__(self, owner: "DestinationRunner") -> None:
        self._owner = owner
        self._number = 0
        self._token = 0
        self._broken = ""
        self._ready = asyncio.Event()
        self._arrived = asyncio.Event()
        options = owner.context.conf.migration
        self._handover = DestinationHandover(
            [Arriving(uuid=port.uuid, tap=port.tap) for port in owner.saved.ports],
            owner.context.driver,
            self._ask,
            queue=options.queue_frames,
        )
        self._room = options.buffer_mib << 20
        self._indices: list[int | None] = []
        """For each of the source's ports the one of this host."""
        self._greeted = asyncio.Event()

    async def run(self, peer: Peer) -> None:
        """Until frames come here straight, and what came late was fetched."""
        await self._owner.context.in_thread(self._handover.open)
        self._handover.listen()
        if not self._handover.active:
            return await self._end(peer)
        renewing = asyncio.create_task(self._handover.renew())
        pulling = asyncio.create_task(self._pull_all(peer))
        try:
            if self._ready.is_set():
                self._handover.ready()
            await self._until_learned(peer)
            await self._handover.drained()
            await asyncio.sleep(_LATE)
            await self._end(peer)
        finally:
            for task in (renewing, pulling):
                task.cancel()
            await asyncio.gather(renewing, pulling, return_exceptions=True)
            self.close()

    def ready(self) -> None:
        """Policy and connections are here."""
        self._ready.set()
        self._handover.ready()
        if self._handover.active:
            self._owner.spawn(self._handover.watch_first(), "first frame")

    def arrived(self) -> None:
        """The guest runs here."""
        self._arrived.set()

    def close(self) -> None:
        """Frames go straight from now on."""
        self._handover.close()

    # -- the order of frames

    async def _until_learned(self, peer: Peer) -> None:
        await self._arrived.wait()
        await self._ready.wait()
        try:
            async with asyncio.timeout(self._owner.context.conf.migration.relay_time):
                await self._handover.learned()
        except TimeoutError:
            LOG.info("Migration %s: nobody was seen to know the way here", self._owner.report.id)
            for index in self._handover.unlearned():
                await self._flush(peer, index, last=True)
            await asyncio.sleep(_LAST if not self._broken else 0)
            self._handover.source_ended()

    def _ask(self, index: int, outside: bool) -> None:
        if self._owner.peer is not None:
            self._owner.spawn(self._flush(self._owner.peer, index, last=outside), "flush")

    async def _flush(self, peer: Peer, index: int, *, last: bool) -> None:
        if not self._broken:
            await self._greeted.wait()
        if index not in self._indices:
            return self._handover.source_ended(index)
        self._token += 1
        theirs = self._indices.index(index)
        try:
            await peer.flush(self._owner.report.id, theirs, self._token, last=last)
        except (Refused, *ERRORS) as error:
            LOG.warning("Migration %s: no mark: %s", self._owner.report.id, error)
            self._end_of_frames(f"the source was not reached: {error}")

    # -- the stream

    async def _pull_all(self, peer: Peer) -> None:
        delay = _BACKOFF[0]
        for attempt in range(_ATTEMPTS):
            before = self._number
            try:
                if await self._pull(peer, attempt):
                    return self._handover.source_ended()
            except (Refused, exceptions.RecordError, *ERRORS) as error:
                detail = str(error) or type(error).__name__
                LOG.info("Migration %s: frames: %s", self._owner.report.id, detail)
                if isinstance(error, Refused) and error.status < 500:
                    break
            if self._number > before:
                delay = _BACKOFF[0]
            await asyncio.sleep(delay)
            delay = min(2 * delay, _BACKOFF[1])
        return self._end_of_frames("the stream of frames broke")

    def _end_of_frames(self, detail: str) -> None:
        self._broken = self._broken or detail
        self._greeted.set()
        self._handover.source_ended()

    async def _pull(self, peer: Peer, attempt: int) -> bool:
        """Whether the source has said that no more come."""
        decoder = wire.Decoder()
        session = self._owner.report.id
        async with peer.stream(session, attempt, frames_from=self._number) as body:
            async for data in body.iter_any():
                for frame in decoder.feed(data):
                    if isinstance(frame, wire.Abort):
                        self._broken = frame.reason
                        return True
                    self._take(frame)
                if self._handover.backlog() > self._room:
                    await self._ready.wait()  # and the source holds what it has
            decoder.finish()
        return True

    def _take(self, frame: wire.Frame) -> None:
        match frame:
            case wire.Hello():
                if frame.session != self._owner.report.id:
                    raise exceptions.RecordError(detail="the frames are another session's")
                self._indices = [self._index(port) for port in frame.ports]
                self._greeted.set()
            case wire.Frames():
                self._check(frame.number)
                self._number += len(frame.frames)
                index = self._indices[frame.port]
                if index is not None:
                    self._handover.take(index, frame.frames)
            case wire.Mark():
                self._check(frame.number)
                self._number = frame.number + 1
                index = self._indices[frame.port]
                if index is not None:
                    marker = Marker(port=index, token=frame.token, last=frame.last)
                    self._handover.take(index, [marker])

    def _check(self, number: int) -> None:
        if number != self._number:
            raise exceptions.RecordError(detail=f"frame {number} where {self._number} was due")

    def _index(self, port: wire.StreamPort) -> int | None:
        for index, mine in enumerate(self._owner.saved.ports):
            if port.uuid == mine.uuid or port.mac == mine.mac:
                return index
        return None

    # -- the report

    async def _end(self, peer: Peer) -> None:
        began = time.time_ns()
        try:
            reply = await peer.relayed(self._owner.report.id)
        except (Refused, *ERRORS) as error:
            LOG.info("Migration %s: no count of frames: %s", self._owner.report.id, error)
            return
        if self._handover.active or self._handover.tally.replayed:
            self._report(reply, (began + time.time_ns()) // 2)

    def _report(self, reply: messages.RelayedReply, middle_ns: int) -> None:
        """The source's clock is compared with this one by the request and its answer: as wrong
        as half of their time."""
        report, tally = self._owner.report, self._handover.tally
        report.frames_replayed = tally.replayed
        known = not self._broken and reply.lost is not None
        report.frames_lost = tally.lost + (reply.lost or 0) if known else None
        report.frames_duplicated = 0 if reply.exact and known else None
        if tally.first_ns is not None and reply.delivered_ns is not None:
            gap = tally.first_ns - reply.delivered_ns + reply.now_ns - middle_ns
            report.network_gap_ms = round(gap / 1e6, 3)
        detail = self._broken or ("" if reply.exact else reply.detail)
        if detail:
            self._owner.session.note(f"frames: {detail}")
