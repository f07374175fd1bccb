"""What libvirt's events and states mean: the tables that the translator goes by.

Names are libvirt's (include/libvirt/libvirt-domain.h) without their prefixes. What libvirt really
sends in which case was measured; where it says less than one would like, the cause is unknown.
"""

import enum

import msgspec

from vnet_agent.model.event import Cause, Type


class Move(enum.Enum):
    """What happens to an instance on this host."""

    NOTHING = enum.auto()
    START = enum.auto()
    SUSPEND = enum.auto()
    RESUME = enum.auto()
    ENDING = enum.auto()
    """It will stop; says by whom."""
    STOP = enum.auto()
    CRASH = enum.auto()
    """The guest has crashed; the instance is still there."""
    DIE = enum.auto()
    """It crashed and is gone."""
    ARRIVE = enum.auto()
    """It is coming by migration; its guest does not run here yet."""
    ARRIVED = enum.auto()
    LEAVE = enum.auto()
    """Its guest is paused for the switch to another host, which can still fail."""
    LEFT = enum.auto()


class Meaning(msgspec.Struct, frozen=True):
    move: Move
    cause: Cause = Cause.UNKNOWN


_GUEST, _OPERATOR, _HOST, _UNKNOWN = Cause.GUEST, Cause.OPERATOR, Cause.HOST, Cause.UNKNOWN

#: (event, detail) of lifecycle events; `*` stands for details that are not listed.
LIFECYCLE: dict[tuple[str, str], Meaning] = {
    ("DEFINED", "*"): Meaning(Move.NOTHING),
    ("UNDEFINED", "*"): Meaning(Move.NOTHING),
    ("STARTED", "BOOTED"): Meaning(Move.START, _OPERATOR),
    ("STARTED", "MIGRATED"): Meaning(Move.ARRIVE),
    ("STARTED", "RESTORED"): Meaning(Move.START, _OPERATOR),
    ("STARTED", "FROM_SNAPSHOT"): Meaning(Move.START, _OPERATOR),
    ("STARTED", "WAKEUP"): Meaning(Move.RESUME),
    ("STARTED", "*"): Meaning(Move.START),
    ("SUSPENDED", "PAUSED"): Meaning(Move.SUSPEND, _OPERATOR),
    ("SUSPENDED", "MIGRATED"): Meaning(Move.LEAVE),
    ("SUSPENDED", "IOERROR"): Meaning(Move.SUSPEND, _HOST),
    ("SUSPENDED", "WATCHDOG"): Meaning(Move.SUSPEND, _GUEST),
    ("SUSPENDED", "RESTORED"): Meaning(Move.SUSPEND, _OPERATOR),
    ("SUSPENDED", "FROM_SNAPSHOT"): Meaning(Move.SUSPEND, _OPERATOR),
    ("SUSPENDED", "API_ERROR"): Meaning(Move.SUSPEND, _HOST),
    ("SUSPENDED", "POSTCOPY"): Meaning(Move.LEAVE),
    ("SUSPENDED", "POSTCOPY_FAILED"): Meaning(Move.SUSPEND, _HOST),
    ("SUSPENDED", "*"): Meaning(Move.SUSPEND),
    ("RESUMED", "UNPAUSED"): Meaning(Move.RESUME, _OPERATOR),
    ("RESUMED", "MIGRATED"): Meaning(Move.ARRIVED),
    ("RESUMED", "FROM_SNAPSHOT"): Meaning(Move.RESUME, _OPERATOR),
    ("RESUMED", "POSTCOPY"): Meaning(Move.ARRIVED),
    ("RESUMED", "POSTCOPY_FAILED"): Meaning(Move.NOTHING),
    ("RESUMED", "*"): Meaning(Move.RESUME),
    ("SHUTDOWN", "FINISHED"): Meaning(Move.ENDING),
    ("SHUTDOWN", "GUEST"): Meaning(Move.ENDING, _GUEST),
    ("SHUTDOWN", "HOST"): Meaning(Move.ENDING, _OPERATOR),
    ("SHUTDOWN", "*"): Meaning(Move.ENDING),
    ("STOPPED", "SHUTDOWN"): Meaning(Move.STOP),
    ("STOPPED", "DESTROYED"): Meaning(Move.STOP, _OPERATOR),
    ("STOPPED", "CRASHED"): Meaning(Move.DIE, _GUEST),
    ("STOPPED", "MIGRATED"): Meaning(Move.LEFT),
    ("STOPPED", "SAVED"): Meaning(Move.STOP, _OPERATOR),
    ("STOPPED", "FAILED"): Meaning(Move.DIE, _HOST),
    ("STOPPED", "FROM_SNAPSHOT"): Meaning(Move.STOP, _OPERATOR),
    ("STOPPED", "*"): Meaning(Move.STOP),
    ("PMSUSPENDED", "*"): Meaning(Move.SUSPEND, _GUEST),
    ("CRASHED", "*"): Meaning(Move.CRASH, _GUEST),
}


def lifecycle(event: str, detail: str) -> Meaning:
    """The meaning of a lifecycle event; NOTHING for an event of a later libvirt."""
    known = LIFECYCLE.get((event, detail)) or LIFECYCLE.get((event, "*"))
    return known or Meaning(Move.NOTHING)


#: Why a domain is off, as a listing tells it: (type or None for no stop at all, cause).
SHUTOFF: dict[str, tuple[Type | None, Cause]] = {
    "shutdown": (Type.STOPPED, _UNKNOWN),
    "destroyed": (Type.STOPPED, _OPERATOR),
    "crashed": (Type.CRASHED, _GUEST),
    "migrated": (None, _UNKNOWN),
    "saved": (Type.STOPPED, _OPERATOR),
    "failed": (Type.CRASHED, _HOST),
    "from-snapshot": (Type.STOPPED, _OPERATOR),
}

#: Why a domain is paused; what passes by itself (migration, save, snapshot, start) is absent.
PAUSED: dict[str, Cause] = {
    "unknown": _UNKNOWN,
    "user": _OPERATOR,
    "ioerror": _HOST,
    "watchdog": _GUEST,
    "from-snapshot": _OPERATOR,
    "postcopy-failed": _HOST,
    "api-error": _HOST,
}
