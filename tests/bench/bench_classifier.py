"""The classifier on sets of the kinds acl, fw and ipc: look-ups, changes, loading, memory.

Natively on one core, by the time that the process had; and in the kernel by BPF_PROG_TEST_RUN.
Answers are compared with a search through the rules. The smallest sets are what a port's policy
may be.
"""

import dataclasses
import pathlib
import subprocess

import classbench
import result
from sandbox import command

HERE = pathlib.Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror")
SMALL, MEDIUM, LARGE = 100, 10_000, 100_000
FRAMES = 200_000


@dataclasses.dataclass(frozen=True)
class Figure:
    """A line of the driver's: its name, the row's, its unit, and goals by number of rules."""

    key: str
    name: str
    unit: str
    goals: dict[int, float]
    goal_is_ceiling: bool = True
    scale: float = 1.0


FIGURES = (
    Figure("lookups", "look-ups", "M/s", {MEDIUM: 3.0, LARGE: 1.5}, False, 1e-6),
    Figure("updates", "changes", "M/s", {MEDIUM: 0.5}, False, 1e-6),
    Figure("load", "loading", "s", {LARGE: 2.0}),
    Figure("kernel-ns", "in the kernel", "ns", {MEDIUM: 3000.0}),
    Figure("bytes-per-rule", "memory", "bytes a rule", {}),
    Figure("visited-mean", "subtables visited, mean", "", {}),
    Figure("visited-worst", "subtables visited, most", "", {}),
    Figure("worst-rules", "rules looked at, the bound", "", {}),
)


def build() -> tuple[pathlib.Path, pathlib.Path]:
    """The native driver and the kernel's."""
    result.BUILD.mkdir(parents=True, exist_ok=True)
    native = [str(path) for path in sorted((CSRC / "native").glob("classifier*.c"))]
    includes = [f"-I{CSRC / room}" for room in ("native", "core")]
    plain, kernel = result.BUILD / "classifier", result.BUILD / "classifier_kernel"
    sources = [str(HERE / name) for name in ("classifier.c", "classifier_count.c")]
    command("gcc", *FLAGS, *includes, "-o", str(plain), *sources, *native)
    command("make", "-s", "-C", str(CSRC), f"BUILD={result.BUILD}", "kernel")
    command(
        *("gcc", *FLAGS, *includes, f"-I{result.BUILD}", "-o", str(kernel)),
        *(str(HERE / "classifier_kernel.c"), *native, "-lbpf"),
    )
    return plain, kernel


def parse(text: str) -> dict[str, list[float]]:
    """The drivers' lines "NAME VALUE..."; of a name that comes twice, the first."""
    figures: dict[str, list[float]] = {}
    for line in text.splitlines():
        name, *values = line.split()
        figures.setdefault(name, [float(value) for value in values])
    return figures


def make_rows(kind: str, rules: int, figures: dict[str, list[float]]) -> list[result.Row]:
    return [
        result.Row(
            f"{kind}, {rules:,} rules: {figure.name}",
            figure.unit,
            [value * figure.scale for value in figures[figure.key]],
            goal=figure.goals.get(rules),
            goal_is_ceiling=figure.goal_is_ceiling,
        )
        for figure in FIGURES
    ]


def measure(
    drivers: tuple[pathlib.Path, pathlib.Path], kind: str, count: int, rounds: int
) -> list[result.Row]:
    rules = classbench.make_rules(kind, count)
    frames = list(classbench.make_frames(rules, FRAMES))
    path = result.BUILD / f"classifier-{kind}-{count}"
    classbench.write_work(path, rules, frames)
    output = "".join(
        subprocess.run(
            [program, path, str(rounds)], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        for program in drivers
    )
    path.unlink()
    return make_rows(kind, count, parse(output))


def main() -> None:
    rounds = 3 if result.is_quick() else 9
    drivers = build()
    result.write(
        "classifier",
        [
            row
            for count in (SMALL, MEDIUM, LARGE)
            for kind in classbench.KINDS
            for row in measure(drivers, kind, count, rounds)
        ],
    )


if __name__ == "__main__":
    main()
