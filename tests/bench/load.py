"""The load generator load.c: built when it is older than its source, and run for one figure."""

import dataclasses
import functools
import os
import pathlib

import result
from sandbox import BenchError, command
from tenants import GUESTS, Site

SOURCE = pathlib.Path(__file__).with_name("load.c")
FLAGS = ("-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror")


@dataclasses.dataclass(frozen=True)
class Figure:
    """What is measured. `scale` turns the program's unit into `unit`; `apart` asks for a CPU for
    each end, otherwise both share one, and what is between them may use the other."""

    kind: str
    name: str
    unit: str
    scale: float = 1.0
    apart: bool = False


FIGURES = (
    Figure("rr", "TCP request/response", "1/s"),
    Figure("crr", "TCP connect/request/close", "1/s"),
    Figure("udp", "UDP packets", "1/s", apart=True),
    Figure("stream", "TCP throughput on one CPU", "Gbit/s", scale=1e-9),
)


def compile_static(source: pathlib.Path) -> pathlib.Path:
    """The program of one C file, linked statically: it runs in any namespace and initramfs."""
    program = result.BUILD / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        command("gcc", *FLAGS, "-o", str(program), str(source))
    return program


@functools.cache
def build() -> pathlib.Path:
    return compile_static(SOURCE)


def measure(figure: Figure, site: Site, seconds: float) -> float:
    """From guest a to guest b; BenchError when frames do not get through."""
    cpus = sorted(os.sched_getaffinity(0))
    client, server = site.guests
    answer = command(
        *(str(build()), figure.kind, str(client.path), str(server.path), GUESTS[1].address),
        *(str(seconds), str(cpus[0]), str(cpus[1 if figure.apart and len(cpus) > 1 else 0])),
    )
    value = float(answer) * figure.scale
    if value <= 0:
        raise BenchError(f"{figure.name}: nothing got through")
    return value
