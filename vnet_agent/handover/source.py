"""Where a VM leaves: what its taps still have for it, and what comes late, goes after it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from vnet_agent import exceptions
from vnet_agent.datapath.base import Driver
from vnet_agent.datapath.holding import Holding
from vnet_agent.handover import links
from vnet_agent.handover.cut import Cut, find_cut
from vnet_agent.handover.mirror import Mirror
from vnet_agent.handover.outbox import Frame, Marker, Outbox
from vnet_agent.handover.queue import TapQueue, borrow
from vnet_agent.handover.reads import Reads
from vnet_agent.handover.sender import TapSender

LOG = logging.getLogger(__name__)

#: Seconds between two looks at the mirrors, and at what the datapath has seen.
_TRIM = 0.02
_WATCH = 0.003
#: Frames that are read in one go: the event loop has other work too.
_BATCH = 256
#: Seconds without reading when there is no room for more: the tap's own queue holds them.
_PAUSE = 0.005
#: Seconds between two looks for frames that are late.
_LOOK = 0.001
#: Frames on their way to a tap have come when none came for so many seconds, of at most so many:
#: processors that are busy hand them over late, and not in the order of those of others.
_GRACE = (0.01, 0.06)
#: Bytes of frames that are kept for a stream that breaks, once the VM will not come back.
_KEEP = 1 << 22


InThread = Callable[[Callable[[], None]], Awaitable[None]]
#: Of the port at this place.
Moved = Callable[[int], Awaitable[None]]


class Departing(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the VM, and its tap."""

    uuid: str
    tap: str


class Summary(msgspec.Struct, kw_only=True):
    """What the source knows at the end. `delivered_ns`: when the last frame came that the guest
    had here, on this host's clock; None if none was seen. `detail` says why it is not exact."""

    lost: int = 0
    exact: bool = True
    detail: str = ""
    delivered_ns: int | None = None


class _Tap:
    """What is open of one port. Made and closed in a thread, as it may wait for the kernel."""

    def __init__(self, index: int, instance: str, port: Departing, holding: Holding) -> None:
        self.index = index
        self.name = port.tap
        self.holding = holding
        self.frames = 0
        """How many were read here."""
        self.learned = False
        """Frames go to where the VM is without this host."""
        self.flushing = asyncio.Lock()
        self.queues: list[TapQueue] = []
        self.reads: Reads | None = None
        self._open: list[Mirror | TapSender | TapQueue | Reads] = []
        try:
            self._borrow(instance)
            self.mirror = Mirror(self.name)
            self._open.append(self.mirror)
            self.sender = TapSender(self.name, judged=True)
            self._open.append(self.sender)
        except OSError:
            self.close()
            raise
        self.dropped = links.counts(self.name).dropped

    def _borrow(self, instance: str) -> None:
        self.queues = borrow(instance, self.name)
        self._open += self.queues
        if not self.queues:
            raise FileNotFoundError(f"no QEMU of {instance} has {self.name} open")
        try:
            self.reads = Reads(self.queues[0].pid, self.queues[0].theirs)
            self._open.append(self.reads)
        except OSError as error:
            LOG.warning("QEMU's reads of %s cannot be traced: %s", self.name, error)

    def close(self) -> None:
        for each in self._open:
            each.close()
        self._open.clear()


