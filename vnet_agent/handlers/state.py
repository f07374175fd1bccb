"""The tables as they are kept over restarts: one file each, replaced as a whole."""

from pathlib import Path

import msgspec

from vnet_agent.exceptions import HandlerError
from vnet_agent.files import replace_file
from vnet_agent.model.handler import TABLES, Handler, Match, Miss, Origin

#: Priority and match.
Key = tuple[int, Match]


class StoredRule(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is the rule's name in its table, and never given twice there."""

    id: int
    handler: Handler
    origin: Origin = Origin.OPERATOR

    @property
    def key(self) -> Key:
        """What no two rules of a table share: as in OpenFlow, the later one takes the place."""
        return self.handler.priority, self.handler.match


class TableContent(msgspec.Struct, kw_only=True):
    """All of one table. `revision` grows with each change. `rules` are by id; do not change it:
    `changed` makes another one."""

    table: int
    version: int = 1
    miss: Miss = Miss.CONTINUE
    revision: int = 0
    last_id: int = 0
    rules: dict[int, StoredRule] = {}

    @property
    def is_empty(self) -> bool:
        return not self.rules and self.miss is Miss.CONTINUE

    def changed(
        self, rules: dict[int, StoredRule], *, miss: Miss | None = None, last_id: int | None = None
    ) -> "TableContent":
        return TableContent(
            table=self.table,
            miss=self.miss if miss is None else miss,
            revision=self.revision + 1,
            last_id=self.last_id if last_id is None else last_id,
            rules=rules,
        )


class TableFiles:
    """`tables/N.json` in the state directory. Everything blocks and raises HandlerError."""

    def __init__(self, state_dir: str) -> None:
        self._directory = Path(state_dir) / "tables"

    def load(self) -> list[TableContent]:
        return [self._load(table) for table in range(TABLES)]

    def save(self, content: TableContent) -> None:
        path = self._path(content.table)
        try:
            replace_file(path, msgspec.json.encode(content))
        except OSError as error:
            detail = f"cannot be written: {error}"
            raise HandlerError(where=str(path), detail=detail) from None

    def _path(self, table: int) -> Path:
        return self._directory / f"{table}.json"

    def _load(self, table: int) -> TableContent:
        path = self._path(table)
        try:
            content = msgspec.json.decode(path.read_bytes(), type=TableContent)
        except FileNotFoundError:
            return TableContent(table=table)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            detail = f"cannot be read ({error}); remove it to start with the table empty"
            raise HandlerError(where=str(path), detail=detail) from None
        if content.table != table or any(rule.id != id_ for id_, rule in content.rules.items()):
            raise HandlerError(where=str(path), detail="is another table's, or contradicts itself")
        return content
