"""What the migrations to this host came to, since the agent started."""

from bisect import bisect_left
from collections import Counter

from vnet_agent.model.migration import Phase, Report

#: Upper bounds of the buckets of durations, in seconds.
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
DURATIONS = ("vcpu_pause_ms", "network_gap_ms", "final_delta_ms")
FRAMES = ("frames_replayed", "frames_lost", "frames_duplicated")


class Durations:
    """Of one kind: how many were at most as long as each bound, and their sum, in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds


class Totals:
    """Only of destinations: they have the whole report. What was not measured counts nowhere."""

    def __init__(self) -> None:
        self.finished: Counter[str] = Counter()
        self.moved = 0
        self.refused: Counter[str] = Counter()
        self.rounds = 0
        self.frames: Counter[str] = Counter(dict.fromkeys(FRAMES, 0))
        self.durations = {name: Durations() for name in DURATIONS}

    def add(self, report: Report) -> None:
        """A migration that is over."""
        self.finished["completed" if report.phase is Phase.DONE else "failed"] += 1
        self.moved += report.connections_moved or 0
        self.refused.update(report.connections_refused)
        self.rounds += report.precopy_rounds or 0
        for name in FRAMES:
            self.frames[name] += getattr(report, name) or 0
        for name, durations in self.durations.items():
            if (milliseconds := getattr(report, name)) is not None:
                durations.add(milliseconds / 1000)
