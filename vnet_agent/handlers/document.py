"""Documents of handlers, as an operator or the controller writes them.

    miss: continue
    rules:
      - priority: 200
        match: {direction: egress, ip_proto: tcp, tcp_dst: 25}
        actions: [drop]
      - match: {eth_type: ipv4, ip_dst: 192.0.2.1}
        actions: [{set: {ip_dst: 10.0.0.7}}, normal]

One is taken as a whole or refused as a whole.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from vnet_agent.exceptions import HandlerError, PolicyError
from vnet_agent.handlers import words
from vnet_agent.handlers.actions import read_actions
from vnet_agent.handlers.match import read_match
from vnet_agent.model.handler import (
    DEFAULT_PRIORITY,
    MAX_RULES,
    TABLES,
    Handler,
    Match,
    Miss,
    TableDocument,
)
from vnet_agent.policy import tree
from vnet_agent.policy.fields import mapping
from vnet_agent.policy.tree import Node

#: Characters.
MAX_TEXT = 12 << 20

_TABLE_KEYS = frozenset({"table", "miss", "rules"})
_RULE_KEYS = frozenset({"table", "priority", "match", "actions", "cookie"})


def parse_table(text: str, table: int, *, name: str) -> TableDocument:
    """Read a table in YAML or JSON; `name` is the file's, for messages.

    Raises HandlerError whose `where` is `name:line`.
    """
    with _refusals():
        if len(text) > MAX_TEXT:
            detail = f"{len(text)} characters; at most {MAX_TEXT} are allowed"
            raise PolicyError(where=f"{name}:1", detail=detail)
        return _read_table(tree.from_yaml(text, name=name), table)


def table_from_json(value: Any, table: int, *, where: str = "$") -> TableDocument:
    """Check a decoded table; `where` of a HandlerError is a JSON path."""
    with _refusals():
        return _read_table(tree.from_json(value, where=where), table)


def rule_from_json(value: Any, table: int | None, *, where: str = "$") -> tuple[int, Handler]:
    """Check one decoded rule; its table is in it where `table` is None."""
    with _refusals():
        return read_rule(tree.from_json(value, where=where), table)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The readers of trees know policies only."""
    try:
        yield
    except PolicyError as error:
        where, detail = error.__dict__["where"], error.__dict__["detail"]
        raise HandlerError(where=where, detail=detail) from None


def _read_table(root: Node, table: int) -> TableDocument:
    fields = mapping(root, _TABLE_KEYS, "a table")
    _read_number(root, fields, table)
    if "rules" not in fields:
        raise root.refused("there are no `rules`; write `rules: []` for none")
    rules = fields["rules"]
    if not isinstance(rules.value, list):
        raise rules.refused("rules must be a list")
    if len(rules.value) > MAX_RULES:
        detail = (
            f"{len(rules.value)} rules; at most {MAX_RULES} are allowed in all tables together"
        )
        raise rules.refused(detail)
    miss = fields.get("miss")
    return TableDocument(
        rules=tuple(_read_rules(rules.value, table)),
        miss=Miss(words.read_choice(miss, *Miss)) if miss is not None else Miss.CONTINUE,
    )


def _read_rules(nodes: list[Node], table: int) -> Iterator[Handler]:
    places: dict[tuple[int, Match], str] = {}
    for node in nodes:
        handler = read_rule(node, table)[1]
        key = (handler.priority, handler.match)
        if key in places:
            raise node.refused(f"the rule at {places[key]} has the same priority and match")
        places[key] = node.where
        yield handler


def read_rule(node: Node, table: int | None) -> tuple[int, Handler]:
    """A rule and its table; one of the request and one in the rule must be the same."""
    fields = mapping(node, _RULE_KEYS, "a rule")
    table = _read_number(node, fields, table)
    match = read_match(fields.get("match"))
    priority, cookie = fields.get("priority"), fields.get("cookie")
    return table, Handler(
        priority=DEFAULT_PRIORITY if priority is None else words.read_number(priority, 0, 0xFFFF),
        match=match,
        actions=read_actions(fields.get("actions"), node, match, table),
        cookie=0 if cookie is None else words.read_number(cookie, 0, 0xFFFFFFFF),
    )


def _read_number(node: Node, fields: dict[str, Node], table: int | None) -> int:
    given = fields.get("table")
    if given is None:
        if table is None:
            raise node.refused(f"a rule needs a table: 0 to {TABLES - 1}")
        return table
    number = words.read_number(given, 0, TABLES - 1)
    if table not in (None, number):
        raise given.refused(f"this says table {number}, and the request table {table}")
    return number
