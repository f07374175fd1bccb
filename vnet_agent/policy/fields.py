"""What reading any node of a policy document takes; refusals are PolicyErrors that say where."""

import enum
import re
from typing import TypeVar

from vnet_agent.policy.tree import Node

E = TypeVar("E", bound=enum.StrEnum)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


def mapping(node: Node, keys: frozenset[str], what: str) -> dict[str, Node]:
    """The node's children, those that are null left out; PolicyError for a key not in `keys`."""
    if not isinstance(node.value, dict):
        raise node.refused(f"{what} must be a mapping")
    for key, child in node.value.items():
        if key not in keys:
            known = ", ".join(sorted(keys))
            raise child.refused(f"unknown key {key[:60]!r} in {what}; known are {known}")
    return {key: child for key, child in node.value.items() if child.value is not None}


def items(node: Node | None, most: int, what: str) -> list[Node]:
    """The nodes of a list of at most `most`; none at all for None."""
    if node is None:
        return []
    if not isinstance(node.value, list):
        raise node.refused(f"{what} must be a list")
    if len(node.value) > most:
        raise node.refused(f"{len(node.value)} {what}; at most {most} are allowed")
    return list(node.value)


def show(node: Node) -> str:
    """What the node says, short enough for a message."""
    if isinstance(node.value, list | dict):
        return "a list" if isinstance(node.value, list) else "a mapping"
    return repr(node.value)[:60]


def choice(node: Node, kind: type[E]) -> E:
    """The member of an enumeration that the node names."""
    for member in kind:
        if node.value == member.value and isinstance(node.value, str):
            return member
    raise node.refused(f"{show(node)} is not one of {', '.join(kind)}")


def read_name(node: Node) -> str:
    """The name of a group."""
    if not isinstance(node.value, str) or not _NAME.match(node.value):
        raise node.refused(
            f"{show(node)} is no group name: 1 to 63 letters, digits, '.', '_' or '-', "
            "the first a letter or digit (a number in quotes)"
        )
    return node.value
