"""One rule more, or one less: the groups that a change makes of those in force."""

from typing import Any

import msgspec

from vnet_agent.exceptions import PolicyError, PolicyOwned, UnknownGroup
from vnet_agent.model.policy import Group, Rule
from vnet_agent.policy import document
from vnet_agent.policy.store import PolicyStore


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """What was changed; `number` counts the group's rules from 1, as `vnetctl rule list` does."""

    group: str
    number: int
    rule: Rule


async def add_rule(
    store: PolicyStore, group: str, rule: Any, *, revision: str | None = None, force: bool = False
) -> Edit:
    """Put `rule` (decoded JSON) at the end of the group's rules.

    Raises UnknownGroup, PolicyOwned, PolicyChanged (as PolicyStore.replace), PolicyError.
    """
    expected = revision or store.revision
    found = _find(store, group, force=force)
    fields = msgspec.to_builtins(found)
    changed = document.group_from_json(fields | {"rules": [*fields["rules"], rule]})
    added = changed.rules[-1]
    known = {other.name for other in store.groups()}
    if added.remote_group is not None and added.remote_group not in known:
        raise PolicyError(where=group, detail=f"remote_group: no group {added.remote_group!r}")
    if added in found.rules:
        number = found.rules.index(added) + 1
        raise PolicyError(where=group, detail=f"rule {number} says the same")
    await _replace(store, changed, expected)
    return Edit(group=group, number=len(changed.rules), rule=added)


async def delete_rule(
    store: PolicyStore,
    group: str,
    number: int,
    *,
    revision: str | None = None,
    force: bool = False,
) -> Edit:
    """Take the group's rule of that number away; raises as `add_rule`."""
    expected = revision or store.revision
    found = _find(store, group, force=force)
    if not 1 <= number <= len(found.rules):
        raise UnknownGroup(what=f"rule {number} of group {group}")
    rules = found.rules[: number - 1] + found.rules[number:]
    await _replace(store, msgspec.structs.replace(found, rules=rules), expected)
    return Edit(group=group, number=number, rule=found.rules[number - 1])


def _find(store: PolicyStore, name: str, *, force: bool) -> Group:
    found = next((group for group in store.groups() if group.name == name), None)
    if found is None:
        raise UnknownGroup(what=f"group {name[:63]}")
    if store.origin == "controller" and not force:
        raise PolicyOwned(group=name)
    return found


async def _replace(store: PolicyStore, changed: Group, revision: str) -> None:
    groups = [changed if group.name == changed.name else group for group in store.groups()]
    await store.replace(groups, origin="api", revision=revision)
