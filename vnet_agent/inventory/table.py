"""The inventory's ports and their twins in the datapath: every change goes to both at once."""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Protocol

from vnet_agent.datapath.base import Driver, PortEntry
from vnet_agent.exceptions import StaleGeneration, UnknownPort, VnetError
from vnet_agent.inventory import membership
from vnet_agent.inventory.entry import Entry
from vnet_agent.inventory.links import Links
from vnet_agent.model.policy import Policy
from vnet_agent.model.port import Port, Role

LOG = logging.getLogger(__name__)


class PolicyStore(membership.PolicyStore, Protocol):
    """The part of the policy store that is needed here."""

    def resolve(self, port: Port) -> Policy: ...


class Table:
    """Holds the entries by port UUID. Methods raise DatapathError and StaleGeneration.

    The driver works in threads: a port's tables take tens of milliseconds to make. Callers make
    one change at a time and let none be cancelled half way.
    """

    def __init__(self, driver: Driver, policy: PolicyStore, *, quota: int) -> None:
        self._driver = driver
        self._policy = policy
        self._quota = quota
        self._entries: dict[str, Entry] = {}
        self._membership = membership.Membership(policy)
        self._told: dict[str, tuple[membership.Members, bool]] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, port: str) -> Entry | None:
        return self._entries.get(port)

    def of_instance(self, instance: str) -> list[Entry]:
        return [entry for entry in self if entry.port.instance == instance]

    def find(self, key: str) -> Entry:
        """By port UUID, tap name or MAC; UnknownPort."""
        wanted = key.lower()
        for entry in self:
            if wanted in (entry.port.uuid, entry.port.mac) or key == entry.port.tap:
                return entry
        raise UnknownPort(port=key)

    def adopt(self, links: Links) -> None:
        """Take over what an earlier process left in the datapath, without touching it."""
        for held in self._driver.ports():
            link = None if held.ifindex is None else links.by_index(held.ifindex)
            entry = Entry(
                port=_port_of(held, "" if link is None else link.name),
                role=held.role,
                generation=held.generation,
                local_id=held.local_id,
                ifindex=None if link is None else held.ifindex,
                known=False,
            )
            entry.tagged = link is not None and link.alias == entry.port.alias
            self._entries[held.port] = entry
            LOG.info("Port %s of %s adopted, %s", held.port, held.instance, held.role)

    async def put(self, port: Port, *, role: Role, generation: int) -> Entry:
        """Create the port or change it, and give it its policy: then it may be attached."""
        entry = self._entries.get(port.uuid)
        if entry is not None and entry.port.instance != port.instance:
            LOG.info("Port %s now belongs to %s", port.uuid, port.instance)
            await asyncio.to_thread(
                self._driver.remove_port, port.uuid, generation=entry.generation
            )
            del self._entries[port.uuid]
            entry = None
        if entry is None or (entry.port, entry.role, entry.generation, entry.known) != (
            port, role, generation, True,
        ):  # fmt: skip
            if entry is not None and entry.port.network != port.network:
                entry.policy = None  # the same groups are others there
            entry = await self._set(entry, port, role, generation)
            entry.known = True
        await self._tell_members_if_possible()
        policy = self._policy.resolve(port)
        if policy != entry.policy:
            await asyncio.to_thread(self._driver.set_policy, port.uuid, policy)
            entry.policy = policy
        return entry

    async def change(self, entry: Entry, *, role: Role | None = None, generation: int) -> None:
        """Give the port another role or owner; StaleGeneration for an older owner than it has."""
        if generation < entry.generation:
            raise StaleGeneration(port=entry.port.uuid, given=generation, current=entry.generation)
        role = role or entry.role
        if (role, generation) != (entry.role, entry.generation):
            await self._set(entry, entry.port, role, generation)

    async def flush(self, entry: Entry, *, generation: int) -> None:
        """Forget connections of an earlier stay of the VM."""
        count = await asyncio.to_thread(self._driver.flush, entry.port.uuid, generation=generation)
        LOG.info("Port %s: %d connections of an earlier stay forgotten", entry.port.uuid, count)

    async def remove(self, entry: Entry) -> None:
        """Forget the port, its connections and its policy, here and in the datapath."""
        try:
            await asyncio.to_thread(
                self._driver.remove_port, entry.port.uuid, generation=entry.generation
            )
        except UnknownPort:
            LOG.debug("Port %s was gone from the datapath already", entry.port.uuid)
        self._entries.pop(entry.port.uuid, None)
        LOG.info("Port %s of %s forgotten", entry.port.uuid, entry.port.instance)
        await self._tell_members_if_possible()

    async def notice_roles(self) -> None:
        """Learn which standby ports the datapath activated because their guest sent a frame."""
        if not any(entry.role is Role.STANDBY for entry in self):
            return
        for held in await asyncio.to_thread(self._driver.ports):
            entry = self._entries.get(held.port)
            if entry and entry.role is Role.STANDBY and held.role is Role.ACTIVE:
                entry.role = Role.ACTIVE
                LOG.info("Port %s is active: its guest sent a frame", held.port)

    async def is_followed(self, entry: Entry) -> bool:
        """Whether a migration takes the VM what still comes for it: it says when that ends."""
        try:
            return await asyncio.to_thread(self._driver.holding(entry.port.uuid).relays)
        except (VnetError, LookupError):
            return False

    async def apply_policy(self) -> None:
        """Give every port the policy that holds now; the first error is raised after all.

        New members are there before the rules that ask for them, and old ones until no rule asks
        any more: what both policies admit passes at every moment.
        """
        await self._tell_members(complete=False)
        errors = [error for entry in self if (error := await self._apply_policy(entry))]
        if errors:
            raise errors[0]
        await self._tell_members()

    async def _tell_members_if_possible(self) -> None:
        """Who cannot be made a member is none; that is no reason to refuse a port."""
        try:
            await self._tell_members()
        except VnetError as error:
            LOG.error("Members of groups: %s", error)

    async def _tell_members(self, *, complete: bool = True) -> None:
        """Of a port that was adopted too little is known: until all are, nobody is taken away."""
        complete = complete and all(entry.known for entry in self)
        wanted = self._membership.of(entry.port for entry in self)
        self._told = {name: told for name, told in self._told.items() if name in wanted}
        for name, members in wanted.items():
            if self._told.get(name) != (members, complete):
                await asyncio.to_thread(self._driver.set_members, name, members, complete=complete)
                self._told[name] = members, complete

    async def _apply_policy(self, entry: Entry) -> VnetError | None:
        # Of an adopted port too little is known to choose its groups; it keeps what it has until
        # libvirt tells the rest.
        policy = self._policy.resolve(entry.port) if entry.known else entry.policy
        if policy is None or policy == entry.policy:
            return None
        try:
            await asyncio.to_thread(self._driver.set_policy, entry.port.uuid, policy)
        except VnetError as error:
            LOG.error("Port %s keeps its old policy: %s", entry.port.uuid, error)
            return error
        entry.policy = policy
        return None

    async def _set(self, entry: Entry | None, port: Port, role: Role, generation: int) -> Entry:
        held = await asyncio.to_thread(
            self._driver.set_port,
            port.uuid,
            instance=port.instance,
            mac=port.mac,
            addresses=port.addresses,
            pairs=port.allowed_address_pairs,
            network=port.network,
            bridged=port.bridge is not None,
            port_security=port.port_security,
            role=role,
            generation=generation,
            quota=self._quota,
        )
        if entry is None or entry.role is not role:
            LOG.info("Port %s of %s: %s", port.uuid, port.instance, role)
        if entry is None:
            entry = Entry(port=port, role=role, generation=generation)
            self._entries[port.uuid] = entry
        entry.port, entry.role, entry.generation = port, role, generation
        entry.local_id = held.local_id
        return entry


def _port_of(held: PortEntry, tap: str) -> Port:
    return Port(
        uuid=held.port,
        instance=held.instance,
        instance_name="",
        tap=tap,
        mac=held.mac,
        addresses=held.addresses,
        allowed_address_pairs=held.pairs,
        network=held.network,
        bridge="?" if held.bridged else None,
        port_security=held.port_security,
    )


def snapshot(entries: Iterable[Entry]) -> tuple[object, ...]:
    """What `states` shows, to see whether it changed."""
    return tuple(entry.state() for entry in entries)
