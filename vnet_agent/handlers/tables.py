"""The tables of this host: kept over restarts, in force in the datapath, changed as a whole."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from oslo_config import cfg

from vnet_agent.datapath.base import Driver
from vnet_agent.exceptions import HandlerError, TableChanged, TablesUnsupported, UnknownRule
from vnet_agent.handlers.enforce import Enforcer, Here
from vnet_agent.handlers.state import Key, StoredRule, TableContent, TableFiles
from vnet_agent.model.handler import (
    MAX_RULES,
    TABLES,
    Handler,
    Origin,
    TableDocument,
)
from vnet_agent.model.port import Port, PortState

LOG = logging.getLogger(__name__)


class Inventory(Protocol):
    def states(self) -> Sequence[PortState]: ...
    def subscribe(self, callback: Callable[[], None]) -> object: ...


class Tables:
    """Changes are made one at a time; a change is on the disk before it is in force.

    Raises HandlerError, TableChanged, UnknownRule and what the driver raises; nothing has changed
    then.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        *,
        driver: Driver,
        inventory: Inventory,
        groups_of: Callable[[Port], Iterable[str]] = lambda _port: (),
    ) -> None:
        self._groups_of = groups_of
        self._files = TableFiles(conf.state_dir)
        self._driver = driver
        self._enforcer = Enforcer(driver)
        self._inventory = inventory
        self._contents = [TableContent(table=table) for table in range(TABLES)]
        self._order: dict[int, tuple[int, list[StoredRule]]] = {}
        self._keys: dict[int, tuple[int, dict[Key, StoredRule]]] = {}
        self._lock = asyncio.Lock()
        self._is_moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Put in force what was; HandlerError for files that cannot be read: starting without
        the tables would open what they close."""
        self._inventory.subscribe(self._is_moved.set)
        self._contents = await asyncio.to_thread(self._files.load)
        await asyncio.to_thread(self._adopt, self._here())
        self._task = asyncio.create_task(self._follow(), name="Ports of the tables")

    def notice_groups(self) -> None:
        """Groups apply to other ports than before."""
        self._is_moved.set()

    async def close(self) -> None:
        """Stop following the ports; the datapath goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- what is there

    def content(self, table: int) -> TableContent:
        return self._contents[table]

    def is_waiting(self, table: int, rule_id: int) -> bool:
        return self._enforcer.is_waiting(table, rule_id)

    def rule_of(self, table: int, driver_id: int) -> int | None:
        return self._enforcer.rule_of(table, driver_id)

    def count_waiting(self, table: int) -> int:
        return self._enforcer.count_waiting(table)

    def ordered(self, table: int) -> list[StoredRule]:
        """By priority, the greatest first, then by id; not to be changed."""
        content = self._contents[table]
        known = self._order.get(table)
        if known is None or known[0] != content.revision:
            rules = sorted(
                content.rules.values(), key=lambda rule: (-rule.handler.priority, rule.id)
            )
            known = self._order[table] = content.revision, rules
        return known[1]

    # -- changes

    async def replace(
        self, table: int, document: TableDocument, *, origin: Origin, revision: int | None = None
    ) -> TableContent:
        """Put the document in the place of all that the table has."""
        return await asyncio.shield(self._replace(table, document, origin, revision))

    async def clear(self, table: int, *, revision: int | None = None) -> TableContent:
        return await self.replace(
            table, TableDocument(), origin=Origin.OPERATOR, revision=revision
        )

    async def add(
        self,
        table: int,
        handlers: Sequence[Handler],
        *,
        origin: Origin,
        revision: int | None = None,
    ) -> list[StoredRule]:
        """Add rules; each takes the place of one of its priority and match, if there is one."""
        return await asyncio.shield(self._add(table, handlers, origin, revision))

    async def delete(self, table: int, rule_id: int, *, revision: int | None = None) -> StoredRule:
        return await asyncio.shield(self._delete(table, rule_id, revision))

    async def _replace(
        self, table: int, document: TableDocument, origin: Origin, revision: int | None
    ) -> TableContent:
        async with self._lock:
            old = self._expect(table, revision)
            self._check_room(len(document.rules) - len(old.rules), table)
            # Rules that stay keep their ids.
            known = {(rule.key, rule.handler): rule for rule in old.rules.values()}
            rules: dict[int, StoredRule] = {}
            last_id = old.last_id
            for handler in document.rules:
                key = (handler.priority, handler.match)
                rule = known.get((key, handler))
                if rule is None or rule.origin is not origin:
                    last_id += 1
                    rule = StoredRule(id=last_id, handler=handler, origin=origin)
                rules[rule.id] = rule
            new = old.changed(rules, miss=document.miss, last_id=last_id)
            here = self._here()
            await self._make(old, new, lambda: self._enforcer.replace(new, here))
            LOG.info("Table %d: %d rules, miss: %s", table, len(rules), new.miss)
            return new

    async def _add(
        self, table: int, handlers: Sequence[Handler], origin: Origin, revision: int | None
    ) -> list[StoredRule]:
        async with self._lock:
            old = self._expect(table, revision)
            index, added = self._index(old), dict[Key, StoredRule]()
            rules, last_id = dict(old.rules), old.last_id
            fresh: dict[int, StoredRule] = {}
            result = []
            for handler in handlers:
                key = (handler.priority, handler.match)
                rule = added.get(key) or index.get(key)
                if rule is None or rule.handler != handler:
                    if rule is not None:
                        del rules[rule.id]
                        fresh.pop(rule.id, None)
                    last_id += 1
                    rule = StoredRule(id=last_id, handler=handler, origin=origin)
                    added[key] = rules[rule.id] = fresh[rule.id] = rule
                result.append(rule)
            if not fresh:
                return result
            self._check_room(len(rules) - len(old.rules), table)
            new = old.changed(rules, last_id=last_id)
            gone = [rule_id for rule_id in old.rules if rule_id not in rules]
            await self._change(old, new, list(fresh.values()), gone)
            self._keys[table] = new.revision, index | added
            return result

    async def _delete(self, table: int, rule_id: int, revision: int | None) -> StoredRule:
        async with self._lock:
            old = self._expect(table, revision)
            rules = dict(old.rules)
            rule = rules.pop(rule_id, None)
            if rule is None:
                raise UnknownRule(table=table, rule=rule_id)
            await self._change(old, old.changed(rules), [], [rule_id])
            return rule

    async def _change(
        self, old: TableContent, new: TableContent, add: list[StoredRule], delete: list[int]
    ) -> None:
        here = self._here()
        await self._make(old, new, lambda: self._enforcer.change(old, add, delete, here))

    async def _make(
        self, old: TableContent, new: TableContent, enforce: Callable[[], None]
    ) -> None:
        def work() -> None:
            self._files.save(new)
            try:
                enforce()
            except BaseException:
                self._files.save(old)
                raise

        await asyncio.to_thread(work)
        self._contents[new.table] = new

    def _expect(self, table: int, revision: int | None) -> TableContent:
        content = self._contents[table]
        if revision not in (None, content.revision):
            raise TableChanged(table=table)
        return content

    def _index(self, content: TableContent) -> dict[Key, StoredRule]:
        """The rules by priority and match; not to be changed."""
        known = self._keys.get(content.table)
        if known is None or known[0] != content.revision:
            found = {rule.key: rule for rule in content.rules.values()}
            known = self._keys[content.table] = content.revision, found
        return known[1]

    def _check_room(self, more: int, table: int) -> None:
        count = sum(len(content.rules) for content in self._contents) + more
        if more > 0 and count > MAX_RULES:
            detail = f"that makes {count} rules; at most {MAX_RULES} are allowed in all tables"
            raise HandlerError(where=f"table {table}", detail=detail)

    # -- ports come and go

    def _here(self) -> Here:
        return Here(self._inventory.states(), self._groups_of)

    def _adopt(self, here: Here) -> None:
        """The tables of an earlier life give way, each in one step."""
        held = {state.table for state in self._driver.tables()}
        for content in self._contents:
            if not content.is_empty or content.table in held:
                try:
                    self._enforcer.replace(content, here)
                except TablesUnsupported as error:
                    LOG.error("Table %d is not in force: %s", content.table, error)

    async def _follow(self) -> None:
        while True:
            await self._is_moved.wait()
            self._is_moved.clear()
            try:
                async with self._lock:
                    changed = await asyncio.to_thread(self._enforcer.refresh, self._here())
                if changed:
                    LOG.info("%d rules of tables were compiled anew for the ports here", changed)
            except Exception:
                LOG.exception("Following the ports of the tables failed")
