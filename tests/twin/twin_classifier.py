"""The classifier once more: every rule is tried. The oracle of csrc/native/classifier.h."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from vnet_agent.datapath import _flowcache as c

ANY_PORT = (0, 65535)
#: In network order; other fields are numbers of this machine.
NETWORK_ORDER = {"source", "destination", "source_mac", "target_mac"}

#: By the name in struct vnet_fields; what is not named is 0.
Fields = Mapping[str, int]


@dataclass(frozen=True)
class Rule:
    """Fields' values and masks, and ranges of ports."""

    value: Fields
    mask: Fields
    source_ports: tuple[int, int] = ANY_PORT
    destination_ports: tuple[int, int] = ANY_PORT
    priority: int = 0
    action: int = 0

    def matches(self, frame: Fields) -> bool:
        def within(port: str, ports: tuple[int, int]) -> bool:
            return ports[0] <= frame.get(port, 0) <= ports[1]

        return (
            all(
                frame.get(name, 0) & mask == self.value.get(name, 0) & mask
                for name, mask in self.mask.items()
            )
            and within("source_port", self.source_ports)
            and within("destination_port", self.destination_ports)
        )


@dataclass
class Search:
    """A set of rules. They have names that the caller gives; among equals the older one wins."""

    miss: int
    rules: dict[int, Rule] = field(default_factory=dict)

    def insert(self, name: int, rule: Rule) -> None:
        self.rules[name] = rule

    def delete(self, name: int) -> None:
        del self.rules[name]

    def lookup(self, frame: Fields) -> tuple[int, int | None]:
        """The action, and which rule it is of: None when none matches."""
        best: int | None = None
        for name, rule in self.rules.items():
            if rule.matches(frame) and (best is None or rule.priority > self.rules[best].priority):
                best = name
        return (self.miss, None) if best is None else (self.rules[best].action, best)


def _put(into: bytearray, struct: str, name: str, value: int) -> None:
    offset, size = c.LAYOUT[struct][name]
    order = "big" if name in NETWORK_ORDER else sys.byteorder
    into[offset : offset + size] = value.to_bytes(size, order)


def pack_fields(values: Fields) -> bytes:
    """A struct vnet_fields."""
    packed = bytearray(c.LAYOUT["fields"][""][1])
    for name, value in values.items():
        _put(packed, "fields", name, value)
    return bytes(packed)


def pack_rule(rule: Rule) -> bytes:
    """A struct vnet_match."""
    layout = c.LAYOUT["match"]
    packed = bytearray(layout[""][1])
    for name, fields in (("value", rule.value), ("mask", rule.mask)):
        offset, size = layout[name]
        packed[offset : offset + size] = pack_fields(fields)
    for name, ports in (
        ("source_ports", rule.source_ports),
        ("destination_ports", rule.destination_ports),
    ):
        offset, _ = layout[name]
        for port in ports:
            packed[offset : offset + 2] = port.to_bytes(2, sys.byteorder)
            offset += 2
    _put(packed, "match", "priority", rule.priority)
    _put(packed, "match", "action", rule.action)
    return bytes(packed)
