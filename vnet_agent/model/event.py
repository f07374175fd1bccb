"""Events as the controller and the operator see them: CloudEvents 1.0."""

import enum
from typing import Any

import msgspec


class Type(enum.StrEnum):
    """Every event type of the contract."""

    STARTED = "vnet.instance.started"
    STOPPED = "vnet.instance.stopped"
    REBOOTED = "vnet.instance.rebooted"
    CRASHED = "vnet.instance.crashed"
    SUSPENDED = "vnet.instance.suspended"
    RESUMED = "vnet.instance.resumed"
    MIGRATION_STARTED = "vnet.instance.migration.started"
    MIGRATION_COMPLETED = "vnet.instance.migration.completed"
    MIGRATION_FAILED = "vnet.instance.migration.failed"
    PORT_TAGGED = "vnet.port.tagged"
    PORT_UNTAGGED = "vnet.port.untagged"
    PORT_QUOTA = "vnet.port.quota"
    AGENT_STARTED = "vnet.agent.started"
    AGENT_RESYNCED = "vnet.agent.resynced"
    TRIGGER_FIRED = "vnet.trigger.fired"


class Cause(enum.StrEnum):
    """Who made it happen."""

    GUEST = "guest"
    OPERATOR = "operator"
    HOST = "host"
    UNKNOWN = "unknown"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A CloudEvents 1.0 event in its JSON form.

    `id` is `HOST/EPOCH/SEQUENCE`, unique for ever. `epoch` is set when a host's journal is made
    and grows with each new journal; `sequence` grows by one with each event of the epoch, and is
    text of fixed width that sorts as it counts (CloudEvents' sequence extension). `time` is RFC
    3339 in UTC with microseconds. `inferred` marks what was concluded after a gap, not seen.
    """

    id: str
    source: str
    type: Type
    time: str
    sequence: str
    epoch: int
    subject: str | None = None
    inferred: bool = False
    cause: Cause = Cause.UNKNOWN
    data: dict[str, Any] = {}
    specversion: str = "1.0"
    datacontenttype: str = "application/json"
