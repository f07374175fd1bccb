"""Compiled policies in the tables: shared by ports, switched in one store, removed later."""

import sys

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.compiler import compile_policy, digest
from vnet_agent.model.policy import Policy

#: A frame that began with the old rules has ended long before they go, in ns.
RETIRE_NS = 1_000_000_000

_NEXT_POLICY = layout.u32(0)


class PolicyTable:
    """Which port has which policy. Ids are never given twice, over restarts neither."""

    def __init__(self, handle: c.Datapath) -> None:
        self._c = handle
        self._digests: dict[bytes, int] = {}
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
                self._digests[layout.raw("policy", "digest", value)] = policy_id
        self._remove_unless(used)

    def start(self, local_id: int) -> None:
        """A new port: no policy, and a generation that no connection has (0 is nobody's)."""
        self._store(local_id, 0, 1)

    def assign(self, local_id: int, policy: Policy) -> None:
        old, generation = self._words[local_id]
        policy_id = self._digests.get(digest(policy))
        if policy_id is None:
            policy_id = self._write(policy)
        if old != policy_id:
            self._store(local_id, policy_id, _after(generation))
            self._retire(old)

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

    def _write(self, policy: Policy) -> int:
        compiled = compile_policy(policy)
        meta = self._c.table_get(c.TABLE_META, _NEXT_POLICY)
        policy_id = max(int.from_bytes(meta or b"", sys.byteorder), 1)
        self._c.table_put(c.TABLE_META, _NEXT_POLICY, (policy_id + 1).to_bytes(8, sys.byteorder))
        try:
            self._c.table_put(c.TABLE_RULES, *compiled.rule_bytes(policy_id))
            self._c.table_put(c.TABLE_POLICIES, layout.u32(policy_id), compiled.policy_bytes())
        except OSError:
            self._remove({policy_id})
            raise
        self._digests[compiled.digest] = policy_id
        return policy_id

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


def _after(generation: int) -> int:
    return generation % 0xFFFFFFFF + 1
