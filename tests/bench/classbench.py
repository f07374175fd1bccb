"""Sets of rules, and frames that match them, of the kinds acl, fw and ipc.

The model is that of Taylor and Turner, "ClassBench: A Packet Classification Benchmark" (IEEE/ACM
ToN 15(3), 2007), in short: a rule draws its protocol, then the classes of its two ports, then the
lengths of its two prefixes by those, and the bits of each address on its way down a random trie
whose levels branch with given probabilities; the destination may follow the source's way. Frames
are corners of randomly drawn rules. Rules that ask for the same are drawn once, and shorter
prefixes come after longer ones, as there. The first rule that matches wins.
"""

import dataclasses
import math
import pathlib
import random
import struct
from collections.abc import Iterator, Sequence

from classbench_kinds import KINDS, Kind
from twin_classifier import ANY_PORT, Rule, pack_fields, pack_rule

IPV4 = 0xFFFF << 32
IPV4_BITS = (1 << 64) - (1 << 32)

#: Ports by class; the other classes are drawn from a kind's own.
WIDE = {"WC": ANY_PORT, "HI": (1024, 65535)}


class Trie:
    """Random prefixes. What a node's children are is decided when it is first passed."""

    def __init__(self, rng: random.Random, branching: Sequence[float], growth: float) -> None:
        """`growth`: how many times as many prefixes as the seed's are to be found."""
        more = math.log2(growth) / len(branching) if growth > 1 else 0.0
        self.rng = rng
        self.two = [part + (1 - part) * min(1.0, 1.3 * more) for part in branching]
        self.nodes: dict[tuple[int, int], tuple[float, int]] = {}

    def _node(self, level: int, prefix: int) -> tuple[float, int]:
        """The part of the way that goes to the heavier child, and which one that is."""
        node = self.nodes.get((level, prefix))
        if node is None:
            branches = self.rng.random() < self.two[level]
            heavy = self.rng.uniform(0.5, 0.9) if branches else 1.0
            node = self.nodes[level, prefix] = (heavy, self.rng.getrandbits(1))
        return node

    def draw(self, length: int, along: int = 0, follow: Sequence[float] = ()) -> int:
        """An address whose bits after `length` are 0, maybe along the way of another one."""
        prefix, is_along = 0, bool(follow)
        for level in range(length):
            heavy, child = self._node(level, prefix)
            is_along = is_along and self.rng.random() < follow[level]
            if is_along:
                bit = along >> (31 - level) & 1
            else:
                bit = child if self.rng.random() < heavy else 1 - child
            prefix = prefix << 1 | bit
        return prefix << (32 - length)


def _choose(rng: random.Random, weighted: Sequence[tuple[float, object]]) -> object:
    return rng.choices([what for _, what in weighted], [weight for weight, _ in weighted])[0]


@dataclasses.dataclass(frozen=True)
class Five:
    """A rule over five fields; addresses and lengths of IPv4."""

    source: tuple[int, int]
    destination: tuple[int, int]
    source_ports: tuple[int, int]
    destination_ports: tuple[int, int]
    proto: int | None


def _draw_rule(rng: random.Random, kind: Kind, tries: tuple[Trie, Trie]) -> Five:
    proto, source_class, destination_class = _choose(rng, kind.traffic)  # type: ignore[misc]

    def ports(port_class: str) -> tuple[int, int]:
        drawn = {"EM": kind.exact, "AR": kind.ranges}.get(port_class)
        return _choose(rng, drawn) if drawn else WIDE[port_class]  # type: ignore[return-value]

    lengths = kind.lengths.get(f"{source_class} {destination_class}", kind.lengths[""])
    source_length, destination_length = _choose(rng, lengths)  # type: ignore[misc]
    source = tries[0].draw(source_length)
    destination = tries[1].draw(destination_length, source, kind.follow)
    return Five(
        (source, source_length),
        (destination, destination_length),
        ports(source_class),
        ports(destination_class),
        proto,
    )


def make_rules(name: str, count: int, seed: int = 1) -> list[Five]:
    """`count` rules of a kind, or as many as 20 times the draws find that are different.

    Nested ones come with the more specific one first.
    """
    kind, rng = KINDS[name], random.Random(f"{name} {count} {seed}")
    growth = count / kind.scale
    tries = Trie(rng, kind.branching[0], growth), Trie(rng, kind.branching[1], growth)
    found: dict[Five, None] = {}
    for _ in range(20 * count):
        found[_draw_rule(rng, kind, tries)] = None
        if len(found) == count:
            break
    return sorted(found, key=lambda rule: -(rule.source[1] + rule.destination[1]))


def make_frames(rules: Sequence[Five], count: int, seed: int = 1) -> Iterator[dict[str, int]]:
    """Corners of rules drawn at random, as struct vnet_fields has them."""
    rng = random.Random(f"frames {seed}")

    def corner(prefix: tuple[int, int]) -> int:
        host = (1 << (32 - prefix[1])) - 1
        return IPV4 | prefix[0] | (host if rng.getrandbits(1) else 0)

    for _ in range(count):
        rule = rng.choice(rules)
        yield {
            "family": 4,
            "source": corner(rule.source),
            "destination": corner(rule.destination),
            "proto": rng.choice([0, 255]) if rule.proto is None else rule.proto,
            "source_port": rng.choice(rule.source_ports),
            "destination_port": rng.choice(rule.destination_ports),
        }


def as_rule(five: Five, priority: int, action: int) -> Rule:
    """As the classifier takes it: the family, and addresses' lower halves with constant bits."""

    def mask(length: int) -> int:
        return IPV4_BITS | (1 << 32) - (1 << (32 - length)) if length else 0

    value = {
        "family": 4,
        "source": IPV4 | five.source[0],
        "destination": IPV4 | five.destination[0],
    }
    masks = {
        "family": 0xFF,
        "source": mask(five.source[1]),
        "destination": mask(five.destination[1]),
    }
    if five.proto is not None:
        value["proto"], masks["proto"] = five.proto, 0xFF
    return Rule(value, masks, five.source_ports, five.destination_ports, priority, action)


def write_work(
    path: pathlib.Path, rules: Sequence[Five], frames: Sequence[dict[str, int]]
) -> None:
    """What classifier.c reads: both counts, struct vnet_match[], struct vnet_fields[]."""
    with path.open("wb") as file:
        file.write(struct.pack("=II", len(rules), len(frames)))
        for number, five in enumerate(rules):
            file.write(pack_rule(as_rule(five, len(rules) - number, number)))
        for frame in frames:
            file.write(pack_fields(frame))
