"""Who is a member of which group, in the tables: by identity, so that no rule lists addresses.

A group has an id of its own in each network whose ports' rules name it, and each member is one
entry under that id, whichever ports refer to it.
"""

import functools
import ipaddress
import sys
from collections.abc import Collection, Iterable, Mapping

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout

_LAST = layout.u32(c.META_LAST_GROUP)
_THERE = layout.u32(1)


class GroupTable:
    """Over an open datapath; raises what the extension raises."""

    def __init__(self, handle: c.Datapath) -> None:
        """Adopts what is in the tables."""
        self._c = handle
        self._ids: dict[tuple[str, int], int] = {}
        self._held: dict[int, set[bytes]] = {}
        self._wanted: dict[str, Mapping[int, Collection[str]]] = {}
        for key, value in handle.table_items(c.TABLE_GROUPS):
            group_id = int.from_bytes(key, sys.byteorder)
            name = layout.raw("group", "name", value).rstrip(b"\0").decode(errors="replace")
            self._ids[name, layout.number("group", "network", value)] = group_id
            self._held[group_id] = set()
        for key, _ in handle.table_items(c.TABLE_PEERS):
            group_id = layout.number("peer_key", "group", key)
            if group_id in self._held:
                self._held[group_id].add(key)
            else:  # its maker died on the way
                handle.table_remove(c.TABLE_PEERS, key)

    def network_of(self, group_ids: Iterable[int]) -> int | None:
        """The network that the ids are of, None for none."""
        wanted = set(group_ids)
        return next((net for (_, net), number in self._ids.items() if number in wanted), None)

    def id_of(self, name: str, network: int) -> int:
        """The group's id there; a new one has its members before a rule names it."""
        group_id = self._ids.get((name, network))
        if group_id is None:
            group_id = self._next_id()
            self._c.table_put(
                c.TABLE_GROUPS,
                layout.u32(group_id),
                layout.pack("group", network=network, name=name.encode().ljust(64, b"\0")),
            )
            self._ids[name, network] = group_id
            self._held[group_id] = set()
            self._put(group_id, self._keys(name, network))
        return group_id

    def add_members(self, name: str, members: Mapping[int, Collection[str]]) -> None:
        """`members` by network; those of an id that is made later are remembered."""
        for member in {member for who in members.values() for member in who}:
            _read_member(member)  # or nothing is changed
        self._wanted[name] = members
        for number, keys in self._all_keys(name):
            self._put(number, keys)

    def drop_others(self, name: str) -> set[int]:
        """Take away who was not in the last `add_members`; returns the ids that lost somebody."""
        left = set()
        for number, keys in self._all_keys(name):
            gone = self._held[number] - keys
            if gone:
                self._c.table_remove(c.TABLE_PEERS, b"".join(gone))
                self._held[number] -= gone
                left.add(number)
        return left

    def retain(self, used: set[int]) -> None:
        """Forget groups that no rule names any more."""
        for place, number in list(self._ids.items()):
            if number not in used:
                self._c.table_remove(c.TABLE_PEERS, b"".join(self._held.pop(number)))
                self._c.table_remove(c.TABLE_GROUPS, layout.u32(number))
                del self._ids[place]

    def _put(self, group_id: int, keys: set[bytes]) -> None:
        for key in keys - self._held[group_id]:
            self._c.table_put(c.TABLE_PEERS, key, _THERE)
            self._held[group_id].add(key)

    def _all_keys(self, name: str) -> list[tuple[int, set[bytes]]]:
        """The group's ids, one for each network, with what their members should be."""
        return [
            (number, self._keys(name, network))
            for (known, network), number in self._ids.items()
            if known == name
        ]

    def _keys(self, name: str, network: int) -> set[bytes]:
        group_id = self._ids[name, network]
        members = self._wanted.get(name, {}).get(network, ())
        return {_peer_key(group_id, member) for member in members}

    def _next_id(self) -> int:
        """The one after the last given; an id comes back only after all others had their turn."""
        used = set(self._held)
        last = int.from_bytes(self._c.table_get(c.TABLE_META, _LAST) or b"", sys.byteorder)
        for step in range(c.MAX_GROUP):
            candidate = (last + step) % c.MAX_GROUP + 1
            if candidate not in used:
                self._c.table_put(c.TABLE_META, _LAST, candidate.to_bytes(8, sys.byteorder))
                return candidate
        raise ValueError(f"all {c.MAX_GROUP} groups of all networks are in use")


def _peer_key(group_id: int, member: str) -> bytes:
    bits, address = _read_member(member)
    return layout.pack(
        "peer_key", prefix=c.PEER_GROUP_BITS + bits, group=group_id, address=address
    )


@functools.lru_cache(maxsize=65536)
def _read_member(member: str) -> tuple[int, bytes]:
    """Length of the prefix in bits of IPv6, and its address; ValueError for what is no CIDR."""
    network = ipaddress.ip_network(member)
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    return bits, layout.pack_address(str(network.network_address))
