"""The tables in the datapath: compiled for the ports that are here, and anew as they change."""

import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec

from vnet_agent.datapath.base import Driver
from vnet_agent.datapath.handlers import compile_handler
from vnet_agent.datapath.handling import TableRule
from vnet_agent.exceptions import HandlerError, VnetError
from vnet_agent.handlers.state import StoredRule, TableContent
from vnet_agent.model.handler import MAX_RULES, Handler
from vnet_agent.model.port import Port, PortState

LOG = logging.getLogger(__name__)

#: Local ids that a rule was compiled with; None: not at all, or not to the end.
Signature = tuple[int | None, ...]


def _no_groups(_port: Port) -> Iterable[str]:
    return ()


class Here:
    """The ports of this host that the datapath has; `groups_of` names the groups of one."""

    def __init__(
        self,
        states: Iterable[PortState] = (),
        groups_of: Callable[[Port], Iterable[str]] = _no_groups,
    ) -> None:
        self._ports: dict[str, int] = {}
        self._instances: dict[str, list[int]] = {}
        self._groups: dict[str, list[int]] = {}
        for state in states:
            if state.local_id is not None:
                self._ports[state.port.uuid] = state.local_id
                self._instances.setdefault(state.port.instance, []).append(state.local_id)
                for group in groups_of(state.port):
                    self._groups.setdefault(group, []).append(state.local_id)

    def local_id(self, port: str) -> int | None:
        return self._ports.get(port)

    def ids_of(self, instance: str) -> list[int]:
        return sorted(self._instances.get(instance, ()))

    def ids_in(self, group: str) -> list[int]:
        return sorted(self._groups.get(group, ()))

    def sign(self, handler: Handler) -> Signature:
        """Differs where the handler must be compiled anew."""
        ids: list[int | None] = [self.local_id(port) for port in sorted(handler.ports())]
        match = handler.match
        if match.instance is not None:
            ids += [None, *self.ids_of(match.instance)]
        if match.group is not None:
            ids += [None, *self.ids_in(match.group)]
        return tuple(ids)


class _Placed(msgspec.Struct):
    """A rule in the datapath: the driver's ids, none while it waits for a port."""

    ids: list[int]
    signature: Signature | None


class Enforcer:
    """What it holds is what the driver holds. Everything blocks; one caller at a time."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._placed: dict[int, dict[int, _Placed]] = {}
        #: Rules that name a port, a VM or a group, by table and id: the others never change.
        self._bound: dict[int, dict[int, StoredRule]] = {}
        self._count = 0

    def is_waiting(self, table: int, rule_id: int) -> bool:
        """Whether the rule is not in force, since what it names is not here."""
        placed = self._placed.get(table, {}).get(rule_id)
        return placed is None or not placed.ids

    def rule_of(self, table: int, driver_id: int) -> int | None:
        """The rule that the driver's is, or is one of."""
        placed = self._placed.get(table, {})
        return next((rule for rule, item in placed.items() if driver_id in item.ids), None)

    def count_waiting(self, table: int) -> int:
        return sum(self.is_waiting(table, rule_id) for rule_id in self._bound.get(table, ()))

    def replace(self, content: TableContent, here: Here) -> None:
        """Put all of a table in force in one step; HandlerError and DatapathError leave it as
        it was."""
        table = content.table
        rules = list(content.rules.values())
        compiled = [_compile(rule, here) for rule in rules]
        flat = [item for items in compiled for item in items]
        before = sum(len(placed.ids) for placed in self._placed.get(table, {}).values())
        self._check_room(len(flat) - before, table)
        ids = iter(self._driver.replace_table(table, flat, content.miss))
        self._placed[table] = {
            rule.id: _Placed([next(ids) for _ in items], here.sign(rule.handler))
            for rule, items in zip(rules, compiled, strict=True)
        }
        self._bound[table] = {rule.id: rule for rule in rules if _is_bound(rule.handler)}
        self._count += len(flat) - before

    def change(
        self, old: TableContent, add: Sequence[StoredRule], delete: Sequence[int], here: Here
    ) -> None:
        """Add rules to a table of `old`, then delete some; after an error all is as it was."""
        table = old.table
        compiled = [_compile(rule, here) for rule in add]
        self._check_room(sum(len(items) for items in compiled), table)
        steps = 0
        try:
            for rule, items in zip(add, compiled, strict=True):
                self._place(table, rule, items, here)
                steps += 1
            for rule_id in delete:
                self._remove(table, rule_id)
                steps += 1
        except VnetError:
            if steps:
                self._restore(old, here)
            raise

    def _restore(self, old: TableContent, here: Here) -> None:
        try:
            self.replace(old, here)
        except VnetError as error:
            LOG.error("Putting table %d back as it was failed: %s", old.table, error)

    def refresh(self, here: Here) -> int:
        """Compile anew what names a port that came or went; how many rules that were.

        What fails is logged, and tried again the next time.
        """
        changed = 0
        for table, rules in self._bound.items():
            for rule in rules.values():
                placed = self._placed[table][rule.id]
                signature = here.sign(rule.handler)
                if placed.signature == signature:
                    continue
                try:
                    self._renew(table, placed, _compile(rule, here))
                    placed.signature = signature
                    changed += 1
                except VnetError as error:
                    placed.signature = None
                    LOG.error("Rule %d of table %d: %s", rule.id, table, error)
        return changed

    def _renew(self, table: int, placed: _Placed, items: list[TableRule]) -> None:
        """Put the items in the place of what there is; after an error `placed` tells the truth."""
        self._check_room(len(items), table)
        old, fresh = list(placed.ids), 0
        try:
            for item in items:
                placed.ids.append(self._driver.insert_rule(table, item))
                fresh += 1
        except VnetError:
            self._delete(table, placed, placed.ids[len(old) :])
            raise
        finally:
            self._count += len(placed.ids) - len(old)
        self._delete(table, placed, old)
        self._count -= len(old)

    def _place(self, table: int, rule: StoredRule, items: list[TableRule], here: Here) -> None:
        placed = _Placed([], None)
        self._renew(table, placed, items)
        placed.signature = here.sign(rule.handler)
        self._placed.setdefault(table, {})[rule.id] = placed
        if _is_bound(rule.handler):
            self._bound.setdefault(table, {})[rule.id] = rule

    def _remove(self, table: int, rule_id: int) -> None:
        placed = self._placed.get(table, {}).get(rule_id)
        if placed is not None:
            count = len(placed.ids)
            self._delete(table, placed, list(placed.ids))
            self._count -= count
            del self._placed[table][rule_id]
        self._bound.get(table, {}).pop(rule_id, None)

    def _delete(self, table: int, placed: _Placed, ids: Sequence[int]) -> None:
        for driver_id in ids:
            self._driver.delete_rule(table, driver_id)
            placed.ids.remove(driver_id)

    def _check_room(self, more: int, table: int) -> None:
        if self._count + more > MAX_RULES:
            detail = (
                f"that makes {self._count + more} rules in the datapath, and {MAX_RULES} are the "
                "most in all tables together"
            )
            raise HandlerError(where=f"table {table}", detail=detail)


def _is_bound(handler: Handler) -> bool:
    match = handler.match
    return match.instance is not None or match.group is not None or bool(handler.ports())


def _compile(rule: StoredRule, here: Here) -> list[TableRule]:
    try:
        return compile_handler(rule.handler, here)
    except (ValueError, LookupError) as error:  # a file that somebody else wrote
        raise HandlerError(where=f"rule {rule.id}", detail=f"makes no sense: {error}") from error
