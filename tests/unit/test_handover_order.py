"""The order of frames at the host that a VM comes to, without interfaces."""

import asyncio
from collections import deque
from typing import Any

import pytest

from vnet_agent.handover import destination, links
from vnet_agent.handover.destination import Arriving, ArrivingPort, Tally
from vnet_agent.handover.frame import NOBODYS, PLAIN
from vnet_agent.handover.outbox import Marker


def frame(number: int, *, group: bool = False) -> bytes:
    return PLAIN + bytes([1 if group else 2]) + b"VM--" + bytes(9) + number.to_bytes(4, "big")


class Room:
    """What waits."""

    made: "Room"

    def __init__(self, like: str, frames: int) -> None:
        Room.made = self
        self.frames: deque[bytes] = deque()
        self.closed = False
        self.full = 0
        self.ifindex = 77
        self._fd = 0

    def fileno(self) -> int:
        return 0

    def read(self, most: int) -> list[bytes]:
        found = list(self.frames)[:most]
        for _ in found:
            self.frames.popleft()
        return found

    def dropped(self) -> int:
        return self.full

    def close(self) -> None:
        self.closed = True


class Sender:
    """The tap."""

    log: list[bytes] = []

    def __init__(self, interface: str, *, judged: bool = False) -> None: ...

    def send(self, frame: bytes) -> bool:
        Sender.log.append(frame)
        return True

    def close(self) -> None: ...


class Holding:
    """The datapath's words."""

    def __init__(self) -> None:
        self.state = "straight"
        self.frames = self.gone = 0
        self.outside = False

    def begin(self, ifindex: int) -> None:
        self.state = f"held to {ifindex}"

    def extend(self, seconds: float) -> None: ...

    def held(self) -> int:
        return self.frames

    def sent_on(self, frames: int) -> None:
        self.gone = frames

    def drain(self) -> None:
        self.state = "draining"

    def end(self) -> None:
        self.state = "straight"

    def seen_outside(self) -> bool:
        return self.outside


class Bench:
    def __init__(self) -> None:
        self.holding = Holding()
        self.tally = Tally()
        self.asked: list[bool] = []
        arriving = Arriving(uuid="p", tap="tap0")
        holding: Any = self.holding
        self.port = ArrivingPort(arriving, holding, self.tally, self.asked.append)
        self.port.hold(10)

    def comes(self, *frames: bytes, outside: bool = False) -> None:
        """Straight to this host."""
        Room.made.frames.extend(frames)
        self.holding.frames += len(frames)
        self.holding.outside |= outside
        self.port._on_waiting()

    def sends(self, *items: bytes | Marker) -> None:
        """The VM's last host."""
        self.port.from_source(items)

    @property
    def tap(self) -> list[int]:
        """What the VM gets, by number."""
        return [int.from_bytes(each[-4:], "big") for each in Sender.log if each != NOBODYS]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    Sender.log = []
    monkeypatch.setattr(destination, "TapSender", Sender)
    monkeypatch.setattr(links, "WaitingRoom", Room)
    monkeypatch.setattr(links, "counts", lambda tap: links.Counts(taken=0, dropped=0))
    made = Bench()
    made.holding.state = "held to 77"
    return made


def mark(*, last: bool) -> Marker:
    return Marker(port=0, token=0, last=last)


def test_nothing_before_the_state_and_nobodys_first(bench: Bench) -> None:
    bench.sends(frame(1), frame(2))
    assert Sender.log == []
    bench.port.ready()
    assert Sender.log == [NOBODYS, frame(1), frame(2)]
    bench.port.ready()
    assert bench.tap == [1, 2]


def test_what_comes_here_waits_for_what_was_before(bench: Bench) -> None:
    bench.port.ready()
    bench.comes(frame(3), outside=True)
    bench.comes(frame(4), outside=True)
    assert (bench.tap, bench.asked) == ([], [True])
    bench.sends(frame(1), frame(2), mark(last=True))
    assert bench.tap == [1, 2, 3, 4]
    assert (bench.holding.state, bench.holding.gone) == ("draining", 2)
    bench.comes(frame(5))
    assert bench.tap[-1] == 5


def test_neighbours_of_this_host_alone(bench: Bench) -> None:
    """That they reach the VM here does not say that switches know the way."""
    bench.port.ready()
    bench.comes(frame(2))
    assert bench.asked == [False]
    bench.sends(frame(1), mark(last=False))
    bench.comes(frame(3))
    assert (bench.tap, bench.asked, bench.holding.state) == ([1, 2, 3], [False], "held to 77")
    assert not bench.port.learned.is_set()
    bench.comes(frame(5), outside=True)
    assert (bench.tap, bench.asked) == ([1, 2, 3], [False, True])
    bench.sends(frame(4), mark(last=True))
    assert bench.tap == [1, 2, 3, 4, 5]
    assert bench.port.learned.is_set()


def test_broadcast_before_the_port_is_active(bench: Bench) -> None:
    """Its mark is not behind what a neighbour has sent to the other host by then."""
    bench.port.ready()
    bench.comes(frame(1, group=True))
    assert bench.asked == [False]
    bench.comes(frame(4))
    bench.sends(frame(2), mark(last=False))
    assert (bench.tap, bench.asked) == ([2, 1], [False, False])
    bench.sends(frame(3), mark(last=False))
    bench.comes(frame(5))
    assert (bench.tap, bench.asked) == ([2, 1, 3, 4, 5], [False, False])


def test_mark_that_nobody_asked_for(bench: Bench) -> None:
    bench.port.ready()
    bench.sends(frame(1), mark(last=True))
    bench.comes(frame(2), outside=True)
    assert (bench.tap, bench.asked) == ([1, 2], [])


def test_broadcast_that_came_to_both_hosts(bench: Bench) -> None:
    bench.port.ready()
    bench.comes(frame(7, group=True), frame(7, group=True), frame(8), outside=True)
    bench.sends(frame(7, group=True), mark(last=True))
    assert bench.tap == [7, 7, 8]
    assert bench.holding.gone == 3


async def test_drained_when_all_have_gone_on(bench: Bench) -> None:
    bench.port.ready()
    bench.holding.frames = 1
    bench.sends(mark(last=True))
    draining = asyncio.create_task(bench.port.drained())
    await asyncio.sleep(0.05)
    assert not draining.done()
    Room.made.frames.append(frame(1))
    await draining
    assert (bench.tap, bench.holding.state) == ([1], "straight")
    bench.sends(frame(2))
    assert bench.tap == [1, 2]


async def test_full_room_is_counted_and_does_not_hold_up(bench: Bench) -> None:
    bench.port.ready()
    bench.holding.frames, Room.made.full = 3, 3
    bench.sends(mark(last=True))
    await bench.port.drained()
    assert (bench.tally.lost, bench.holding.state) == (3, "straight")


def test_frames_that_are_none(bench: Bench) -> None:
    """The other host's bytes: nothing of them ends what comes behind."""
    bench.port.ready()
    bench.sends(b"", b"x" * len(PLAIN), frame(2))
    assert bench.tap[-1] == 2


def test_backlog_is_what_cannot_go_on(bench: Bench) -> None:
    bench.sends(frame(1), mark(last=False), frame(2))
    assert bench.port.backlog() == len(frame(1)) + len(frame(2))
    bench.port.ready()
    assert bench.port.backlog() == 0


async def test_source_that_is_lost(bench: Bench) -> None:
    """What waits follows all the same."""
    bench.port.ready()
    bench.comes(frame(1), outside=True)
    bench.port.source_ended()
    assert bench.tap == [1]
    bench.port.close()
    assert bench.holding.state == "straight"
