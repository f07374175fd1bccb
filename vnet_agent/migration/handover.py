"""The exact hand-over of frames at the switchover; a named step with nothing to do yet.

What belongs here: the source numbers the VM's frames and mirrors them to the destination, which
holds them; the source's tap tells how many the guest consumed; the destination replays the rest
in order, and the source redirects what still comes. Until then nothing is counted.
"""

import msgspec


class Frames(msgspec.Struct, frozen=True, kw_only=True):
    """What the hand-over counted; None is "not measured"."""

    replayed: int | None = None
    lost: int | None = None
    duplicated: int | None = None
    network_gap_ms: float | None = None


async def exchange(session: str, instance: str) -> Frames:
    """Called once by each side when HANDOVER begins; must not delay the switchover."""
    del session, instance
    return Frames()
