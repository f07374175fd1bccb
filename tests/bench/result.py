"""What every bench writes: build/bench/NAME.json, and the same as a table.

A row is one figure: its median over the rounds, the lowest and highest round and, where a peer was
measured in the same run, the ratio to it. A figure holds when it meets its goal.
"""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics
from collections.abc import Sequence
from typing import Any

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build" / "bench"


def is_quick() -> bool:
    """QUICK=1 asks for fewer rounds, within two minutes."""
    return os.environ.get("QUICK", "") not in ("", "0")


def describe_machine() -> dict[str, Any]:
    """CPU, cores and kernel of this machine."""
    models = [
        line.partition(":")[2].strip()
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


@dataclasses.dataclass
class Row:
    """`values` are the rounds of this figure, `peer` those of what it is compared with."""

    name: str
    unit: str
    values: Sequence[float]
    against: str | None = None
    peer: Sequence[float] = ()
    goal: float | None = None
    goal_is_ceiling: bool = True

    def as_json(self) -> dict[str, Any]:
        value = statistics.median(self.values)
        ratio = value / statistics.median(self.peer) if self.peer else None
        measured = value if ratio is None else ratio
        holds = True
        if self.goal is not None:
            holds = measured <= self.goal if self.goal_is_ceiling else measured >= self.goal
        return {
            "name": self.name,
            "value": value,
            "unit": self.unit,
            "spread": [min(self.values), max(self.values)],
            "rounds": len(self.values),
            "against": self.against,
            "ratio": ratio,
            "goal": self.goal,
            "holds": holds,
        }


def format_row(row: Row) -> str:
    """A line of the table, without the name."""
    figures = row.as_json()
    low, high = figures["spread"]
    line = f"{figures['value']:10.3f} {row.unit}"
    line += f"  ({low:.3f} to {high:.3f}, {figures['rounds']} rounds)"
    if figures["ratio"] is not None:
        line += f"  {figures['ratio']:.3f} of {row.against}"
    if row.goal is not None:
        bound = "at most" if row.goal_is_ceiling else "at least"
        line += f"  goal {bound} {row.goal:g}: {'holds' if figures['holds'] else 'MISSED'}"
    return line


def write(bench: str, rows: Sequence[Row]) -> None:
    """Writes the JSON file and prints the table."""
    result = {
        "bench": bench,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "rows": [row.as_json() for row in rows],
    }
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"{bench}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        print(f"{row.name:{width}}  {format_row(row)}")
    print(f"written to {path}")
