"""What an event or a port snapshot says about where an instance runs: pure functions.

Events of one host are ordered by epoch and sequence, which `marks` remember, so the newest is
certain. Between hosts there is no such order. There a migration's generation decides, and where
it cannot, the hosts' clocks.
"""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from vnet_agent.model.event import Cause, Type
from vnet_controller.intake import Incoming

RUNNING = "running"
#: Its ports are active on the host; no event has said more than that.
ACTIVE = "active"

_STATES = {
    Type.STARTED: RUNNING,
    Type.STOPPED: "stopped",
    Type.REBOOTED: RUNNING,
    Type.CRASHED: "crashed",
    Type.SUSPENDED: "suspended",
    Type.RESUMED: RUNNING,
}
GONE = ("stopped", "crashed")

#: What only the host that runs the instance can tell. What other hosts tell of an end is about
#: their remains of it.
_SIGNS_OF_LIFE = (Type.STARTED, Type.REBOOTED, Type.RESUMED)

#: How far apart two hosts' clocks may be when a migration leaves the host that is recorded.
CLOCK_SKEW_US = 10_000_000


@dataclass(frozen=True, slots=True)
class Instance:
    """`since_us`: when the state began; `ordered_us`: the newest time that any event told.

    `generation` is that of the last migration, None where none is known since it started.
    """

    uuid: str
    name: str
    host: str
    state: str
    cause: str
    since_us: int
    ordered_us: int
    generation: int | None = None


class MigrationData(msgspec.Struct, frozen=True):
    """What of a migration event's data decides; generation 0 is one that was never agreed on."""

    source: str
    destination: str
    generation: int | None = None


def concerns_instance(kind: Type) -> bool:
    return kind in _STATES or kind is Type.MIGRATION_COMPLETED


def apply_event(instance: Instance | None, incoming: Incoming) -> Instance | None:
    """The instance after an event that its host did not tell before."""
    event = incoming.event
    if event.type is Type.MIGRATION_COMPLETED:
        return _apply_move(instance, incoming)
    state = _STATES.get(event.type)
    if state is None:
        return instance
    if instance is not None and instance.host != incoming.host:
        is_newer = incoming.time_us > instance.ordered_us
        if event.type not in _SIGNS_OF_LIFE or not is_newer:
            return instance
    afresh = instance is None or event.type is Type.STARTED or instance.host != incoming.host
    return Instance(
        uuid=event.subject or "",
        name=clean_name(event.data.get("name")) or (instance.name if instance else ""),
        host=incoming.host,
        state=state,
        cause=event.cause,
        since_us=incoming.time_us,
        ordered_us=max(incoming.time_us, instance.ordered_us if instance else 0),
        generation=None if afresh or instance is None else instance.generation,
    )


def _apply_move(instance: Instance | None, incoming: Incoming) -> Instance | None:
    """The destination says that the instance runs there now; the source's word moves nothing."""
    try:
        data = msgspec.convert(incoming.event.data, MigrationData)
    except msgspec.ValidationError:
        return instance
    generation = data.generation or None
    if generation is not None and not 0 < generation < 2**63:
        return instance
    if data.destination != incoming.host:
        return instance
    name = clean_name(incoming.event.data.get("instance_name"))
    if instance is None:
        return Instance(
            uuid=incoming.event.subject or "",
            name=name,
            host=incoming.host,
            state=ACTIVE,
            cause=incoming.event.cause,
            since_us=incoming.time_us,
            ordered_us=incoming.time_us,
            generation=generation,
        )
    if instance.host != incoming.host and not _is_next_move(instance, data, incoming.time_us):
        return instance
    return replace(
        instance,
        name=name or instance.name,
        host=incoming.host,
        ordered_us=max(incoming.time_us, instance.ordered_us),
        generation=newest(generation, instance.generation),
    )


def _is_next_move(instance: Instance, data: MigrationData, time_us: int) -> bool:
    if data.generation and instance.generation:
        if data.generation != instance.generation:
            return data.generation > instance.generation
        return time_us > instance.ordered_us
    skew = CLOCK_SKEW_US if data.source == instance.host else 0
    return time_us > instance.ordered_us - skew


def apply_snapshot(
    instance: Instance | None,
    *,
    uuid: str,
    name: str,
    host: str,
    generation: int,
    rival: int | None,
    now_us: int,
) -> Instance:
    """The instance after `host` said that its ports are active there, in `generation`.

    `rival` is the newest generation in which the host that is recorded has ports of it that did
    not move away, None if it has none. Against a rival only a newer generation moves the
    instance, since a snapshot of the source may have been under way while a migration completed.
    """
    if instance is None:
        return Instance(
            uuid, clean_name(name), host, ACTIVE, Cause.UNKNOWN, now_us, now_us, generation
        )
    if instance.host == host:
        name = clean_name(name) or instance.name
        if instance.generation is None:
            return replace(instance, name=name)
        return replace(instance, name=name, generation=max(generation, instance.generation))
    if rival is not None and generation <= max(rival, instance.generation or 0):
        return instance
    gone = instance.state in GONE
    return replace(
        instance,
        name=clean_name(name) or instance.name,
        host=host,
        state=ACTIVE if gone else instance.state,
        since_us=now_us if gone else instance.since_us,
        ordered_us=max(now_us, instance.ordered_us),
        generation=generation,
    )


def newest(first: int | None, second: int | None) -> int | None:
    return max((g for g in (first, second) if g is not None), default=None)


def clean_name(value: Any) -> str:
    """A name fit for a column: text, without NUL, not longer than 255; else empty."""
    return value.replace("\0", "\ufffd")[:255] if isinstance(value, str) else ""
