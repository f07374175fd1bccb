"""From an instance's recorded state and what happens to it: its new state, and what to tell.

Pure functions; `state` is one of the constants, None for an instance that is off or elsewhere.
"""

import msgspec

from vnet_agent.events.causes import PAUSED, SHUTOFF, Meaning, Move
from vnet_agent.model.event import Cause, Type
from vnet_agent.model.virt import DomainState

RUNNING = "running"
PAUSED_STATE = "paused"
CRASHED = "crashed"
INCOMING = "incoming"
LEAVING = "leaving"

#: A guest of this host's, whatever it does at the moment.
_HERE = (RUNNING, PAUSED_STATE, LEAVING)


class Told(msgspec.Struct, frozen=True):
    type: Type
    cause: Cause = Cause.UNKNOWN
    inferred: bool = False


class Outcome(msgspec.Struct, frozen=True):
    state: str | None
    told: tuple[Told, ...] = ()


def advance(state: str | None, meaning: Meaning, ending: Cause | None = None) -> Outcome:
    """What a lifecycle event does; `ending` is who was said to end the instance, if anybody."""
    cause = meaning.cause
    match meaning.move:
        case Move.START:
            return _start(state, cause)
        case Move.SUSPEND if state in (RUNNING, LEAVING):
            return Outcome(PAUSED_STATE, (Told(Type.SUSPENDED, cause),))
        case Move.SUSPEND if state == INCOMING:
            return Outcome(PAUSED_STATE)  # it was suspended before it came
        case Move.RESUME if state == PAUSED_STATE:
            return Outcome(RUNNING, (Told(Type.RESUMED, cause),))
        case Move.RESUME if state is not None:
            return Outcome(RUNNING)
        case Move.STOP:
            return _stop(state, cause if ending is None else ending)
        case Move.CRASH if state in _HERE:
            return Outcome(CRASHED, (Told(Type.CRASHED, cause),))
        case Move.DIE:
            # Failing to come is no crash: the guest runs on where it was.
            told = (Told(Type.CRASHED, cause),) if state in _HERE else ()
            return Outcome(None, told)
        case Move.ARRIVE:
            return Outcome(INCOMING)
        case Move.ARRIVED:
            return Outcome(RUNNING)
        case Move.LEAVE if state == RUNNING:
            return Outcome(LEAVING)
        case Move.LEFT:
            return Outcome(None)
    return Outcome(state)


def _start(state: str | None, cause: Cause) -> Outcome:
    started = Told(Type.STARTED, cause)
    if state in _HERE:  # it cannot start without having stopped
        return Outcome(RUNNING, (Told(Type.STOPPED, inferred=True), started))
    return Outcome(RUNNING, (started,))


def _stop(state: str | None, cause: Cause) -> Outcome:
    if state in _HERE or state == CRASHED:
        return Outcome(None, (Told(Type.STOPPED, cause),))
    return Outcome(None)


def compare(state: str | None, domain: DomainState) -> Outcome:
    """What must have happened since `state` was recorded, going by a listing of libvirt."""
    match domain.state:
        case "running" | "blocked" | "nostate":
            return _found_running(state)
        case "paused":
            return _found_paused(state, domain.reason)
        case "pmsuspended":
            return _found_suspended(state, Cause.GUEST)
        case "crashed":
            told = () if state == CRASHED else (_inferred(Type.CRASHED, Cause.GUEST),)
            return Outcome(CRASHED, told)
        case "shutoff":
            return _found_off(state, domain.reason)
    return Outcome(state)  # on its way to another state


def _inferred(kind: Type, cause: Cause = Cause.UNKNOWN) -> Told:
    return Told(kind, cause, inferred=True)


def _found_running(state: str | None) -> Outcome:
    if state is None or state == CRASHED:
        return Outcome(RUNNING, (_inferred(Type.STARTED),))
    if state == PAUSED_STATE:
        return Outcome(RUNNING, (_inferred(Type.RESUMED),))
    return Outcome(RUNNING)


def _found_paused(state: str | None, reason: str) -> Outcome:
    if reason == "crashed":
        told = () if state == CRASHED else (_inferred(Type.CRASHED, Cause.GUEST),)
        return Outcome(CRASHED, told)
    if reason in PAUSED:
        return _found_suspended(state, PAUSED[reason])
    if reason in ("migration", "postcopy") and state is None:
        return Outcome(INCOMING)
    return Outcome(state)


def _found_suspended(state: str | None, cause: Cause) -> Outcome:
    suspended = _inferred(Type.SUSPENDED, cause)
    if state is None or state == CRASHED:
        return Outcome(PAUSED_STATE, (_inferred(Type.STARTED), suspended))
    if state in (RUNNING, LEAVING):
        return Outcome(PAUSED_STATE, (suspended,))
    return Outcome(PAUSED_STATE)


def _found_off(state: str | None, reason: str) -> Outcome:
    kind, cause = SHUTOFF.get(reason, (Type.STOPPED, Cause.UNKNOWN))
    if kind is None or state is None or state == INCOMING:
        return Outcome(None)
    if state == CRASHED:
        told = () if kind is Type.CRASHED else (_inferred(kind, cause),)
        return Outcome(None, told)
    return Outcome(None, (_inferred(kind, cause),))


def missing(state: str, elsewhere: bool | None) -> Outcome | None:
    """What became of an instance that libvirt does not list any more.

    `elsewhere`: whether it runs on another host; None is "cannot be told now", and then the
    answer is None too: wait, rather than tell of a stop that was a migration.
    """
    if state in (INCOMING, LEAVING) or elsewhere:
        return Outcome(None)
    if elsewhere is None:
        return None
    return Outcome(None, (_inferred(Type.STOPPED),))
