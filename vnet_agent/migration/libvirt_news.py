"""What libvirt's events mean to a session; see the table of a live migration's events in doc/."""

from collections.abc import Iterable

from vnet_agent.migration.destination import DestinationRunner
from vnet_agent.migration.session import News
from vnet_agent.migration.source import SourceRunner
from vnet_agent.model.virt import DomainEvent, DomainState

#: Details of SUSPENDED and RESUMED that belong to a switchover.
_SWITCHOVER = frozenset({"MIGRATED", "POSTCOPY"})
_GONE = frozenset({"shutoff", "crashed", "nostate"})


def is_incoming(event: DomainEvent) -> bool:
    """QEMU was started here to take a guest."""
    return (event.kind, event.event, event.detail) == ("lifecycle", "STARTED", "MIGRATED")


def is_departure(event: DomainEvent) -> bool:
    """The statistics of a migration away; saving and snapshots complete jobs with others."""
    return (event.kind, event.event) == ("job-completed", "MIGRATION_OUT")


def tell_source(session: SourceRunner, event: DomainEvent) -> None:
    """SUSPENDED is not final: RESUMED after it means that the switchover failed. An event from
    before the session is of an attempt before."""
    if is_departure(event):
        session.measured_downtime(event.downtime_ms)
    if event.kind != "lifecycle" or 0 < event.time_ns < session.began_ns:
        return
    match event.event:
        case "SUSPENDED" if event.detail in _SWITCHOVER:
            session.guest_paused(event.time_ns)
        case "RESUMED":
            session.post(News.GUEST_RESUMED, event.detail)
        case "STOPPED" if event.detail == "MIGRATED":
            session.post(News.GUEST_GONE)
        case "STOPPED":
            session.post(News.GUEST_DIED, event.detail)


def tell_destination(session: DestinationRunner, event: DomainEvent) -> None:
    """An event from before STARTED speaks of the VM's earlier stay here, also when it comes after
    the session's hook; and so does STOPPED/MIGRATED at any time."""
    if event.kind != "lifecycle" or 0 < event.time_ns < session.saved.started_ns:
        return
    if is_incoming(event):
        session.guest_announced()
    if not session.heard:
        return
    match event.event:
        case "RESUMED":
            session.guest_arrived(f"guest resumed: {event.detail}", event.time_ns)
        case "SUSPENDED":
            # It was paused by its user before it left: it arrives as it was.
            session.guest_arrived(f"guest arrived suspended: {event.detail}")
        case "STOPPED" if event.detail != "MIGRATED":
            session.post(News.GUEST_DIED, event.detail)


def tell_statistics(sessions: Iterable[SourceRunner], event: DomainEvent) -> None:
    """They can come when the session is over already: the newest of the instance is meant."""
    mine = [session for session in sessions if session.report.instance == event.uuid]
    if mine:
        mine[-1].measured_downtime(event.downtime_ms)


def is_there(domain: DomainState | None) -> bool:
    return domain is not None and domain.state not in _GONE


def waits_for_guest(domain: DomainState) -> bool:
    """So does one that is being switched over to another host, to its own."""
    return domain.state == "paused" and domain.reason == "migration"


def resync_source(session: SourceRunner, domain: DomainState | None) -> None:
    if domain is None or not is_there(domain):
        session.post(News.GUEST_GONE)
    elif domain.state in ("running", "blocked"):
        session.post(News.GUEST_RESUMED)


def resync_destination(session: DestinationRunner, domain: DomainState | None) -> None:
    """A domain that waits for its guest is paused with the reason migration."""
    session.heard |= domain is not None
    if domain is None or not is_there(domain):
        if session.saved.guest_started:
            session.post(News.GUEST_DIED, "not there any more after a gap")
    elif domain.state in ("running", "blocked"):
        session.guest_arrived("the guest runs, as libvirt says after a gap")
    elif domain.state == "paused" and domain.reason == "user":
        session.guest_arrived("the guest is here, paused, as libvirt says after a gap")
    else:
        session.guest_started()
