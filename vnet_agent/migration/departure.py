"""Whether an instance is leaving for a host: only then may that host have its state.

The hosts' certificates say who asks. Where the VM goes is libvirt's word: it has an outgoing
migration's job from before the destination's hook until the destination runs the guest.
"""

from collections.abc import Iterable

from vnet_agent.migration.libvirt_news import is_there, waits_for_guest
from vnet_agent.migration.runner import is_over
from vnet_agent.model.migration import Report
from vnet_agent.model.virt import DomainState

_JOB = "MIGRATION_OUT"


def refusal(domain: DomainState | None, departures: Iterable[Report], destination: str) -> str:
    """Why `destination` may not have the state; empty when it may.

    `domain` is what libvirt says now, `departures` this host's reports as a source of the
    instance, the newest last. libvirt does not say whereto: once the guest has stopped here, the
    host that it stopped for is the one that asked before.
    """
    newest = next(reversed(list(departures)), None)
    if not is_there(domain):
        if newest is None or newest.destination != destination:
            return f"is not on this host, and was not seen leaving for {destination}"
        return ""
    assert domain is not None
    if domain.job != _JOB:
        return "is on this host, and libvirt is not migrating it"
    stopped_for = newest if newest and waits_for_guest(domain) and not is_over(newest) else None
    if stopped_for and stopped_for.destination != destination:
        return f"is leaving for {stopped_for.destination}"
    return ""
