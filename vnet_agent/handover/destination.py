"""Where a VM comes to: its frames from there and from here, each once and in order.

Until the VM's last host has sent what it had, frames that reach this host wait behind an interface
of the agent's. A MARK of that host says that everything from before has come; then they follow.
Once switches know the way here, frames go to the VM in the kernel again, past the agent.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from vnet_agent import exceptions
from vnet_agent.datapath.base import Driver
from vnet_agent.datapath.holding import Holding
from vnet_agent.handover import links
from vnet_agent.handover.frame import NOBODYS, ethernet, is_group
from vnet_agent.handover.outbox import Marker
from vnet_agent.handover.sender import TapSender

LOG = logging.getLogger(__name__)

#: Seconds for which a port asks to be held, and how often it asks again.
_LEASE = 0.5
_RENEW = 0.1
_BATCH = 256
#: Seconds between two looks at whether all has gone on, and for which it must be so.
_LOOK = 0.005
_QUIET = 0.02
#: Seconds after which a port is let go in any case.
_DRAIN = 1.0
#: Group frames that are remembered, since they come to both hosts.
_GROUPS = 4096


class Arriving(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the VM, and its tap."""

    uuid: str
    tap: str


class Tally(msgspec.Struct, kw_only=True):
    """What became of frames here. `first_ns`: when the guest took its first one, on this host's
    clock; None if that was not seen."""

    replayed: int = 0
    lost: int = 0
    first_ns: int | None = None


class ArrivingPort:
    """One port. `ask(outside)` asks the VM's last host for a MARK of it."""

    def __init__(
        self, port: Arriving, holding: Holding, tally: Tally, ask: Callable[[bool], None]
    ) -> None:
        self.tap = port.tap
        self.learned = asyncio.Event()
        """Frames come here on their own."""
        self._holding = holding
        self._tally = tally
        self._ask = ask
        self._room: links.WaitingRoom | None = None
        self._sender: TapSender | None = None
        self._from_source: deque[bytes | Marker] = deque()
        self._waiting: deque[bytes] = deque()
        self._groups: Counter[bytes] = Counter()
        self._asked = False
        self._opens = False
        """The mark that was asked for is behind all that senders here sent by the other host."""
        self._covered = 0
        """How many waited when it was asked for."""
        self._open = False
        """What waits may follow: all that came before it has gone on."""
        self._gone_on = 0
        self._overflowed = 0
        """Frames that found no room to wait in."""
        self._ready = False
        self._dropped: int | None = None

    # -- life

    def hold(self, queue: int) -> None:
        """From now on frames for the VM wait. Blocks; raises OSError and VnetError."""
        self._room = links.WaitingRoom(self.tap, queue)
        self._holding.begin(self._room.ifindex)
        self._holding.extend(_LEASE)

    def listen(self) -> None:
        if self._room is not None:
            asyncio.get_running_loop().add_reader(self._room.fileno(), self._on_waiting)

    def extend(self) -> None:
        if self._room is not None:
            self._holding.extend(_LEASE)

    def let_go(self) -> None:
        """Frames go straight from now on; what waits goes before them, if it can."""
        if self._room is None:
            return
        asyncio.get_running_loop().remove_reader(self._room.fileno())
        with contextlib.suppress(exceptions.VnetError, LookupError, OSError):
            self._holding.end()
        self._read_waiting()
        if self._sender is not None:
            self._follow()
        self._see_overflow()
        self._tally.lost += self._overflowed + len(self._waiting)
        self._waiting.clear()
        # An interface's end takes the kernel its time.
        asyncio.get_running_loop().run_in_executor(None, self._room.close)
        self._room = None

    def close(self) -> None:
        self.let_go()
        if self._sender is not None:
            self._tally.lost += self._tap_lost()
            self._sender.close()
            self._sender = None

    def _tap_lost(self) -> int:
        with contextlib.suppress(OSError):
            if self._dropped is not None:
                return max(0, links.counts(self.tap).dropped - self._dropped)
        return 0

    # -- what comes

    def ready(self) -> None:
        """Policy and connections are here: frames may go to the tap."""
        if self._ready:
            return
        try:
            self._dropped = links.counts(self.tap).dropped
            self._give_first()
            self._sender = TapSender(self.tap)
        except OSError as error:
            LOG.warning("%s takes no frames: %s", self.tap, error)
            return
        self._ready = True
        self._pump()

    def _give_first(self) -> None:
        """QEMU takes one frame before the guest's devices have come, and with them the length
        of headers (hw/net/virtio-net.c, virtio_net_set_mrg_rx_bufs): it must be no real one."""
        first = TapSender(self.tap, judged=True)
        first.send(NOBODYS)
        first.close()

    def from_source(self, items: Sequence[bytes | Marker]) -> None:
        self._from_source.extend(items)
        self._pump()

    def backlog(self) -> int:
        """Bytes of frames of the source that are held here, as policy and connections are not."""
        return sum(len(item) for item in self._from_source if not isinstance(item, Marker))

    def source_ended(self) -> None:
        """No more comes from there."""
        if not self.learned.is_set():
            self.from_source([Marker(port=0, token=0, last=True)])

    def _on_waiting(self) -> None:
        self._read_waiting()
        self._pump()

    def _read_waiting(self) -> None:
        if self._room is None:
            return
        with contextlib.suppress(OSError):
            while frames := self._room.read(_BATCH):
                self._waiting.extend(frames)
                if len(frames) < _BATCH:
                    return

    # -- what goes on

    def _pump(self) -> None:
        if not self._ready:
            return
        while self._from_source:
            item = self._from_source.popleft()
            if isinstance(item, Marker):
                self._pass(item)
            else:
                self._replay(item)
        if self.learned.is_set():
            self._follow()
            return
        if not self._waiting:
            return
        if self._outside():
            self._open = False
            self._question(outside=True)
        elif self._open:
            self._follow()
        else:
            self._question(outside=False)

    def _question(self, *, outside: bool) -> None:
        if not self._asked:
            self._asked = True
            # Before the port is active here only broadcasts come: who sends those still sends the
            # rest by the other host.
            self._opens = not all(is_group(frame) for frame in self._waiting)
            self._covered = len(self._waiting)
            self._ask(outside)

    def _outside(self) -> bool:
        with contextlib.suppress(exceptions.VnetError, LookupError):
            return self._holding.seen_outside()
        return False

    def _pass(self, mark: Marker) -> None:
        """What waited until here follows. After the last one the agent goes out of the way."""
        self._asked = False
        self._open = self._opens
        if mark.last and not self.learned.is_set():
            self.learned.set()
            self._read_waiting()
            self._follow()
            with contextlib.suppress(exceptions.VnetError, LookupError):
                self._holding.drain()
        elif not self.learned.is_set():
            self._follow(None if self._open else self._covered)

    def _replay(self, frame: bytes) -> None:
        if is_group(frame) and self._groups.total() < _GROUPS:
            self._groups[ethernet(frame)] += 1
        self._send(frame)
        self._tally.replayed += 1

    def _follow(self, most: int | None = None) -> None:
        for _ in range(len(self._waiting) if most is None else min(most, len(self._waiting))):
            frame = self._waiting.popleft()
            self._gone_on += 1
            # A broadcast came to both hosts: the other one has sent it already.
            if is_group(frame) and self._groups[ethernet(frame)] > 0:
                self._groups[ethernet(frame)] -= 1
                continue
            self._send(frame)
        self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(exceptions.VnetError, LookupError):
            self._holding.sent_on(self._gone_on + self._overflowed)

    def _send(self, frame: bytes) -> None:
        if self._sender is None or not self._sender.send(frame):
            self._tally.lost += 1

    async def drained(self) -> None:
        """Until frames go straight, in the kernel."""
        quiet, deadline = 0.0, time.monotonic() + _DRAIN
        while quiet < _QUIET and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK)
            self._see_overflow()
            self._on_waiting()
            try:
                behind = self._holding.held() - self._gone_on - self._overflowed
                quiet = 0.0 if behind > 0 else quiet + _LOOK
            except (exceptions.VnetError, LookupError, OSError):
                break
        if quiet < _QUIET:
            LOG.warning("%s: frames wait without end; the last may come late", self.tap)
        self.let_go()

    def _see_overflow(self) -> None:
        if self._room is not None:
            with contextlib.suppress(OSError):
                self._overflowed = self._room.dropped()


