"""Who is a member of which group, over all hosts: what their ports and the groups add up to.

Kept in memory: the database has the ports and the groups, and it is made of them at the start.
"""

import asyncio
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from vnet_agent.model.policy import Group
from vnet_agent.model.port import Port
from vnet_controller.hub import Latest
from vnet_controller.store import groups, hosts
from vnet_controller.store.database import Database

#: Group -> network -> addresses and CIDRs, sorted.
Members = dict[str, dict[int, list[str]]]


class _View(NamedTuple):
    """Members of all groups, and by host the groups that rules on its ports ask for."""

    members: Members
    asked: Mapping[str, frozenset[str]]


class Membership:
    """`changed` grows with every change that may matter to somebody."""

    def __init__(self, database: Database, revision: Latest) -> None:
        self.changed = Latest()
        self._database = database
        self._revision = revision
        self._ports: dict[str, tuple[Port, ...]] = {}
        self._lock = asyncio.Lock()
        self._seen: tuple[int, int] | None = None
        self._view = _View({}, {})

    async def start(self) -> None:
        for host, ports in (await self._database.read(hosts.read_ports)).items():
            self._ports[host] = _members_among(ports)

    def take_ports(self, host: str, ports: Sequence[Port]) -> None:
        """All that the host has now; to be called in the order of the commits."""
        found = _members_among(ports)
        if self._ports.get(host, ()) != found:
            self._ports[host] = found
            self.changed.advance(self.changed.value + 1)

    def forget_host(self, host: str) -> None:
        if self._ports.pop(host, ()):
            self.changed.advance(self.changed.value + 1)

    def policy_changed(self) -> None:
        self.changed.advance(self.changed.value + 1)

    async def of_group(self, name: str) -> dict[int, list[str]]:
        return (await self._read()).members.get(name, {})

    async def of_host(self, host: str) -> tuple[str, Members]:
        """A digest, and the members of each group that a rule on the host's ports asks for."""
        view = await self._read()
        asked = {name: view.members.get(name, {}) for name in sorted(view.asked.get(host, ()))}
        return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32], asked

    async def _read(self) -> _View:
        """Made at most once for each change, however many hosts ask."""
        async with self._lock:
            wanted = self.changed.value, self._revision.value
            if self._seen != wanted:
                _, policy = await self._database.read(groups.read_policy)
                self._view = await asyncio.to_thread(_make_view, policy, dict(self._ports))
                self._seen = wanted
            return self._view


def _members_among(ports: Iterable[Port]) -> tuple[Port, ...]:
    """Only what membership depends on, so that nothing else is news; in one order."""
    kept = (
        Port(
            uuid=port.uuid,
            instance=port.instance,
            instance_name="",
            tap="",
            mac="",
            addresses=tuple(sorted(item for item in port.addresses if _is_address(item))),
            network=port.network,
            project=port.project,
        )
        for port in ports
    )
    return tuple(sorted(kept, key=lambda port: port.uuid))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _make_view(policy: Sequence[Group], ports: Mapping[str, Sequence[Port]]) -> _View:
    index: dict[str, list[Group]] = {}
    for group in policy:
        for selector in group.applies_to:
            index.setdefault(selector, []).append(group)
    asks = {
        group.name: frozenset(rule.remote_group for rule in group.rules if rule.remote_group)
        for group in policy
    }
    found: dict[str, dict[int, set[str]]] = {group.name: {} for group in policy}
    asked: dict[str, frozenset[str]] = {}
    for host, listed in ports.items():
        names: set[str] = set()
        for port in listed:
            for group in _groups_of(index, port):
                found[group.name].setdefault(port.network, set()).update(port.addresses)
                names |= asks[group.name]
        asked[host] = frozenset(names)
    members = {
        name: {network: sorted(addresses) for network, addresses in sorted(networks.items())}
        for name, networks in found.items()
    }
    return _View(members, asked)


def _groups_of(index: Mapping[str, Sequence[Group]], port: Port) -> list[Group]:
    keys = ["*", f"port:{port.uuid}", f"instance:{port.instance}"]
    if port.project is not None:
        keys.append(f"project:{port.project}")
    return [group for key in keys for group in index.get(key, ())]
