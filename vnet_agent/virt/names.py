"""libvirt's numbers as the names of its documentation."""

import libvirt

LIFECYCLE = (
    "DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED",
    "STOPPED", "SHUTDOWN", "PMSUSPENDED", "CRASHED",
)  # fmt: skip
STATES = (
    "nostate", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "pmsuspended",
)  # fmt: skip
#: States with reasons of their own; VIR_DOMAIN_SHUTDOWN_* are flags of a call, not reasons.
_WITH_REASONS = ("running", "paused", "shutoff", "crashed")


def _table(prefix: str) -> dict[int, str]:
    found = (name for name in dir(libvirt) if name.startswith(prefix))
    return {getattr(libvirt, name): name.removeprefix(prefix) for name in found}


_DETAILS = {number: _table(f"VIR_DOMAIN_EVENT_{name}_") for number, name in enumerate(LIFECYCLE)}
_REASONS = {
    name: {
        number: reason.lower().replace("_", "-")
        for number, reason in _table(f"VIR_DOMAIN_{name.upper()}_").items()
    }
    for name in _WITH_REASONS
}
_JOBS = _table("VIR_DOMAIN_JOB_OPERATION_")
_IO_ACTIONS = _table("VIR_DOMAIN_EVENT_IO_ERROR_")
_WATCHDOG_ACTIONS = _table("VIR_DOMAIN_EVENT_WATCHDOG_")
_CLOSE_REASONS = {0: "error", 1: "end of file", 2: "keep-alive time-out", 3: "closed by us"}


def lifecycle(event: int, detail: int) -> tuple[str, str]:
    """Names such as ("STOPPED", "MIGRATED"); a number as text for what a newer libvirt adds."""
    name = LIFECYCLE[event] if 0 <= event < len(LIFECYCLE) else str(event)
    return name, _DETAILS.get(event, {}).get(detail, str(detail))


def state(number: int, reason: int) -> tuple[str, str]:
    """Names such as ("paused", "starting-up")."""
    name = STATES[number] if 0 <= number < len(STATES) else "nostate"
    return name, _REASONS.get(name, {}).get(reason, "unknown")


def job_operation(number: int) -> str:
    """A name such as MIGRATION_OUT."""
    return _JOBS.get(number, str(number))


def io_action(number: int) -> str:
    return _IO_ACTIONS.get(number, str(number))


def watchdog_action(number: int) -> str:
    return _WATCHDOG_ACTIONS.get(number, str(number))


def close_reason(number: int) -> str:
    return _CLOSE_REASONS.get(number, str(number))
