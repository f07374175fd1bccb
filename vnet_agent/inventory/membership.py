"""Who is a member of the groups that rules ask for: ports of all hosts, and named addresses."""

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from vnet_agent.model.policy import Group
from vnet_agent.model.port import Port

#: Network -> addresses and CIDRs.
Members = dict[int, frozenset[str]]


class PolicyStore(Protocol):
    """The part of the policy store that is needed here."""

    @property
    def revision(self) -> str: ...

    @property
    def member_groups(self) -> Mapping[str, tuple[str, ...]]: ...

    def groups_of(self, port: Port) -> list[Group]: ...

    def members_elsewhere(self, name: str) -> Mapping[int, Collection[str]]: ...


def addresses_of(port: Port) -> set[str]:
    """What makes others let the port in: its own, and those of its allowed address pairs."""
    return {*port.addresses, *(pair.ip_address for pair in port.allowed_address_pairs)}


class Membership:
    """Remembers which groups apply to a port, so that a change of one costs no look at all."""

    def __init__(self, policy: PolicyStore) -> None:
        self._policy = policy
        self._revision = ""
        self._names: dict[Port, frozenset[str]] = {}

    def of(self, ports: Iterable[Port]) -> dict[str, Members]:
        """All members of each group that a rule asks for, if these are the ports there are."""
        groups = self._policy.member_groups
        if self._revision != self._policy.revision:
            self._revision, self._names = self._policy.revision, {}
        if not groups:
            return {}
        known = self._names
        self._names = {
            port: known[port] if port in known else self._look(port, groups) for port in ports
        }
        found: dict[str, dict[int, set[str]]] = {
            name: {
                network: {*members, *self._policy.members_elsewhere(name).get(network, ())}
                for network in {port.network for port in self._names}
            }
            for name, members in groups.items()
        }
        for port, names in self._names.items():
            for name in names:
                found[name][port.network].update(addresses_of(port))
        return {
            name: {network: frozenset(members) for network, members in networks.items()}
            for name, networks in found.items()
        }

    def _look(self, port: Port, groups: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
        return frozenset(group.name for group in self._policy.groups_of(port)) & groups.keys()
