"""What a listing of libvirt says about ports."""

import logging

import msgspec

from vnet_agent.exceptions import DomainXmlError
from vnet_agent.model.port import Port, Role
from vnet_agent.model.virt import DomainState
from vnet_agent.virt.xml import parse_ports

LOG = logging.getLogger(__name__)

#: Reasons of `paused` under which the guest of an incoming migration does not run here yet.
INCOMING = ("migration", "starting-up")


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """An active domain; `ports` is None when its XML was refused."""

    instance: str
    state: str
    reason: str
    ports: tuple[Port, ...] | None


class Listing:
    """Reads listings; keeps the ports of an XML that has not changed since the last one."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, tuple[Port, ...] | None]] = {}

    def read(self, domains: list[DomainState]) -> dict[str, Running]:
        """The active domains by instance UUID. A refused XML is logged once."""
        seen = {domain.uuid: (domain.xml, self._ports(domain)) for domain in domains if domain.xml}
        self._seen = seen
        return {
            domain.uuid: Running(
                instance=domain.uuid,
                state=domain.state,
                reason=domain.reason,
                ports=seen[domain.uuid][1],
            )
            for domain in domains
            if domain.xml
        }

    def _ports(self, domain: DomainState) -> tuple[Port, ...] | None:
        known = self._seen.get(domain.uuid)
        if known and known[0] == domain.xml:
            return known[1]
        try:
            ports = parse_ports(domain.xml, domain=domain.name)
            if any(port.instance != domain.uuid for port in ports):
                raise DomainXmlError(domain=domain.name, detail="it names another UUID")
        except DomainXmlError as error:
            LOG.error("%s; its ports stay as they are", error)
            return None
        return ports


def role_of(running: Running, current: Role | None) -> Role:
    """What this host is to the ports of an active domain, given what it was so far.

    A running guest settles it. A paused one does not say whether it is about to leave, about to
    come, or was paused by its user; then a role that migration gave stays, but for a port that
    waited for a guest which is now paused here for another reason than its coming.
    """
    if running.state != "paused":
        return Role.ACTIVE
    incoming = running.reason in INCOMING
    if current is None:
        return Role.STANDBY if incoming else Role.ACTIVE
    if current is Role.STANDBY and not incoming:
        return Role.ACTIVE
    return current
