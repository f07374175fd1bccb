"""Compiled policies in the tables: shared by ports, switched in one store, removed later."""

import sys
from collections.abc import Collection, Mapping
from typing import NamedTuple

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.compiler import compile_policy, digest, groups_of
from vnet_agent.datapath.groups import GroupTable
from vnet_agent.model.policy import Policy

#: A frame that began with the old rules has ended long before they go, in ns.
RETIRE_NS = 1_000_000_000

_NEXT_POLICY = layout.u32(0)


class _Key(NamedTuple):
    """What makes two compiled policies the same: groups have other ids in another network."""

    digest: bytes
    network: int | None


class PolicyTable:
    """Which port has which policy. Ids are never given twice, over restarts neither."""

    def __init__(self, handle: c.Datapath) -> None:
        self._c = handle
        self._groups = GroupTable(handle)
        self._digests: dict[_Key, int] = {}
        #: Ids of the groups that a policy's rules name.
        self._named: dict[int, frozenset[int]] = {}
        self._words: dict[int, tuple[int, int]] = {}
        self._retired: list[tuple[int, int]] = []

    def adopt(self, ports: list[bytes]) -> None:
        """Take over what is in the tables; policies that no port has are left-overs."""
        self._words = {
            layout.number("port", "local_id", data): divmod(
                layout.number("port", "policy", data), 1 << 32
            )
            for data in ports
        }
        used = {policy_id for policy_id, _ in self._words.values()}
        for key, value in self._c.table_items(c.TABLE_POLICIES):
            policy_id = int.from_bytes(key, sys.byteorder)
            if policy_id in used:
                named = _named_in(value)
                made_of = layout.raw("policy", "digest", value)
                self._digests[_Key(made_of, self._groups.network_of(named))] = policy_id
                self._named[policy_id] = named
        self._remove_unless(used)
        self._retain_groups()

    def start(self, local_id: int) -> None:
        """A new port: no policy, and a generation that no connection has (0 is nobody's)."""
        self._store(local_id, 0, 1)

    def assign(self, local_id: int, policy: Policy, *, network: int) -> None:
        old, generation = self._words[local_id]
        key = _Key(digest(policy), network if groups_of(policy) else None)
        policy_id = self._digests.get(key)
        if policy_id is None:
            policy_id = self._write(policy, key)
        if old != policy_id:
            self._store(local_id, policy_id, _after(generation))
            self._retire(old)

    def set_members(
        self, name: str, members: Mapping[int, Collection[str]], *, complete: bool
    ) -> None:
        """What connections owe to who is no member any more is judged again.

        First the members, then the ports that refer to the group: a verdict made in between is
        stale already.
        """
        try:
            self._groups.add_members(name, members)
        finally:  # a full table must not keep those in who have left
            left = self._groups.drop_others(name) if complete else set()
            for local_id, (policy_id, _) in list(self._words.items()):
                if self._named.get(policy_id, frozenset()) & left:
                    self.renew(local_id)

    def renew(self, local_id: int) -> None:
        """Make the cached verdicts stale."""
        policy_id, generation = self._words[local_id]
        self._store(local_id, policy_id, _after(generation))

    def release(self, local_id: int) -> None:
        old, _ = self._words.pop(local_id)
        self._retire(old)

    def purge(self) -> None:
        """Remove policies that have gone out of use long enough ago."""
        limit = self._c.now() - RETIRE_NS
        due = {policy_id for retired, policy_id in self._retired if retired <= limit}
        if not due:
            return
        self._retired = [item for item in self._retired if item[1] not in due]
        self._remove(due - {policy_id for policy_id, _ in self._words.values()})
        self._retain_groups()

    def _write(self, policy: Policy, key: _Key) -> int:
        network = key.network or 0
        try:
            compiled = compile_policy(policy, lambda name: self._groups.id_of(name, network))
        except (OSError, ValueError):
            self._retain_groups()
            raise
        meta = self._c.table_get(c.TABLE_META, _NEXT_POLICY)
        policy_id = max(int.from_bytes(meta or b"", sys.byteorder), 1)
        self._c.table_put(c.TABLE_META, _NEXT_POLICY, (policy_id + 1).to_bytes(8, sys.byteorder))
        try:
            self._c.table_put(c.TABLE_RULES, *compiled.rule_bytes(policy_id))
            self._c.table_put(c.TABLE_POLICIES, layout.u32(policy_id), compiled.policy_bytes())
        except OSError:
            self._remove({policy_id})
            self._retain_groups()
            raise
        self._digests[key] = policy_id
        self._named[policy_id] = frozenset(item.group for item in compiled.tuples if item.group)
        return policy_id

    def _retain_groups(self) -> None:
        self._groups.retain({number for named in self._named.values() for number in named})

    def _store(self, local_id: int, policy_id: int, generation: int) -> None:
        offset, size = c.LAYOUT["port"]["policy"]
        self._c.port_store(local_id, offset, size, policy_id << 32 | generation)
        self._words[local_id] = policy_id, generation

    def _retire(self, policy_id: int) -> None:
        if policy_id and all(policy_id != used for used, _ in self._words.values()):
            self._retired.append((self._c.now(), policy_id))

    def _remove(self, policy_ids: set[int]) -> None:
        if not policy_ids:
            return
        self._digests = {
            key: value for key, value in self._digests.items() if value not in policy_ids
        }
        for policy_id in policy_ids:
            self._c.table_remove(c.TABLE_POLICIES, layout.u32(policy_id))
            self._named.pop(policy_id, None)
        keys = [
            key
            for key, _ in self._c.table_items(c.TABLE_RULES)
            if layout.number("rule_key", "policy", key) in policy_ids
        ]
        self._c.table_remove(c.TABLE_RULES, b"".join(keys))

    def _remove_unless(self, used: set[int]) -> None:
        rules = {
            layout.number("rule_key", "policy", key)
            for key, _ in self._c.table_items(c.TABLE_RULES)
        }
        policies = {
            int.from_bytes(key, sys.byteorder) for key, _ in self._c.table_items(c.TABLE_POLICIES)
        }
        self._remove((rules | policies) - used)


def _named_in(policy: bytes) -> frozenset[int]:
    """Ids of groups in a struct vnet_policy."""
    start, _ = c.LAYOUT["policy"]["tuple"]
    size = c.LAYOUT["tuple"][""][1]
    count = layout.number("policy", "tuples", policy)
    ids = (layout.number("tuple", "group", policy, start + index * size) for index in range(count))
    return frozenset(number for number in ids if number)


def _after(generation: int) -> int:
    return generation % 0xFFFFFFFF + 1