class DestinationHandover:
    """Of one session, in the event loop. Whatever fails here, frames then go straight."""

    def __init__(
        self,
        ports: Sequence[Arriving],
        driver: Driver,
        ask: Callable[[int, bool], None],
        *,
        queue: int,
    ) -> None:
        self.tally = Tally()
        self.active = False
        self._arriving = ports
        self._driver = driver
        self._ask = ask
        self._queue = queue
        self._ports: list[ArrivingPort] = []

    def open(self) -> None:
        """Hold the ports, whose taps are there. Blocks."""
        try:
            for index, arriving in enumerate(self._arriving):
                holding = self._driver.holding(arriving.uuid)
                port = ArrivingPort(arriving, holding, self.tally, partial(self._ask, index))
                self._ports.append(port)
                port.hold(self._queue)
        except (OSError, LookupError, exceptions.VnetError) as error:
            LOG.warning("Frames are not held here: %s", error)
            return
        self.active = True

    def listen(self) -> None:
        """After `open`, in the event loop."""
        if not self.active:
            self.close()
            return
        for port in self._ports:
            port.listen()

    async def renew(self) -> None:
        """Until it is over."""
        while self.active:
            with contextlib.suppress(LookupError, exceptions.VnetError):
                for port in self._ports:
                    port.extend()
            await asyncio.sleep(_RENEW)

    def take(self, index: int, items: Sequence[bytes | Marker]) -> None:
        if index < len(self._ports):
            self._ports[index].from_source(items)

    def backlog(self) -> int:
        """Bytes of frames that came from the source and cannot go on yet."""
        return sum(port.backlog() for port in self._ports)

    def ready(self) -> None:
        for port in self._ports:
            port.ready()

    def source_ended(self, index: int | None = None) -> None:
        """No more comes from there, for any port or for one."""
        for port in self._ports if index is None else self._ports[index : index + 1]:
            port.source_ended()

    def unlearned(self) -> list[int]:
        """Ports whose frames nobody was seen to send here on their own."""
        return [index for index, port in enumerate(self._ports) if not port.learned.is_set()]

    async def learned(self) -> None:
        """Until frames come here on their own."""
        await asyncio.gather(*(port.learned.wait() for port in self._ports))

    async def drained(self) -> None:
        await asyncio.gather(*(port.drained() for port in self._ports))

    async def watch_first(self) -> None:
        """When the guest begins to take frames: QEMU takes one before, which it keeps for it."""
        taps = [port.tap for port in self._ports]
        with contextlib.suppress(OSError):
            before = {tap: links.counts(tap).taken for tap in taps}
            while self.active:
                if any(links.counts(tap).taken > before[tap] + 1 for tap in taps):
                    self.tally.first_ns = time.time_ns()
                    return
                await asyncio.sleep(0.001)

    def close(self) -> None:
        self.active = False
        for port in self._ports:
            port.close()
