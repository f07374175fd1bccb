"""Sets of rules, and frames that match them, of the kinds acl, fw and ipc.

The model is that of Taylor and Turner, "ClassBench: A Packet Classification Benchmark" (IEEE/ACM
ToN 15(3), 2007), in short: a rule draws its protocol, then the classes of its two ports, then the
lengths of its two prefixes by those, and the bits of each address on its way down a random trie
whose levels branch with given probabilities; the destination may follow the source's way. Frames
are corners of randomly drawn rules. The figures below are summaries of the statistics that the
paper's seeds acl1, fw1 and ipc1 publish, in whole per cents; rules that ask for the same are drawn
once, and shorter prefixes come after longer ones, as there. The first rule that matches wins.
"""

import dataclasses
import math
import pathlib
import random
import struct
from collections.abc import Iterator, Sequence

from twin_classifier import ANY_PORT, Rule, pack_fields, pack_rule

TCP, UDP, ICMP, GRE = 6, 17, 1, 47
IPV4 = 0xFFFF << 32
IPV4_BITS = (1 << 64) - (1 << 32)
HIGH_PORTS = (1024, 65535)

#: Ports by class; "EM" and "AR" are drawn from a kind's own.
WIDE = {"WC": ANY_PORT, "HI": HIGH_PORTS}
Weighted = Sequence[tuple[float, object]]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a seed says. Weights need not sum up to 1.

    `traffic`: protocol (None: any), source's and destination's port class. `lengths`: pairs of
    prefix lengths by both port classes, or "" for those not named. `branching`: the part of a
    trie's nodes that have two children, by level from 0 to 31, of sources and destinations.
    `follow`: by level, how probably a destination goes on along the source's way. `scale`: rules
    of the seed; larger sets branch more.
    """

    traffic: Sequence[tuple[float, tuple[int | None, str, str]]]
    lengths: dict[str, Sequence[tuple[float, tuple[int, int]]]]
    exact: Sequence[tuple[float, tuple[int, int]]]
    ranges: Sequence[tuple[float, tuple[int, int]]]
    branching: tuple[Sequence[float], Sequence[float]]
    follow: Sequence[float]
    scale: int


def _single(*ports: int) -> list[tuple[float, tuple[int, int]]]:
    """Exact ports, each half as frequent again as the next ones."""
    return [(1 / (1 + place / 3), (port, port)) for place, port in enumerate(ports)]


ACL = Kind(
    traffic=[
        (8, (None, "WC", "WC")),
        (3, (ICMP, "WC", "WC")),
        (19, (TCP, "WC", "WC")),
        (11, (TCP, "WC", "AR")),
        (57, (TCP, "WC", "EM")),
        (1, (UDP, "WC", "EM")),
        (1, (UDP, "WC", "AR")),
    ],
    lengths={
        "WC WC": [
            *((48, (32, 32)), (11, (24, 32)), (10, (23, 32)), (9, (22, 32)), (5, (23, 16))),
            *((3, (31, 32)), (2, (30, 32)), (2, (30, 22)), (1, (31, 22)), (3, (23, 5))),
            *((1, (8, 0)), (1, (0, 8)), (1, (0, 13)), (1, (0, 0)), (1, (23, 0)), (1, (23, 25))),
        ],
        "WC AR": [(95, (32, 32)), (4, (31, 32)), (1, (23, 32))],
        "": [
            *((85, (32, 32)), (3, (31, 32)), (4, (32, 22)), (1, (30, 22)), (3, (23, 32))),
            *((2, (32, 31)), (1, (32, 30)), (1, (31, 22))),
        ],
    },
    exact=_single(
        *(1521, 1526, 1221, 1433, 1525, 135, 1712, 1711, 1704, 1708, 5555, 1705, 6000, 20, 21),
        *(1724, 1717, 1707, 1733, 1706, 5540, 5541, 1734, 1489, 1490, 5632, 5631, 6789, 1715),
        *(2121, 32200, 32201, 2110, 2115, 3031, 1540, 31000, 443, 80, 27000, 27400, 65500),
    ),
    ranges=[
        *((8, (1600, 1649)), (7, (1300, 1349)), (7, (1300, 1350)), (5, (7500, 7599))),
        *((5, (2200, 2210)), (4, (1025, 65535)), (4, (1700, 1750)), (4, (5001, 65535))),
        *((4, (32200, 32207)), (4, (8000, 8100)), (2, (1700, 1720)), (2, (20000, 20010))),
        *((2.4, (first, first + 9)) for first in range(61000, 62800, 100)),
    ],
    branching=(
        [1, *[0] * 5, 0.5, *[0] * 17, 0.5, 0.67, 0.8, 0.78, 0.75, 0.75, 0.53, 0.26],
        [1, 1, 0.67, 0.75, 0.83, 0.4, 0.3, 0.24, 0.2, 0.1, 0.1, 0.18, 0.24, 0.22, *[0.1] * 18],
    ),
    follow=[0.21, 0.44, 1, 0.88, 0.86, 0.84, *[1.0] * 15, *[0.0] * 11],
    scale=733,
)

FW = Kind(
    traffic=[
        (1, (None, "WC", "WC")),
        (4, (ICMP, "WC", "WC")),
        (6, (GRE, "WC", "WC")),
        (11, (TCP, "WC", "WC")),
        (43, (TCP, "WC", "EM")),
        (4, (TCP, "HI", "HI")),
        (9, (UDP, "WC", "EM")),
        (9, (UDP, "EM", "WC")),
        (2, (UDP, "HI", "HI")),
        (4, (UDP, "HI", "EM")),
        (4, (UDP, "EM", "HI")),
        (2, (UDP, "EM", "EM")),
        (1, (UDP, "HI", "AR")),
        (1, (UDP, "AR", "HI")),
    ],
    lengths={
        "WC WC": [
            *((18, (32, 0)), (12, (0, 0)), (8, (30, 0)), (7, (28, 32)), (7, (32, 28))),
            *((7, (27, 0)), (7, (23, 0)), (7, (21, 0)), (7, (30, 32)), (7, (32, 30))),
            *((3, (29, 0)), (3, (28, 0)), (2, (0, 32)), (2, (26, 0)), (2, (16, 0)), (2, (8, 0))),
        ],
        "WC EM": [(88, (0, 32)), (6, (0, 0)), (2, (32, 0)), (3, (32, 32)), (1, (26, 21))],
        "EM WC": [(82, (32, 0)), (11, (0, 32)), (7, (0, 0))],
        "HI HI": [(35, (0, 32)), (35, (32, 32)), (30, (32, 21))],
        "HI EM": [(60, (32, 32)), (40, (0, 32))],
        "EM HI": [(60, (32, 32)), (40, (32, 0))],
        "EM EM": [(33, (0, 32)), (33, (32, 0)), (33, (28, 28))],
        "": [(1, (0, 0))],
    },
    exact=_single(
        *(22, 80, 53, 25, 123, 161, 750, 2105, 21, 544, 443, 23, 88, 69, 67, 119, 7648, 24032),
        *(110, 143, 993, 995, 389, 636, 514, 515, 543, 749, 873, 2401, 3128, 4899, 5432, 6667),
    ),
    ranges=[(1, (33434, 33600))],
    branching=(
        [1, 0.5, 0.33, 0.25, 0.2, 0.17, 0.14, 0.12, 0.25, 0.1, *[0.05] * 8, 0.11]
        + [0.05, 0.05, 0.1, 0.1, 0.18, 0.15, 0.2, 0.33, 0.22, 0.29, 0.21, 0.07, 0.06],
        [1, 0.5, 0, 0, 0.33, 0, 0.25, 0.2, 0.17, *[0.05] * 9, 0.14]
        + [0.05, 0.05, 0.12, 0.11, 0.2, 0.17, 0.21, 0.35, 0.13, 0.24, 0.32, 0.27, 0.16],
    ),
    follow=[1, 0.7, 1, 1, 0.82, 1, 0.65, *[1.0] * 14, 0.33, 0.67, *[1.0] * 4, *[0.0] * 5],
    scale=283,
)

IPC = Kind(
    traffic=[
        (35, (None, "WC", "WC")),
        (1, (ICMP, "WC", "WC")),
        (2, (TCP, "WC", "WC")),
        (13, (TCP, "WC", "EM")),
        (7, (TCP, "EM", "WC")),
        (2, (TCP, "WC", "AR")),
        (2, (TCP, "AR", "WC")),
        (6, (UDP, "WC", "HI")),
        (1, (UDP, "HI", "WC")),
        (22, (UDP, "WC", "EM")),
        (7, (UDP, "EM", "WC")),
        (1, (UDP, "EM", "EM")),
        (1, (GRE, "WC", "WC")),
    ],
    lengths={
        "WC WC": [
            *((22, (24, 24)), (7, (24, 16)), (5, (16, 24)), (4, (26, 24)), (5, (24, 26))),
            *((8, (23, 24)), (1, (24, 23)), (3, (22, 24)), (2, (24, 22)), (3, (24, 0))),
            *((3, (0, 24)), (2, (16, 22)), (2, (17, 24)), (2, (17, 23)), (1, (16, 26))),
            *((1, (25, 24)), (2, (24, 25)), (2, (24, 28)), (1, (28, 24)), (1, (26, 26))),
            *((1, (32, 32)), (1, (0, 0)), (1, (16, 16)), (1, (0, 16)), (2, (22, 22)), (1, (28, 26))),
        ],
        "WC HI": [(81, (32, 32)), (6, (24, 32)), (3, (0, 32)), (4, (23, 32)), (3, (16, 32))],
        "HI WC": [(50, (32, 16)), (33, (32, 24)), (17, (32, 0))],
        "WC AR": [
            *((50, (24, 32)), (12, (23, 32)), (10, (16, 32)), (9, (26, 32)), (7, (0, 32))),
            *((5, (25, 32)), (2, (32, 32)), (2, (32, 0))),
        ],
        "AR WC": [
            *((44, (32, 24)), (12, (32, 16)), (12, (32, 26)), (9, (32, 23)), (6, (32, 0))),
            *((3, (24, 32)), (6, (32, 25)), (3, (0, 32)), (3, (32, 32))),
        ],
        "WC EM": [
            *((40, (32, 32)), (14, (24, 32)), (8, (16, 32)), (7, (0, 32)), (4, (0, 24))),
            *((4, (24, 0)), (6, (23, 32)), (5, (32, 24)), (4, (26, 32)), (2, (24, 24))),
            *((1, (32, 0)), (2, (22, 32)), (1, (16, 24))),
        ],
        "EM WC": [
            *((40, (32, 32)), (18, (32, 24)), (7, (32, 0)), (5, (0, 32)), (6, (32, 16))),
            *((8, (24, 32)), (4, (32, 23)), (4, (24, 24)), (2, (28, 16)), (2, (16, 32))),
        ],
        "": [(1, (32, 32))],
    },
    exact=_single(
        *(69, 514, 161, 80, 9003, 53, 25, 1433, 22, 137, 143, 162, 5540, 113, 139, 119, 5550),
        *(5520, 5500, 5632, 5510, 5530, 110, 443, 23, 21, 123, 389, 445, 3389, 8080, 5631),
    ),
    ranges=[
        *((26, (20, 23)), (26, (109, 110)), (20, (20, 21)), (18, (1645, 1646))),
        *((7, (1812, 1813)), (2, (20, 2511)), (2, (5000, 5001))),
    ],
    branching=(
        [1, 1, 0.5, 0.33, 0.25, 0.3, 0.08, 0.07, 0.27, 0.26, 0.12, 0.11, 0.07, 0, 0.09, 0.03]
        + [0.34, 0.18, 0.16, 0.13, 0.08, 0.03, 0.06, 0.03, 0.11, 0.1, 0.08, 0.09, 0.1, 0.12]
        + [0.09, 0.13],
        [1, 1, 0.25, 0.4, 0.43, 0.4, 0.07, 0, 0.07, 0.25, 0, 0, 0, 0, 0.1, 0.05]
        + [0.33, 0.11, 0.03, 0.06, 0.09, 0, 0.06, 0.03, 0.21, 0.18, 0.21, 0.26, 0.25, 0.14]
        + [0.09, 0.09],
    ),
    follow=[0.47, 0.5, 0.98, 0.55, 0.68, 0.67, 0.98, 1, 0.77, 0.74, *[1.0] * 6]
    + [0.7, 0.87, 1, 1, 0.96, 1, 0.92, 1, 0.05, 1, *[0.0] * 6],
    scale=1702,
)

KINDS = {"acl": ACL, "fw": FW, "ipc": IPC}


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

    value = {"family": 4, "source": IPV4 | five.source[0], "destination": IPV4 | five.destination[0]}
    masks = {
        "family": 0xFF,
        "source": mask(five.source[1]),
        "destination": mask(five.destination[1]),
    }
    if five.proto is not None:
        value["proto"], masks["proto"] = five.proto, 0xFF
    return Rule(value, masks, five.source_ports, five.destination_ports, priority, action)


def write_work(path: pathlib.Path, rules: Sequence[Five], frames: Sequence[dict[str, int]]) -> None:
    """What classifier.c reads: both counts, struct vnet_match[], struct vnet_fields[]."""
    with path.open("wb") as file:
        file.write(struct.pack("=II", len(rules), len(frames)))
        for number, five in enumerate(rules):
            file.write(pack_rule(as_rule(five, len(rules) - number, number)))
        for frame in frames:
            file.write(pack_fields(frame))
