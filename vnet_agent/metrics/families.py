"""The agent's figures in Prometheus' terms: base units, prefix `vnet_`, bounded labels."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from vnet_agent.datapath.base import PortCounters, PortEntry
from vnet_agent.migration.totals import BUCKETS, Totals
from vnet_agent.model.migration import Report
from vnet_agent.model.port import PortState

_PORT = ("port", "instance", "tap")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is told at one moment; None is "not known now", and is left out.

    `status` is that of `vnetctl status`; `failed` says which parts could not be asked.
    """

    host: str
    version: str
    status: Mapping[str, Any]
    states: Sequence[PortState]
    entries: Sequence[PortEntry]
    counters: Mapping[str, PortCounters]
    epoch: int | None
    last: int | None
    pending: int | None
    reports: Sequence[Report]
    totals: Totals
    is_capturing: bool
    failed: Mapping[str, bool]


def make_families(figures: Figures) -> Iterator[Metric]:
    yield from _agent(figures)
    yield from _journal(figures)
    yield from _ports(figures)
    yield from _migrations(figures.totals)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"vnet_{name}", text, value=value)


def _agent(figures: Figures) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "vnet_agent_info", "1; the agent by its labels.", labels=("host", "version", "datapath")
    )
    info.add_metric([figures.host, figures.version, str(figures.status.get("datapath", ""))], 1)
    yield info
    failed = GaugeMetricFamily(
        "vnet_agent_part_failed",
        "Whether the part could not be asked for its figures, which are missing then.",
        labels=("part",),
    )
    for part, is_failed in sorted(figures.failed.items()):
        failed.add_metric([part], is_failed)
    yield failed
    if "libvirt_connected" in figures.status:
        is_connected = bool(figures.status["libvirt_connected"])
        yield _gauge("libvirt_connected", "Whether libvirt answers.", is_connected)
    if figures.status.get("controller"):
        is_reachable = bool(figures.status.get("controller_reachable"))
        yield _gauge(
            "controller_connected", "Whether the controller answers; absent without one.",
            is_reachable,
        )  # fmt: skip
    yield _gauge("capture_running", "Whether frames are captured.", figures.is_capturing)
    migrations = GaugeMetricFamily(
        "vnet_migrations",
        "Migrations that this host remembers, by its side of them and their phase.",
        labels=("side", "phase"),
    )
    for (side, phase), count in sorted(
        Counter((report.side, str(report.phase)) for report in figures.reports).items()
    ):
        migrations.add_metric([side, phase], count)
    yield migrations


def _migrations(totals: Totals) -> Iterator[Metric]:
    finished = CounterMetricFamily(
        "vnet_migrations_finished", "Migrations to this host that are over.", labels=("outcome",)
    )
    for outcome in ("completed", "failed"):
        finished.add_metric([outcome], totals.finished[outcome])
    yield finished
    yield CounterMetricFamily(
        "vnet_migration_connections_moved",
        "Connections that came with VMs to this host.",
        value=totals.moved,
    )
    refused = CounterMetricFamily(
        "vnet_migration_connections_refused",
        "Connections of VMs that came to this host that were not taken, by reason.",
        labels=("reason",),
    )
    for reason, count in sorted(totals.refused.items()):
        refused.add_metric([reason], count)
    yield refused
    yield CounterMetricFamily(
        "vnet_migration_precopy_rounds", "Rounds of changed connections.", value=totals.rounds
    )
    frames = CounterMetricFamily(
        "vnet_migration_frames",
        "Frames of VMs that came to this host: replayed, lost at a full queue, or doubled.",
        labels=("outcome",),
    )
    for name, count in totals.frames.items():
        frames.add_metric([name.removeprefix("frames_")], count)
    yield frames
    for name, durations in totals.durations.items():
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), durations.counts, strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(
            f"vnet_migration_{name.removesuffix('_ms')}_seconds",
            "Of migrations to this host; see vnetctl migration show.",
            buckets=buckets,
            sum_value=durations.sum,
        )


def _journal(figures: Figures) -> Iterator[Metric]:
    for name, text, value in (
        ("journal_epoch", "Epoch of the event journal.", figures.epoch),
        ("journal_last_event", "Number of the newest event in this epoch.", figures.last),
        (
            "journal_pending_events",
            "Events that not every sink has acknowledged.",
            figures.pending,
        ),
    ):
        if value is not None:
            yield _gauge(name, text, value)


def _ports(figures: Figures) -> Iterator[Metric]:
    roles = GaugeMetricFamily("vnet_ports", "Ports of this host by role.", labels=("role",))
    for role, count in sorted(Counter(str(state.role) for state in figures.states).items()):
        roles.add_metric([role], count)
    yield roles
    direction = (*_PORT, "direction")
    frames = CounterMetricFamily(
        "vnet_port_frames", "Frames that passed to the VM, or from it.", labels=direction
    )
    size = CounterMetricFamily(
        "vnet_port_bytes", "Bytes of frames that passed to the VM, or from it.", labels=direction
    )
    drops = CounterMetricFamily(
        "vnet_port_drops", "Frames dropped, by reason.", labels=(*_PORT, "reason")
    )
    connections = GaugeMetricFamily(
        "vnet_port_connections", "Connections in the port's table.", labels=_PORT
    )
    quota = GaugeMetricFamily(
        "vnet_port_connection_quota", "Most connections that the port may hold.", labels=_PORT
    )
    quotas = {entry.port: entry.quota for entry in figures.entries}
    for state in figures.states:
        port = state.port
        labels = [port.uuid, port.instance, port.tap]
        if port.uuid in quotas:
            quota.add_metric(labels, quotas[port.uuid])
        counted = figures.counters.get(port.uuid)
        if counted is None:
            continue
        frames.add_metric([*labels, "ingress"], counted.rx_frames)
        frames.add_metric([*labels, "egress"], counted.tx_frames)
        size.add_metric([*labels, "ingress"], counted.rx_bytes)
        size.add_metric([*labels, "egress"], counted.tx_bytes)
        connections.add_metric(labels, counted.connections)
        for reason, count in counted.drops.items():
            drops.add_metric([*labels, reason], count)
    yield from (frames, size, drops, connections, quota)