class SourceHandover:
    """Of one session, in the event loop.

    `open` while the guest runs, `cut` when it has paused; `outbox` is what the destination gets.
    Nothing of it can fail a migration: what cannot be done is in `summary`.
    """

    def __init__(
        self, instance: str, ports: Sequence[Departing], driver: Driver, *, room: int
    ) -> None:
        self.summary = Summary()
        self.outbox = Outbox(room)
        self.active = False
        """The taps are open: frames that come late are taken to the destination."""
        self._instance = instance
        self._ports = ports
        self._driver = driver
        self._taps: list[_Tap] = []
        self._reading = False
        self._gone = False
        self._opened = asyncio.Event()
        self._settled = asyncio.Event()
        self._thrown: list[Frame] = []

    # -- while the guest runs

    async def open(self, in_thread: InThread) -> None:
        """Look for the taps, and mirror them from now on."""
        try:
            await in_thread(self._open)
            self.active = True
        except (OSError, exceptions.VnetError) as error:
            LOG.warning("The taps of %s cannot be followed: %s", self._instance, error)
            self._give_up(str(error))
        finally:
            self._opened.set()

    def _open(self) -> None:
        for index, port in enumerate(self._ports):
            holding = self._driver.holding(port.uuid)
            self._taps.append(_Tap(index, self._instance, port, holding))

    def _give_up(self, detail: str) -> None:
        self.summary.exact, self.summary.detail = False, detail
        self.close()

    async def watch(self, moved: Moved) -> None:
        """Until it is over; `moved` is called once others know the way to where the port is."""
        while self.active and not self._reading:
            for tap in self._taps:
                tap.mirror.trim()
            await asyncio.sleep(_TRIM)
        unheard = list(self._taps)
        async with asyncio.TaskGroup() as flushing:
            while self.active and unheard:
                for tap in [tap for tap in unheard if tap.holding.seen_outside()]:
                    unheard.remove(tap)
                    flushing.create_task(self.flush(tap.index, 0, moved, last=True))
                await asyncio.sleep(_WATCH)

    # -- from the guest's pause on

    async def cut(self) -> None:
        """Find where the guest stopped, and send on what is behind that."""
        await self._opened.wait()
        if not self.active or self._reading:
            self._settled.set()
            return
        try:
            for tap in self._taps:  # what was seen before the VM paused is no news
                tap.holding.relay(wanted=True)
            self._reading = True
            cuts = await asyncio.gather(*(self._cut(tap) for tap in self._taps))
        except (OSError, LookupError, exceptions.VnetError) as error:
            self._give_up(f"the tap is gone: {error}")
        else:
            delivered = [cut.delivered_ns for cut in cuts if cut.delivered_ns is not None]
            self.summary.delivered_ns = max(delivered, default=None)
            for tap in self._taps:
                self._listen(tap)
        self._settled.set()

    async def _cut(self, tap: _Tap) -> Cut:
        cut = await find_cut(tap.queues, tap.mirror, tap.sender, tap.reads)
        LOG.info(
            "%s: %d frames wait behind the cut%s", tap.name, len(cut.waiting),
            "" if cut.exact else f", which is not exact: {cut.detail}",
        )  # fmt: skip
        if not cut.exact:
            self.summary.exact, self.summary.detail = False, cut.detail
        for frame in (*cut.thrown, *cut.kept):
            self.outbox.put(Frame(tap.index, frame, copied=True))
        for frame in cut.waiting:
            self.outbox.put(Frame(tap.index, frame))
        if self._reading:  # else the guest went on meanwhile, and nothing was thrown away
            self._thrown += [Frame(tap.index, frame) for frame in cut.thrown]
        return cut

    def _listen(self, tap: _Tap) -> None:
        for queue in tap.queues:
            self._await_frames(tap, queue)

    def _await_frames(self, tap: _Tap, queue: TapQueue) -> None:
        if self._reading and queue.fileno() >= 0:
            asyncio.get_running_loop().add_reader(queue.fileno(), self._read, tap, queue)

    def _read(self, tap: _Tap, queue: TapQueue, most: int = _BATCH) -> bool:
        """Whether there may be more."""
        if self.outbox.full:
            loop = asyncio.get_running_loop()
            loop.remove_reader(queue.fileno())
            loop.call_later(_PAUSE, self._await_frames, tap, queue)
            return False
        try:
            frames = queue.read(most)
        except OSError as error:
            LOG.info("%s is gone: %s", tap.name, error)
            self.stop()
            return False
        tap.frames += len(frames)
        for frame in frames:
            self.outbox.put(Frame(tap.index, frame))
        if self._gone:
            self.outbox.forget_sent(_KEEP)
        return len(frames) == most

    async def flush(self, port: int, token: int, moved: Moved, *, last: bool) -> None:
        """Put a mark behind all that has come for a port. With `last` what comes to this host goes
        its own way from now on (`moved`), but for what comes from outside."""
        await self._settled.wait()
        if port >= len(self._taps):  # they were given up, or are closed
            self.outbox.put(Marker(port, token, last))
            return
        tap = self._taps[port]
        async with tap.flushing:
            if last and not tap.learned:
                tap.learned = True
                with contextlib.suppress(exceptions.VnetError):  # it has a newer owner
                    await moved(port)
            await self._until_quiet(tap)
            await self._read_all(tap)
            self.outbox.put(Marker(port, token, last))

    async def _until_quiet(self, tap: _Tap) -> None:
        quiet, most = _GRACE
        began = since = time.monotonic()
        while (now := time.monotonic()) < min(since + quiet, began + most):
            before = tap.frames
            await self._read_all(tap)
            if tap.frames > before:
                since = now
            await asyncio.sleep(_LOOK)

    async def _read_all(self, tap: _Tap) -> None:
        for queue in tap.queues:
            while self._reading and (self._read(tap, queue) or self.outbox.full):
                if self.outbox.full:
                    await asyncio.sleep(_PAUSE)

    def gone(self) -> None:
        """The guest runs at the destination: nothing is given back any more."""
        self._gone = True
        self.outbox.forget_sent(_KEEP)

    # -- the end

    def stop(self) -> None:
        """Read no more; at once."""
        if not self._reading:
            return
        self._reading = False
        loop = asyncio.get_running_loop()
        for tap in self._taps:
            for queue in tap.queues:
                if queue.fileno() >= 0:
                    loop.remove_reader(queue.fileno())

    async def give_back(self) -> int:
        """The guest goes on here: what was taken from its taps goes there again, and what QEMU
        threw away. What it kept it gives to the guest itself."""
        self.stop()
        await self._settled.wait()
        by_index = {tap.index: tap for tap in self._taps}
        taken = [frame for frame in self.outbox.all_frames() if not frame.copied]
        frames = [*self._thrown, *taken]
        given = sum(by_index[frame.port].sender.send(frame.data) for frame in frames)
        if frames:
            LOG.info("%d of %d frames were given back to the taps", given, len(frames))
        return given

    async def opened(self) -> None:
        """Until `open` is done, one way or the other: only then may it be closed."""
        await self._opened.wait()

    def close(self) -> None:
        """Let go of the taps. What they still have for the VM is lost, and counted."""
        if self.active:
            self.summary.lost = self._lost()
        self.stop()
        self.active = False
        self._settled.set()
        self.outbox.close()
        for tap in self._taps:
            with contextlib.suppress(OSError, exceptions.VnetError, LookupError):
                tap.holding.relay(wanted=False)
            # At once: another QEMU may be about to open the tap, which takes one reader only.
            for queue in tap.queues:
                queue.close()
            _in_thread(tap.close)
        self._taps.clear()

    def _lost(self) -> int:
        lost = 0
        for tap in self._taps:
            with contextlib.suppress(OSError):
                lost += links.counts(tap.name).dropped - tap.dropped
                if self._reading:
                    lost += sum(len(queue.read(1 << 20)) for queue in tap.queues)
        return lost


def _in_thread(close: Callable[[], None]) -> None:
    """To end a trace or a packet socket takes the kernel its time."""
    asyncio.get_running_loop().run_in_executor(None, close)
