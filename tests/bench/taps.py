"""Builds and runs taps.c: frames from tap to tap, without a stack at the ends."""

import functools
import pathlib

import load
from tenants import GUESTS, Site

SOURCE = pathlib.Path(__file__).with_name("taps.c")


@functools.cache
def build() -> pathlib.Path:
    return load.compile_static(SOURCE)


def measure(kind: str, site: Site, count: int) -> float:
    """`frames` or `rr` a second between the guests' taps."""
    ends = [word for guest in GUESTS for word in (guest.tap, guest.mac, guest.address)]
    return float(site.node.run(str(build()), kind, *ends, str(count)))
