"""The policy document: groups and rules as an operator or the controller writes them.

    groups:
      - name: web
        established: keep
        applies_to: ["instance:1b4e28ba-2fa1-11d2-883f-0016d3cca427"]
        rules:
          - {direction: ingress, protocol: tcp, ports: "80-443", remote: 10.0.0.0/8}
          - {direction: egress}
        limits:
          - {direction: egress, max_kbps: 100000}

It is taken as a whole or refused as a whole.
"""

from typing import Any

from vnet_agent.exceptions import PolicyError
from vnet_agent.model.policy import Group
from vnet_agent.policy import fields, rules, tree

#: Characters; a thousand groups of some ten rules stay well below.
MAX_TEXT = 1 << 20

_DOCUMENT_KEYS = frozenset({"groups"})


def parse(text: str, *, name: str) -> tuple[Group, ...]:
    """Read a document in YAML or JSON; `name` is the file's, for messages.

    Raises PolicyError whose `where` is `name:line`.
    """
    if len(text) > MAX_TEXT:
        detail = f"{len(text)} characters; at most {MAX_TEXT} are allowed"
        raise PolicyError(where=f"{name}:1", detail=detail)
    return _groups(tree.from_yaml(text, name=name))


def groups_from_json(value: Any, *, where: str = "$") -> tuple[Group, ...]:
    """Check a decoded JSON list of groups; `where` of a PolicyError is a JSON path."""
    return rules.read_groups(tree.from_json(value, where=where))


def group_from_json(value: Any, *, where: str = "$", name: str | None = None) -> Group:
    """Check one decoded JSON group; `where` of a PolicyError is a JSON path.

    `name` is the one in the request's address: the value may leave its own out, but not differ.
    """
    return rules.read_group(tree.from_json(value, where=where), name=name)


def _groups(root: tree.Node) -> tuple[Group, ...]:
    found = fields.mapping(root, _DOCUMENT_KEYS, "the document")
    if "groups" not in found:
        raise root.refused("there is no `groups`; write `groups: []` for none")
    groups = rules.read_groups(found["groups"])
    rules.check_references(groups, found["groups"])
    return groups
