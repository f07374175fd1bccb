"""Where one host's frames end and the other's begin.

When QEMU has paused its guest it takes one more frame out of the tap's queue, the next that is
there, and no further one: it finds that the guest cannot have it, keeps it, and stops to wait for
the queue (net/tap.c, tap_send; net/net.c, qemu_can_receive_packet). On that host it would only be
seen by the guest if the migration failed. So the cut is found by waiting until QEMU has taken it:

- frames wait, and QEMU's main loop sleeps: it does not wait for them. Of the frames that went
  into the tap, the one before the first that waits is the one that it keeps.
- no frame waits: then one is put there that is for nobody. If QEMU takes it, it keeps that, and
  all before were the guest's. If it does not, it keeps the last one before.

What it keeps is found in the mirror of the tap. With several queues it cannot be told which one
that is: the cut is not exact then, and says so.

One frame more can be lost: what QEMU reads while its processors are being stopped, or what it has
in hand because the guest has no buffer free, it throws away then (net/net.c,
qemu_flush_or_purge_queued_packets), and takes the next. After a frame that the guest got it reads
on, until there is none; after such a one it does not. So its reads are traced: two frames in a
row, and the first of them is lost.
"""

import asyncio
import time
from collections.abc import Sequence

import msgspec

from vnet_agent.handover.frame import NOBODYS, ethernet
from vnet_agent.handover.mirror import Mirror
from vnet_agent.handover.queue import TapQueue
from vnet_agent.handover.reads import Reads
from vnet_agent.handover.sender import TapSender

#: Seconds that the search takes at most, and between two looks.
_PATIENCE = 0.1
_LOOK = 0.001
#: Seconds that the mirror has to show what it has: its timer is late where processors are busy.
_SHOWN = 0.5
#: Reads that are looked at: of the frame that QEMU keeps, and before.
_LAST = 2
#: Frames of the mirror that are looked at besides those that wait: more have come meanwhile.
_BEYOND = 4000
#: How many frames behind the cut must be found in the mirror in a row.
_ALIKE = 16


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """The frames behind what the guest has seen are `thrown`, `kept` by QEMU, and `waiting`.
    `delivered_ns`: when the last one before them came, in ns since 1970."""

    thrown: list[bytes] = []
    kept: list[bytes] = []
    waiting: list[bytes]
    exact: bool = True
    detail: str = ""
    delivered_ns: int | None = None


async def find_cut(
    queues: list[TapQueue], mirror: Mirror, probe: TapSender, reads: Reads | None
) -> Cut:
    """The guest has paused. Raises OSError when the tap is gone."""
    probed = await _settle(queues, probe)
    last = reads.last(_LAST) if reads is not None else []
    waiting = [frame for queue in queues for frame in queue.read(1 << 20)]
    waiting_now = [frame for frame in waiting if frame != NOBODYS]
    taken = probed and NOBODYS not in waiting
    if len(queues) != 1:
        return Cut(waiting=waiting_now, exact=False, detail=f"{len(queues)} queues")
    if not await _is_shown(mirror):
        return Cut(waiting=waiting_now, exact=False, detail="the mirror is late")
    if mirror.missed:
        detail = f"the mirror missed {mirror.missed} frames"
        return Cut(waiting=waiting_now, exact=False, detail=detail)
    seen = mirror.frames(len(waiting) + _BEYOND)
    place = _place(seen, waiting_now)
    if place is None:
        return Cut(waiting=waiting_now, exact=False, detail="the mirror has not the frame")
    if not place and not taken:
        return Cut(waiting=waiting_now, exact=False, detail="QEMU keeps a frame from before")
    kept = place if taken else place - 1
    thrown = max(0, kept - _was_thrown(last))
    return Cut(
        thrown=[frame for _, frame in seen[thrown:kept]],
        kept=[frame for _, frame in seen[kept:place]],
        waiting=waiting_now,
        exact=reads is not None,
        detail="" if reads is not None else "no trace of QEMU's reads",
        delivered_ns=seen[thrown - 1][0] if thrown else None,
    )


def _was_thrown(reads: Sequence[int]) -> bool:
    """Whether QEMU read a frame, then no more, and at last the one that it keeps."""
    return len(reads) == _LAST and all(each > 0 for each in reads)


async def _settle(queues: list[TapQueue], probe: TapSender) -> bool:
    """Until QEMU has taken its frame; whether it was given the one that is for nobody."""
    probed, deadline = False, time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        waiting = all(queue.has_frames() for queue in queues)
        asleep = all(queue.reader_sleeps() for queue in queues)
        if asleep and (waiting or probed):
            break
        if asleep and len(queues) == 1:
            probed = probe.send(NOBODYS)
        await asyncio.sleep(_LOOK)
    return probed


async def _is_shown(mirror: Mirror) -> bool:
    """Whether the mirror shows all that has come until now; waits for it."""
    received, deadline = mirror.received(), time.monotonic() + _SHOWN
    while mirror.shown() < received:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK)
    return True


def _place(seen: list[tuple[int, bytes]], waiting: list[bytes]) -> int | None:
    """Where in `seen` the frames that wait begin; None when they are not there."""
    if not waiting:
        return len(seen)
    wanted = [ethernet(frame) for frame in waiting[:_ALIKE]]
    frames = [ethernet(frame) for _, frame in seen]
    for alike in (len(wanted), 1):  # one, where some found no room in the tap
        for place in range(len(frames) - alike, -1, -1):
            if frames[place : place + alike] == wanted[:alike]:
                return place
    return None
