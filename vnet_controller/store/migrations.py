"""Migrations: a report from each side, merged when they are read."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from vnet_agent.model.event import Type
from vnet_agent.model.migration import Phase, Report
from vnet_controller.intake import Incoming
from vnet_controller.store.projection import newest
from vnet_controller.store.schema import MIGRATIONS

SOURCE = "source"
DESTINATION = "destination"

_LARGEST = 2**63 - 1
_TYPES = (Type.MIGRATION_STARTED, Type.MIGRATION_COMPLETED, Type.MIGRATION_FAILED)
_ORDER = list(Phase)
_decoder = msgspec.json.Decoder(Report)


def check_report(report: Report) -> str | None:
    """The name of the first field with a value that no agent would send; None: all are fine."""
    for field in ("id", "instance", "source", "destination"):
        text = getattr(report, field)
        # A destination tells of a migration before it has found out where the VM comes from.
        shortest = 0 if field == "source" else 1
        if not shortest <= len(text) <= 256 or "\0" in text:
            return field
    if report.side not in (SOURCE, DESTINATION):
        return "side"
    if not 0 <= report.generation <= _LARGEST:
        return "generation"
    if any(not 0 <= step.time_ns <= _LARGEST for step in report.steps):
        return "steps"
    return None


def record_report(connection: Connection, report: Report, now_us: int) -> bool:
    """Store one side's report. False: a later one is there already, since its log only grows."""
    key = (MIGRATIONS.c.id == report.id) & (MIGRATIONS.c.side == report.side)
    stored = connection.execute(select(MIGRATIONS.c.steps).where(key)).scalar_one_or_none()
    if stored is not None and stored > len(report.steps):
        return False
    started_us = report.steps[0].time_ns // 1000 if report.steps else now_us
    values = {
        "instance": report.instance,
        "steps": len(report.steps),
        "started_us": started_us,
        "received_us": now_us,
        "body": msgspec.json.encode(report).decode(),
    }
    if stored is None:
        values |= {"id": report.id, "side": report.side}
        connection.execute(insert(MIGRATIONS).values(values))
    else:
        connection.execute(update(MIGRATIONS).where(key).values(values))
    return True


def record_event(connection: Connection, incoming: Incoming, now_us: int) -> None:
    """Store the report that a migration event carries, if it carries a whole one."""
    if incoming.event.type not in _TYPES:
        return
    try:
        report = msgspec.convert(incoming.event.data, Report)
    except msgspec.ValidationError:
        return
    if check_report(report) is None:
        record_report(connection, report, now_us)


def get_migration(connection: Connection, identifier: str) -> dict[str, Any] | None:
    rows = connection.execute(select(MIGRATIONS.c.body).where(MIGRATIONS.c.id == identifier))
    reports = [_decoder.decode(body) for body in rows.scalars()]
    return merge_reports(reports) if reports else None


def list_migrations(
    connection: Connection, *, instance: str | None, limit: int
) -> list[dict[str, Any]]:
    """The newest `limit` migrations, newest first."""
    recent = select(MIGRATIONS.c.id, MIGRATIONS.c.started_us)
    if instance is not None:
        recent = recent.where(MIGRATIONS.c.instance == instance)
    recent = recent.order_by(MIGRATIONS.c.started_us.desc(), MIGRATIONS.c.id).limit(2 * limit)
    order = list(dict.fromkeys(connection.execute(recent).scalars()))[:limit]
    sides: dict[str, list[Report]] = {identifier: [] for identifier in order}
    found = connection.execute(
        select(MIGRATIONS.c.id, MIGRATIONS.c.body).where(MIGRATIONS.c.id.in_(order))
    )
    for identifier, body in found:
        sides[identifier].append(_decoder.decode(body))
    return [merge_reports(reports) for reports in sides.values()]


def merge_reports(reports: Iterable[Report]) -> dict[str, Any]:
    """One view of both sides: the destination's number where it has one, else the source's.

    `steps` are both logs by time, each step with its `side`; `sides` holds the reports as they
    came. An abort on either side is the whole's phase; otherwise the side that is further on.
    """
    by_side = {report.side: report for report in reports}
    ranked = [by_side[side] for side in (DESTINATION, SOURCE) if side in by_side]
    merged: dict[str, Any] = msgspec.to_builtins(ranked[0])
    del merged["side"]
    for other in ranked[1:]:
        for field, value in msgspec.to_builtins(other).items():
            if field in merged and merged[field] in (None, {}, ""):
                merged[field] = value
    phases = [report.phase for report in ranked]
    merged["phase"] = max(phases, key=_ORDER.index).value
    merged["generation"] = newest(*[r.generation for r in (ranked * 2)[:2]])
    steps = [msgspec.to_builtins(s) | {"side": r.side} for r in ranked for s in r.steps]
    merged["steps"] = sorted(steps, key=lambda step: int(step["time_ns"]))
    merged["sides"] = {side: msgspec.to_builtins(r) for side, r in by_side.items()}
    return merged
