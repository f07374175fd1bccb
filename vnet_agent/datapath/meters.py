"""Limits and marks of ports in the table of meters, as csrc/core/meter.h reads them."""

from collections.abc import Sequence

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.compiler import DIRECTIONS
from vnet_agent.datapath.flags import set_flag
from vnet_agent.model.policy import Limit

#: Of csrc/core/meter.h, and the bound of `mult` in csrc/core/abi.h.
TICKS_PER_SECOND = 64 * 1_000_000_000
MULT_BITS = 43
MAX_SHIFT = 42

#: What a burst holds if nobody says: what the limit brings in so many milliseconds.
DEFAULT_BURST_MS = 250

_NONE = layout.pack("rate")


class MeterTable:
    """Which port has which limits. Raises what the extension raises."""

    def __init__(self, handle: c.Datapath, ports: Sequence[bytes]) -> None:
        """Takes over what is in the table, but nothing of ports that have no limits."""
        self._c = handle
        metered = {
            layout.number("port", "local_id", data)
            for data in ports
            if layout.number("port", "flags", data) & c.PORT_METERED
        }
        for key, _ in handle.table_items(c.TABLE_METERS):
            if int.from_bytes(key, "little") not in metered:
                handle.table_remove(c.TABLE_METERS, key)

    def assign(self, local_id: int, limits: Sequence[Limit]) -> None:
        """Limits that stay go on with what they have let through."""
        wanted = pack_meters(limits)
        if wanted is None:
            set_flag(self._c, local_id, c.PORT_METERED, wanted=False)
            self.release(local_id)
            return
        if _without_due(self._c.table_get(c.TABLE_METERS, layout.u32(local_id))) != wanted:
            self._c.table_put(c.TABLE_METERS, layout.u32(local_id), wanted)
        set_flag(self._c, local_id, c.PORT_METERED, wanted=True)

    def release(self, local_id: int) -> None:
        """Of a port whose flag is gone."""
        self._c.table_remove(c.TABLE_METERS, layout.u32(local_id))


def pack_meters(limits: Sequence[Limit]) -> bytes | None:
    """The struct `meters`; None when nothing is limited or marked."""
    meters = [_NONE * 2, _NONE * 2]
    marks = [0, 0]
    for limit in limits:
        direction = DIRECTIONS[limit.direction]
        meters[direction] = pack_rate(
            limit.max_kbps and limit.max_kbps * 125,
            limit.burst_kbits and limit.burst_kbits * 125,
        ) + pack_rate(limit.max_pps, limit.burst_packets)
        if limit.dscp_mark is not None:
            marks[direction] = c.MARKED | limit.dscp_mark
    packed = layout.pack("meters", meter=b"".join(meters), mark=b"".join(map(layout.u32, marks)))
    return packed if any(packed) else None


def pack_rate(rate: int | None, burst: int | None) -> bytes:
    """The struct `rate` of so many units a second and so many at once."""
    if rate is None:
        return _NONE
    shift = 0
    while shift < MAX_SHIFT and TICKS_PER_SECOND << shift + 1 < rate << MULT_BITS:
        shift += 1
    if burst is None:
        ticks = TICKS_PER_SECOND * DEFAULT_BURST_MS // 1000
    else:
        ticks = TICKS_PER_SECOND * burst // rate
    mult = ((TICKS_PER_SECOND << shift) + rate // 2) // rate
    return layout.pack("rate", mult=mult, burst=ticks, shift=shift)


def _without_due(packed: bytes | None) -> bytes | None:
    if packed is None:
        return None
    cleared = bytearray(packed)
    offset, size = c.LAYOUT["rate"]["due"]
    for start in range(0, 4 * len(_NONE), len(_NONE)):
        cleared[start + offset : start + offset + size] = bytes(size)
    return bytes(cleared)
