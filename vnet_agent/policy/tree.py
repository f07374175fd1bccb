"""A document as a tree whose every node knows where it stands, from YAML or from JSON."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from vnet_agent.exceptions import PolicyError

#: groups, a group, its rules, a rule, its port range: nothing is deeper than that.
MAX_DEPTH = 6

Scalar = str | int | float | bool | None

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})\Z")
_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
#: libyaml's scanner is an order of magnitude faster; the events are the same.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Node(msgspec.Struct, frozen=True):
    """`value` is a scalar, a list of nodes, or a dictionary of nodes; `where` names its place."""

    value: Any
    where: str

    def refused(self, detail: str) -> PolicyError:
        """The error to raise about this node."""
        return PolicyError(where=self.where, detail=detail)


def from_yaml(text: str, *, name: str) -> Node:
    """Read the one YAML (or JSON) document in `text`; `where` becomes `name:line`.

    Raises PolicyError for what is no YAML, and for what policies have no need of: aliases,
    anchors, tags, several documents, keys given twice, more than MAX_DEPTH levels.
    """
    if text.lstrip().startswith(("{", "[")):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, YAML may not
    loader = None
    try:
        text.encode()
        loader = _LOADER(text)
        return _Builder(loader, name).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        detail = error.problem or error.context or "this is no YAML"
        raise PolicyError(where=f"{name}:{line}", detail=detail) from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, max(0, getattr(error, "position", 0))) + 1
        detail = f"characters that YAML does not allow ({getattr(error, 'reason', error)})"
        raise PolicyError(where=f"{name}:{line}", detail=detail) from None
    except (ValueError, OverflowError) as error:  # escapes beyond Unicode, lone surrogates
        raise PolicyError(where=f"{name}:1", detail=f"this is no Unicode text: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def from_json(value: Any, *, where: str = "$", depth: int = 0) -> Node:
    """Wrap what a JSON decoder made; `where` becomes a JSON path. PolicyError if too deep."""
    if depth > MAX_DEPTH:
        raise PolicyError(where=where, detail="nested too deeply")
    if isinstance(value, dict):
        children: Any = {
            str(key): from_json(item, where=f"{where}.{key}"[:200], depth=depth + 1)
            for key, item in value.items()
        }
        return Node(children, where)
    if isinstance(value, list | tuple):
        children = [
            from_json(item, where=f"{where}[{index}]", depth=depth + 1)
            for index, item in enumerate(value)
        ]
        return Node(children, where)
    if value is None or isinstance(value, str | int | float | bool):
        return Node(value, where)
    raise PolicyError(where=where, detail=f"a {type(value).__name__} is no JSON value")


class _Builder:
    """Makes nodes of parser events, so that aliases are refused before they are followed."""

    def __init__(self, loader: Any, name: str) -> None:
        self._events = self._read(loader)
        self._name = name

    @staticmethod
    def _read(loader: Any) -> Iterator[yaml.Event]:
        while loader.check_event():
            yield loader.get_event()

    def _where(self, event: yaml.Event) -> str:
        line = event.start_mark.line + 1 if event.start_mark else 1
        return f"{self._name}:{line}"

    def document(self) -> Node:
        next(self._events)  # the stream's start
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            raise PolicyError(where=f"{self._name}:1", detail="the document is empty")
        root = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise PolicyError(where=self._where(after), detail="a second document begins here")
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        where = self._where(event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise PolicyError(where=where, detail="anchors and aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            raise PolicyError(where=where, detail="tags are not allowed")
        if depth > MAX_DEPTH:
            raise PolicyError(where=where, detail="nested too deeply")
        if isinstance(event, yaml.ScalarEvent):
            return Node(_resolve(event), where)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(event, depth + 1))
            return Node(items, where)
        return Node(self._mapping(depth), where)

    def _mapping(self, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if isinstance(key.value, list | dict):
                raise key.refused("a key must be a word")
            name = str(event.value) if isinstance(event, yaml.ScalarEvent) else ""
            if name in children:
                raise key.refused(f"{name[:60]!r} is given twice")
            value = self._node(next(self._events), depth + 1)
            # An empty value is marked where the next token stands; people look at the key.
            children[name] = Node(None, key.where) if value.value is None else value
        return children


def _resolve(event: yaml.ScalarEvent) -> Scalar:
    """Only null, true, false and whole numbers have a meaning of their own; all else is text."""
    if event.style is not None and event.style != "":
        return str(event.value)
    text = str(event.value)
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.match(text) else text
