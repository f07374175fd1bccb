"""Builds and runs taps.c: frames from tap to tap, without a stack at the ends."""

import contextlib
import functools
import pathlib
import subprocess
from collections.abc import Iterator

import load
from sandbox import BenchError
from tenants import GUESTS, Site

SOURCE = pathlib.Path(__file__).with_name("taps.c")


@functools.cache
def build() -> pathlib.Path:
    return load.compile_static(SOURCE)


class Taps:
    """The guests' taps, which the running program holds."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._answer()

    def measure(self, kind: str, count: int) -> float:
        """`frames` or `rr` a second between the guests' taps."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {count}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"taps ended with exit status {self._process.wait()}")
        return line


@contextlib.contextmanager
def open_taps(site: Site, *, virtio: bool) -> Iterator[Taps]:
    """Taps that are not connected yet; `virtio`: frames have a virtio header."""
    ends = [word for guest in GUESTS for word in (guest.tap, guest.mac, guest.address)]
    with site.node.inside():
        process = subprocess.Popen(
            [str(build()), "virtio" if virtio else "plain", *ends],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        yield Taps(process)
    finally:
        process.kill()
        process.communicate()
