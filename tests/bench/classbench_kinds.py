"""What acl, fw and ipc sets of rules are made of: see classbench.py.

Summaries, in whole per cents, of the statistics that ClassBench's seeds acl1, fw1 and ipc1 have.
Classes of ports as there: WC any, HI 1024 and above, AR a range, EM exact; the ports themselves
are others, as many.
"""

import dataclasses
from collections.abc import Sequence

TCP, UDP, ICMP, GRE = 6, 17, 1, 47
SERVICES = (
    *(443, 53, 80, 22, 25, 123, 161, 1521, 1433, 389, 445, 3389, 3306, 5432, 8080, 21, 20, 23),
    *(110, 143, 993, 995, 69, 514, 162, 179, 88, 464, 636, 873, 2049, 111, 135, 137, 139, 500),
    *(4500, 5060, 5061, 6379, 9200, 9092, 11211, 27017, 8443, 5900, 6000),
)


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


def _exact(count: int) -> list[tuple[float, tuple[int, int]]]:
    """So many ports; the first few are in most of the rules."""
    ports = [*SERVICES, *range(30000, 31000)][:count]
    return [(1 / (1 + place / 3), (port, port)) for place, port in enumerate(ports)]


def _levels(text: str) -> list[float]:
    """A trie's 32 levels in per cents; "5x3" is 5 for three of them."""
    levels: list[float] = []
    for word in text.split():
        per_cent, _, count = word.partition("x")
        levels += [int(per_cent) / 100] * int(count or 1)
    return levels


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
    exact=_exact(73),
    ranges=[
        *((4, (1025, 65535)), (4, (5001, 65535))),
        *((6, (first, first + 49)) for first in range(7000, 8400, 200)),
        *((2, (first, first + 9)) for first in range(61000, 63400, 100)),
    ],
    branching=(
        _levels("100 0x5 50 0x17 50 67 80 78 75x2 53 26"),
        _levels("100x2 67 75 83 40 30 24 20 10x2 18 24 22 10x18"),
    ),
    follow=_levels("21 44 100 88 86 84 100x15 0x11"),
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
    exact=_exact(40),
    ranges=[(1, (33434, 33600))],
    branching=(
        _levels("100 50 33 25 20 17 14 12 25 10 5x8 11 5x2 10x2 18 15 20 33 22 29 21 7 6"),
        _levels("100 50 0x2 33 0 25 20 17 5x9 14 5x2 12 11 20 17 21 35 13 24 32 27 16"),
    ),
    follow=_levels("100 70 100x2 82 100 65 100x14 33 67 100x4 0x5"),
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
            *(
                (1, (32, 32)),
                (1, (0, 0)),
                (1, (16, 16)),
                (1, (0, 16)),
                (2, (22, 22)),
                (1, (28, 26)),
            ),
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
    exact=_exact(45),
    ranges=[
        *((26, (20, 23)), (26, (109, 110)), (20, (20, 21)), (18, (1645, 1646))),
        *((7, (1812, 1813)), (2, (20, 2511)), (2, (5000, 5001))),
    ],
    branching=(
        _levels(
            "100x2 50 33 25 30 8 7 27 26 12 11 7 0 9 3 34 18 16 13 8 3 6 3 11 10 8 9 10 12 9 13"
        ),
        _levels("100x2 25 40 43 40 7 0 7 25 0x4 10 5 33 11 3 6 9 0 6 3 21 18 21 26 25 14 9x2"),
    ),
    follow=_levels("47 50 98 55 68 67 98 100 77 74 100x6 70 87 100x2 96 100 92 100 5 100 0x6"),
    scale=1702,
)

KINDS = {"acl": ACL, "fw": FW, "ipc": IPC}
