"""Where a paused guest's frames end: on real taps, with a reader that behaves as QEMU does."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from datapath_world import eventually, ip, private

from vnet_agent.handover import links
from vnet_agent.handover.cut import Cut, find_cut
from vnet_agent.handover.frame import NOBODYS, PLAIN, ethernet
from vnet_agent.handover.mirror import Mirror
from vnet_agent.handover.queue import borrow
from vnet_agent.handover.reads import Reads
from vnet_agent.handover.sender import TapSender

TAP = "tap0"
QEMU = Path(__file__).with_name("fake_qemu.py")


def frame(number: int) -> bytes:
    return PLAIN + bytes.fromhex("fa163e000001 fa163e000002 0800") + number.to_bytes(50, "big")


class World:
    def __init__(self, *, throws: int) -> None:
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        ip(f"tuntap add dev {TAP} mode tap")
        ip(f"link set {TAP} up")
        self.instance = str(uuid.uuid4())
        argv = [sys.executable, str(QEMU), TAP, str(throws)]
        self.qemu = subprocess.Popen([*argv, "-uuid", self.instance], stdout=subprocess.PIPE)
        assert self.qemu.stdout is not None
        assert self.qemu.stdout.readline() == b"ready\n"
        self.sender = TapSender(TAP)
        (self.queue,) = borrow(self.instance, TAP)
        self.mirror = Mirror(TAP)
        self.reads = Reads(self.queue.pid, self.queue.theirs)
        self.probe = TapSender(TAP, judged=True)

    def send(self, *numbers: int) -> None:
        for number in numbers:
            assert self.sender.send(frame(number))

    def wait_taken(self, frames: int) -> None:
        while links.counts(TAP).taken < frames:
            os.sched_yield()

    def pause(self) -> None:
        self.qemu.send_signal(signal.SIGUSR1)
        self.wait_pause()

    def wait_pause(self) -> None:
        assert self.qemu.stdout is not None
        assert self.qemu.stdout.readline() == b"paused\n"

    def cut(self) -> Cut:
        return asyncio.run(find_cut([self.queue], self.mirror, self.probe, self.reads))

    def guest(self) -> list[bytes]:
        """What the guest got; QEMU is gone then."""
        said, _ = self.qemu.communicate(self.qemu.terminate())
        return [bytes.fromhex(line) for line in said.decode().split()]


@contextmanager
def world(*, throws: int = -1) -> Iterator[World]:
    subprocess.run(["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"], check=True)
    made = World(throws=throws)
    try:
        yield made
    finally:
        made.qemu.kill()
        made.qemu.wait()


def whole(made: World, cut: Cut, frames: int) -> None:
    """The guest's frames and those behind the cut are all, once, in order."""
    assert cut.exact
    behind = [*cut.thrown, *cut.kept, *cut.waiting]
    got = made.guest() + [ethernet(each) for each in behind]
    assert got == [ethernet(frame(number)) for number in range(frames)]


@private
def test_frames_wait(bpffs: str) -> None:
    with world() as made:
        made.send(*range(5))
        made.wait_taken(5)
        made.pause()
        made.send(*range(5, 9))
        cut = made.cut()
        assert [len(part) for part in (cut.thrown, cut.kept, cut.waiting)] == [0, 1, 3]
        whole(made, cut, 9)


@private
def test_frame_that_qemu_throws_away(bpffs: str) -> None:
    with world(throws=5) as made:
        made.send(*range(9))
        made.wait_pause()
        cut = made.cut()
        assert [len(part) for part in (cut.thrown, cut.kept, cut.waiting)] == [1, 1, 2]
        whole(made, cut, 9)


@private
def test_silence(bpffs: str) -> None:
    """Nothing comes after the pause: QEMU takes the frame that is for nobody."""
    with world() as made:
        made.send(*range(5))
        made.wait_taken(5)
        made.pause()
        cut = made.cut()
        assert (cut.thrown, cut.kept, cut.waiting) == ([], [], [])
        assert cut.delivered_ns is not None
        whole(made, cut, 5)


@private
def test_one_frame_and_silence(bpffs: str) -> None:
    """The only one that came is the one that QEMU keeps, and nothing else tells it."""
    with world() as made:
        made.send(*range(5))
        made.wait_taken(5)
        made.pause()
        made.send(5)
        made.wait_taken(6)
        cut = made.cut()
        assert (len(cut.kept), cut.waiting) == (1, [])
        whole(made, cut, 6)


@private
def test_reader_that_died(bpffs: str) -> None:
    """What waited for it can still be read."""
    with world() as made:
        made.pause()
        made.send(*range(3))
        made.wait_taken(1)
        assert made.guest() == []
        cut = made.cut()
        assert [ethernet(each) for each in (*cut.kept, *cut.waiting)] == [
            ethernet(frame(number)) for number in range(3)
        ]


@private
def test_nobody_has_the_tap(bpffs: str) -> None:
    with world() as made:
        assert borrow(str(uuid.uuid4()), TAP) == []
        assert borrow(made.instance, "tap1") == []


@private
def test_mirror_keeps_the_newest(bpffs: str) -> None:
    with world() as made:
        for number in range(40000):
            made.sender.send(frame(number))
            if number % 500 == 0:
                made.mirror.trim()
        assert made.mirror.received() == 40000
        eventually(lambda: made.mirror.shown() == 40000, "the mirror shows all")
        assert made.mirror.missed == 0
        seen = made.mirror.frames(1000)
        assert 1000 <= len(seen) < 3000
        assert ethernet(seen[-1][1]) == ethernet(frame(39999))
        times = [time for time, _ in seen]
        assert times == sorted(times)


@private
def test_mirror_shows_late(bpffs: str) -> None:
    """Its timer waits for a processor: the cut waits for the mirror."""
    with world() as made:
        made.send(*range(5))
        made.wait_taken(5)
        made.pause()
        made.send(5)
        made.wait_taken(6)
        shown, looks = made.mirror._shown, iter(range(50))
        made.mirror._shown = lambda: shown() if next(looks, None) is None else []  # type: ignore[method-assign]
        whole(made, made.cut(), 6)


@private
def test_mirror_that_is_full(bpffs: str) -> None:
    """What it missed may be the frame at the cut; that is said until it has room for a while."""
    with world() as made:
        for number in range(150000):
            made.sender.send(frame(number))
        made.pause()
        made.send(1)
        cut = made.cut()
        assert not cut.exact
        assert "the mirror missed" in cut.detail
        made.mirror.trim()
        made.mirror.trim()
        assert made.mirror.missed == 0


@private
def test_waiting_room(bpffs: str) -> None:
    """So many frames as it is made for, as long ones as the tap has; no other traffic."""
    with world() as made:
        ip(f"link set {TAP} mtu 1400")
        room = links.WaitingRoom(TAP, 3)
        done = subprocess.run(["ip", "-o", "addr", "show", room.name], capture_output=True)
        assert done.stdout == b""
        sender = TapSender(room.name, judged=True)
        for number in range(5):
            sender.send(frame(number))
        assert room.read(10) == [frame(number) for number in range(3)]
        assert room.dropped() == 2
        room.close()
        with pytest.raises(OSError, match="no interface"):
            links.counts(room.name)
        assert made.probe.send(NOBODYS)
