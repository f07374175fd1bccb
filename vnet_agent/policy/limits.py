"""Limits and marks: as a group says them, and what those of several groups make of a port."""

import operator
from collections.abc import Iterable

import msgspec

from vnet_agent.model.policy import Direction, Group, Limit
from vnet_agent.policy.fields import choice, items, mapping, show
from vnet_agent.policy.tree import Node

#: 1 kbit/s to 100 Gbit/s; beyond, a small frame's time is too short to be counted well.
MAX_KBPS = 100_000_000
MAX_PPS = 100_000_000
#: A burst may hold what the limit brings in so many seconds.
MAX_BURST = 60
MAX_DSCP = 63
#: Each may say something else; more than a few are a mistake.
MAX_LIMITS = 16

#: What a limit says, with what belongs to it.
_QUANTITIES = {"max_kbps": "burst_kbits", "max_pps": "burst_packets", "dscp_mark": None}

_KEYS = frozenset(Limit.__struct_fields__)


def read_limits(node: Node | None) -> tuple[Limit, ...] | msgspec.UnsetType:
    """The limits of a list node; one direction has one of each kind. None and [] are unset."""
    limits: list[Limit] = []
    said: set[tuple[Direction, str]] = set()
    for item in items(node, MAX_LIMITS, "limits"):
        limit = _read_limit(item)
        for field in _QUANTITIES:
            if getattr(limit, field) is None:
                continue
            if (limit.direction, field) in said:
                raise item.value[field].refused(f"{field} of {limit.direction} is given twice")
            said.add((limit.direction, field))
        limits.append(limit)
    return tuple(limits) or msgspec.UNSET


def _read_limit(node: Node) -> Limit:
    fields = mapping(node, _KEYS, "a limit")
    direction = fields.get("direction")
    if direction is None:
        raise node.refused("a limit needs a direction: ingress or egress")
    if not fields.keys() & _QUANTITIES.keys():
        raise node.refused(f"a limit needs at least one of {', '.join(_QUANTITIES)}")
    max_kbps = _number(fields.get("max_kbps"), 1, MAX_KBPS)
    max_pps = _number(fields.get("max_pps"), 1, MAX_PPS)
    return Limit(
        direction=choice(direction, Direction),
        max_kbps=max_kbps,
        burst_kbits=_burst(fields.get("burst_kbits"), max_kbps, "max_kbps"),
        max_pps=max_pps,
        burst_packets=_burst(fields.get("burst_packets"), max_pps, "max_pps"),
        dscp_mark=_number(fields.get("dscp_mark"), 0, MAX_DSCP),
    )


def _number(node: Node | None, least: int, most: int) -> int | None:
    if node is None:
        return None
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise node.refused(f"{show(node)} is no number {least}-{most}")
    return value


def _burst(node: Node | None, rate: int | None, what: str) -> int | None:
    if node is None:
        return None
    if rate is None:
        raise node.refused(f"a burst needs its limit, {what}")
    most = rate * MAX_BURST
    value = _number(node, 1, 1 << 62)
    if value is None or value > most:
        raise node.refused(
            f"{show(node)} is more than {what} brings in {MAX_BURST} seconds; at most {most}"
        )
    return value


def merge_limits(ranked: Iterable[tuple[int, Group]]) -> tuple[Limit, ...]:
    """What holds for a port: one limit a direction at most, from its groups with their ranks.

    Each of bandwidth, frames and mark comes from the group of the highest rank that says
    something about it; among equals the lowest limit holds, and the first mark.
    """
    said = sorted(
        ((rank, limit) for rank, group in ranked for limit in group.limits or ()),
        key=lambda item: -item[0],
    )
    merged = (_merge(direction, said) for direction in Direction)
    return tuple(limit for limit in merged if limit is not None)


def _merge(direction: Direction, said: list[tuple[int, Limit]]) -> Limit | None:
    fields: dict[str, int | None] = {}
    for field, burst in _QUANTITIES.items():
        limits = [
            (rank, limit)
            for rank, limit in said
            if limit.direction is direction and getattr(limit, field) is not None
        ]
        nearest = [limit for rank, limit in limits if rank == limits[0][0]]
        if not nearest:
            continue
        best = nearest[0] if burst is None else min(nearest, key=operator.attrgetter(field))
        fields[field] = getattr(best, field)
        if burst is not None:
            fields[burst] = getattr(best, burst)
    return Limit(direction=direction, **fields) if fields else None
