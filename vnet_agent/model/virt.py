"""What libvirt says, decoded at the door into typed values."""

import msgspec


class DomainEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One libvirt domain event.

    `kind` is `lifecycle`, `reboot`, `device-added`, `device-removed`, `watchdog`, `io-error`,
    `migration-iteration` or `job-completed`. For `lifecycle`, `event` and `detail` are libvirt's
    names, upper case without prefix: `STOPPED`, `MIGRATED`. For devices `detail` is the alias,
    for iterations the number. `time_ns` is wall-clock time (ns since 1970) when the callback ran.
    `downtime_ms` is libvirt's own measure in `job-completed` of an outgoing migration (the
    statistics' `downtime`, in milliseconds), None where it gives none.
    """

    kind: str
    uuid: str
    name: str
    event: str = ""
    detail: str = ""
    time_ns: int = 0
    downtime_ms: float | None = None


class ConnectionChange(msgspec.Struct, frozen=True, kw_only=True):
    """libvirtd came or went; after `connected=True` everything must be compared anew."""

    connected: bool
    reason: str = ""


class HookCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of libvirt's qemu hook: `NAME OPERATION SUBOP`, and the domain XML from stdin."""

    domain: str
    operation: str
    suboperation: str = ""
    xml: str = ""
    time_ns: int = 0


class DomainState(msgspec.Struct, frozen=True, kw_only=True):
    """One domain in a listing of libvirt.

    `state` is `running`, `blocked`, `paused`, `shutdown` (in the course of it), `shutoff`,
    `crashed`, `pmsuspended` or `nostate`; `reason` is libvirt's reason for it, as in `migrated`,
    `starting-up`, `user` (virDomainRunningReason and its like, lower case with hyphens), or
    `unknown`. `xml` is the live domain XML, empty for a domain that is not active. `job` is what
    libvirt does with the domain for long, such as `MIGRATION_OUT` or `SAVE`; empty for nothing,
    and in a listing, which does not ask.
    """

    uuid: str
    name: str
    state: str
    reason: str = "unknown"
    xml: str = ""
    job: str = ""
