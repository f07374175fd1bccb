"""The host that the guest leaves: streams the state of its ports, and lets go of them."""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from vnet_agent import exceptions
from vnet_agent.datapath.records import without_translations
from vnet_agent.handover.outbox import Frame, Marker
from vnet_agent.handover.source import Departing, SourceHandover
from vnet_agent.migration import messages, wire
from vnet_agent.migration.room import in_order
from vnet_agent.migration.runner import Context, Runner
from vnet_agent.migration.session import Action, News, SourceSession
from vnet_agent.model.migration import Phase, Report

LOG = logging.getLogger(__name__)

Write = Callable[[bytes], Awaitable[None]]

#: Seconds beyond `relay_time` in which the destination says that it needs no more frames.
_PATIENCE = 5.0
#: How long libvirt's statistics may come after the guest has gone, in seconds.
_STATISTICS = 0.25


class SourceRunner(Runner):
    """One migration away from this host.

    `settled` is set once the state has come that the VM's way to this host has left behind it.
    """

    session: SourceSession

    def __init__(
        self,
        context: Context,
        request: messages.OpenRequest,
        ports: tuple[wire.StreamPort, ...],
        instance_name: str,
        version: int,
        settled: asyncio.Event | None = None,
    ) -> None:
        generation = max(port.generation for port in ports)
        super().__init__(
            context,
            SourceSession(),
            Report(
                id=request.session,
                instance=request.instance,
                instance_name=instance_name,
                side="source",
                source=context.host,
                destination=request.destination,
                generation=generation,
            ),
        )
        self.reply = messages.OpenReply(
            session=request.session,
            host=context.host,
            generation=generation,
            ports=ports,
            version=version,
            transfer=request.transfer and context.conf.migration.transfer_state,
        )
        self.handover: SourceHandover | None = None
        if version >= wire.HANDOVER and context.conf.migration.hand_over_frames:
            self.handover = self._make_handover()
        self.began_ns = time.time_ns()
        self._settled = settled
        self._room = request.room
        self.departed = asyncio.Event()
        """All the state that will go has gone: the ports' connections are not needed any more."""
        self._relayed = asyncio.Event()
        self._frames_stream: object | None = None
        self._wake = asyncio.Event()
        self._stream: object | None = None
        self._suspended_ns: int | None = None
        self._downtime = asyncio.Event()

    def post(self, news: News, detail: str = "") -> None:
        super().post(news, detail)
        if self.over or self.session.final_sent:
            self.departed.set()

    # -- news from libvirt

    def guest_paused(self, time_ns: int) -> None:
        if not self.over:
            self._suspended_ns = time_ns or time.time_ns()
        self.post(News.GUEST_PAUSED)

    def measured_downtime(self, milliseconds: float | None) -> None:
        """libvirt's own statistics of the finished job."""
        if milliseconds is not None:
            self.report.vcpu_pause_ms = milliseconds
        self._downtime.set()
        if self.finished.is_set():
            self.spawn(self.context.store.save(self.report), "report")

    # -- requests of the destination

    def imported(self) -> messages.ImportedReply:
        """FINAL is imported there. From SUSPENDED to this news, all on this host's clock: too
        long by the way back of one message, never too short."""
        if self._suspended_ns is not None and self.report.final_delta_ms is None:
            elapsed = (time.time_ns() - self._suspended_ns) / 1e6
            self.report.final_delta_ms = round(elapsed, 3) if elapsed >= 0 else None
        return messages.ImportedReply(final_delta_ms=self.report.final_delta_ms)

    async def active(self, *, left: bool) -> messages.ActiveReply:
        """The guest runs there, or ran and has left; waits for the end of the session here."""
        if left and not self.switching:
            self.post(News.CANCELLED, "the guest has left the destination again")
        if not left and self.session.phase not in (Phase.ACTIVE, Phase.DRAIN):
            self.post(News.PEER_ACTIVE)
        wait = self.context.conf.migration.idle_timeout / 2
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self.finished.wait()
        if self._suspended_ns is not None and self.session.gone:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATISTICS):
                    await self._downtime.wait()
        return messages.ActiveReply(
            outcome=self._outcome(),
            detail=self.session.error or "",
            suspended_ns=self._suspended_ns,
            boot_id=self.context.boot_id,
            downtime_ms=self.report.vcpu_pause_ms,
        )

    @property
    def switching(self) -> bool:
        """The guest does not run here, or has stopped here to run there."""
        return not self.over and self.session.phase not in (Phase.PREPARE, Phase.PRECOPY)

    def _outcome(self) -> messages.Outcome:
        if self.session.phase is Phase.DONE:
            return messages.Outcome.DONE
        if not self.over:
            return messages.Outcome.PENDING
        return messages.Outcome.KEPT if self.session.kept else messages.Outcome.ENDED

    def let_go(self) -> None:
        """The VM is about to start or to come here again: its taps are needed."""
        if self.handover is not None and self.handover.active:
            LOG.info("Migration %s: the VM comes back, its late frames do not", self.report.id)
            self.handover.close()
            self._relayed.set()

    async def flush(self, port: int, token: int, *, last: bool) -> None:
        """Put a MARK behind the frames that have come for the port."""
        if self.handover is not None:
            await self.handover.flush(port, token, self._mark_port_moved, last=last)

    async def relayed(self) -> messages.RelayedReply:
        """The destination needs no more frames: let go of the taps."""
        now = time.time_ns()
        detail, lost, exact, delivered = "no frames were handed over", None, False, None
        if self.handover is not None:
            await self.handover.opened()
            self.handover.close()
            summary = self.handover.summary
            lost, exact, detail = summary.lost, summary.exact, summary.detail
            delivered = summary.delivered_ns
            if self.session.phase is Phase.ACTIVE or self.session.gone:
                await self._mark_moved()
        self._relayed.set()
        return messages.RelayedReply(
            lost=lost, exact=exact, detail=detail, delivered_ns=delivered, now_ns=now
        )

    # -- actions

    async def _begin(self) -> None:
        if self.handover is not None:
            await self.handover.open(self.context.in_thread)
            self.spawn(self.handover.watch(self._mark_port_moved), "hand-over")

    async def _publish(self, *, last: bool) -> None:
        if last and self.handover is not None:
            was_active = self.handover.active
            self.handover.close()
            if was_active and self.session.gone:
                with contextlib.suppress(exceptions.VnetError):
                    await self._mark_moved()

    async def close(self) -> None:
        if self.handover is not None:
            self.handover.close()
        await super().close()

    def _perform_now(self, action: Action) -> bool:
        if action is Action.EXCHANGE_FRAMES:
            if self.handover is not None:
                self.spawn(self.handover.cut(), "cut")
            return True
        if action is Action.KEEP and self.handover is not None:
            self.handover.stop()
        if action not in (Action.SEND_FINAL, Action.END_STREAM):
            return False
        self._wake.set()
        return True

    async def _perform(self, action: Action) -> None:
        inventory, report = self.context.inventory, self.report
        if action is Action.MARK_MOVED:
            # Else the hand-over does, once frames find their way without it.
            if self.handover is None or not self.handover.active:
                await self._mark_moved()
            else:
                self.handover.gone()
        elif action is Action.KEEP:
            await inventory.activate(report.instance, generation=report.generation)
            if self.handover is not None:
                await self.handover.give_back()
                self.handover.close()
        elif action is Action.RELEASE:
            await self._end_handover()
            await inventory.release(report.instance, generation=report.generation)
            self.post(News.RELEASED)

    async def _mark_moved(self, port: str | None = None) -> None:
        report = self.report
        await self.context.inventory.mark_moved(
            report.instance, generation=report.generation, port=port
        )

    async def _mark_port_moved(self, index: int) -> None:
        await self._mark_moved(self.reply.ports[index].uuid)

    async def _end_handover(self) -> None:
        """Frames come late as long as somebody does not know where the VM is."""
        if self.handover is None or not self.handover.active:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.context.conf.migration.relay_time + _PATIENCE):
                await self._relayed.wait()
        self.handover.close()

    # -- the stream

    async def send(self, write: Write, attempt: int) -> None:
        """Write one stream, from HELLO to FINAL or ABORT; a newer stream ends this one."""
        mine = self._stream = object()
        encoder = wire.Encoder(version=self.reply.version)
        self.post(News.STREAM_OPENED)
        try:
            await write(encoder.hello(self._hello(attempt)))
            await self._send_rounds(write, encoder, mine)
        except (exceptions.DatapathError, exceptions.UnknownPort) as error:
            LOG.warning("Migration %s: export failed: %s", self.report.id, error)
            gone = isinstance(error, exceptions.UnknownPort)
            verdict = wire.Verdict.ENDED if gone else wire.Verdict.RETRY
            await write(encoder.abort(str(error), verdict=verdict))
        finally:
            if self._stream is mine:
                self._stream = None
                self.post(News.STREAM_BROKEN)

    async def send_frames(self, write: Write, attempt: int, number: int) -> None:
        """Write the VM's frames from `number` on; a newer such stream ends this one."""
        mine = self._frames_stream = object()
        encoder = wire.Encoder(version=self.reply.version)
        await write(encoder.hello(self._hello(attempt)))
        pause = self.context.conf.migration.idle_timeout / 3
        while self.handover is not None and self._frames_stream is mine:
            try:
                async with asyncio.timeout(pause):
                    items = await self.handover.outbox.take(number, wire.MAX_FRAMES // 4)
            except TimeoutError:
                await write(encoder.keepalive())
                continue
            except ValueError as error:
                return await write(encoder.abort(str(error)))
            if items is None:
                break
            await write(_encode(encoder, items, number))
            number += len(items)
        return await write(encoder.final())

    def _make_handover(self) -> SourceHandover:
        taps = {
            state.port.uuid: state.port.tap
            for state in self.context.inventory.of_instance(self.report.instance)
        }
        options = self.context.conf.migration
        return SourceHandover(
            self.report.instance,
            [Departing(uuid=p.uuid, tap=taps.get(p.uuid, "")) for p in self.reply.ports],
            self.context.driver,
            room=options.buffer_mib << 20,
        )

    def _hello(self, attempt: int) -> wire.Hello:
        return wire.Hello(
            session=self.report.id,
            instance=self.report.instance,
            host=self.context.host,
            ports=self.reply.ports,
            attempt=attempt,
        )

    async def _send_rounds(self, write: Write, encoder: wire.Encoder, mine: object) -> None:
        since = 0
        while self._stream is mine:
            if self.over:
                return await self._send_abort(write, encoder)
            # Both before the export: what changes while it runs comes again in the next round.
            final = self.session.final_wanted
            if final and self._settled is not None:
                await self._pause(write, encoder, self._settled)
            cursor = await self.context.in_thread(self.context.driver.cursor)
            await self._send_changes(write, encoder, since)
            since = cursor
            if final:
                await write(encoder.round_end() + encoder.final(paused_ns=self._suspended_ns))
                self.report.precopy_rounds = encoder.rounds - 1
                self.post(News.FINAL_SENT)
                return None
            await write(encoder.round_end())
            self.report.precopy_rounds = encoder.rounds
            interval = self.context.conf.migration.precopy_interval
            await self._pause(write, encoder, self._wake, interval)
        return None

    async def _send_changes(self, write: Write, encoder: wire.Encoder, since: int) -> None:
        if not self.reply.transfer:
            return
        driver = self.context.driver
        for index, port in enumerate(self.reply.ports):
            export = partial(driver.export, port.uuid, since=since)
            if not since and await self._is_too_small_for(port.uuid):
                export = partial(in_order, export, self._room)
            chunks = await self.context.in_thread(export)
            while (chunk := await self._next(chunks)) is not None:
                if self.reply.version < wire.TRANSLATIONS:
                    chunk = without_translations(chunk)
                if chunk:
                    await write(encoder.records(index, chunk))

    async def _is_too_small_for(self, port: str) -> bool:
        """Whether the destination has no room for all connections. Only counting them tells."""
        if not 0 < self._room < self.context.conf.datapath.connection_quota:
            return False
        counters = await self.context.in_thread(partial(self.context.driver.counters, port))
        return counters.connections > self._room

    async def _next(self, chunks: Iterator[bytes]) -> bytes | None:
        return await self.context.in_thread(lambda: next(chunks, None))

    async def _pause(
        self, write: Write, encoder: wire.Encoder, until: asyncio.Event, most: float = math.inf
    ) -> None:
        """For `most` seconds at most; never silent for long."""
        deadline = time.monotonic() + most
        while not until.is_set():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            pause = min(remaining, self.context.conf.migration.idle_timeout / 3)
            try:
                async with asyncio.timeout(pause):
                    await until.wait()
            except TimeoutError:
                if pause < remaining:
                    await write(encoder.keepalive())

    async def _send_abort(self, write: Write, encoder: wire.Encoder) -> None:
        verdict = wire.Verdict.KEPT if self.session.kept else wire.Verdict.ENDED
        reason = self.session.error or "the session is over"
        await write(encoder.abort(reason, verdict=verdict))


def _encode(encoder: wire.Encoder, items: Sequence[Frame | Marker], number: int) -> bytes:
    """Neighbours of one port travel together."""
    parts: list[bytes] = []
    for port, group in itertools.groupby(items, lambda i: i.port if isinstance(i, Frame) else -1):
        found = list(group)
        frames = [item.data for item in found if isinstance(item, Frame)]
        if frames:
            parts.append(encoder.frames(port, number, frames))
            number += len(frames)
        for item in found:
            if isinstance(item, Marker):
                mark = wire.Mark(number=number, port=item.port, token=item.token, last=item.last)
                parts.append(encoder.mark(mark))
                number += 1
    return b"".join(parts)
