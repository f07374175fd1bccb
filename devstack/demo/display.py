"""What the demo prints: its steps as they go, then the report and the events."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

#: Columns of a log, which no terminal limits.
LOG_WIDTH = 120
REPORT = (
    ("connections_moved", "connections moved"),
    ("connections_refused", "connections refused"),
    ("precopy_rounds", "pre-copy rounds"),
    ("final_delta_ms", "final delta, ms"),
    ("vcpu_pause_ms", "VM paused, ms"),
    ("network_gap_ms", "network gap, ms"),
    ("frames_replayed", "frames replayed"),
    ("frames_lost", "frames lost"),
    ("frames_duplicated", "frames duplicated"),
)


class Display:
    """Lines on a terminal or in a log."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = LOG_WIDTH

    def step(self, number: int, of: int, title: str, run: Callable[[], None]) -> None:
        """Names the step while it runs and how long it took; its errors pass through."""
        began = time.monotonic()
        with self.console.status(f"[bold]{title}[/]"):
            try:
                run()
            except BaseException:
                self.console.print(f"[red]✗[/] {number}/{of} {title}")
                raise
        took = time.monotonic() - began
        self.console.print(f"[green]✓[/] {number}/{of} {title} [dim]{took:.1f} s[/]")

    def say(self, text: str) -> None:
        self.console.print(f"      [dim]{text}[/]", soft_wrap=True)

    def reports(self, reports: Iterable[Mapping[str, Any]]) -> None:
        table = Table(title="Migrations", title_justify="left")
        table.add_column("")
        reports = list(reports)
        for report in reports:
            table.add_column(f"{report['source']} → {report['destination']}", justify="right")
        for key, title in REPORT:
            table.add_row(title, *(_value(report.get(key)) for report in reports))
        self.console.print(table)

    def events(self, events: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> None:
        table = Table(title="Events, as the controller stored them", title_justify="left")
        for column in ("time (UTC)", "host", "type", "subject", "cause", "inferred"):
            table.add_column(column, no_wrap=True)
        for event in events:
            subject = event.get("subject") or ""
            table.add_row(
                event["time"][11:23],
                event["source"].removeprefix("/hosts/"),
                event["type"].removeprefix("vnet."),
                names.get(subject, subject[:13]),
                event["cause"],
                "yes" if event["inferred"] else "",
            )
        self.console.print(table)

    def passed(self, seconds: float) -> None:
        self.console.print(f"[bold green]PASS[/] in {seconds:.0f} s")

    def failed(self, what: str) -> None:
        self.console.print(f"[bold red]FAILED[/]: {what}", soft_wrap=True, markup=True)


def _value(value: object) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, dict):
        return ", ".join(f"{count} {reason}" for reason, count in value.items()) or "0"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)
