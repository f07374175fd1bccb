"""Migration reports: from both sides, by request and by event, seen as one."""

from typing import Any

from controller_support import VM, call, make_event, make_report, post_events, run_controller


def steps(*entries: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"phase": phase, "time_ns": ns, "detail": ""} for phase, ns in entries]


async def put(session: Any, expect: int = 200, **fields: Any) -> Any:
    report = make_report(**fields)
    report = {"host": report.get(report["side"], "alpha")} | report
    return await call(session, "PUT", f"/v1/migrations/{report['id']}", expect, json=report)


async def test_both_sides_become_one_view(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await put(
            session,
            side="source",
            phase="drain",
            vcpu_pause_ms=180.5,
            connections_moved=5,
            steps=steps(("precopy", 20), ("drain", 40)),
        )
        await put(
            session,
            side="destination",
            phase="active",
            connections_moved=4,
            connections_refused={"policy": 1},
            steps=steps(("prepare", 10), ("active", 30)),
        )
        merged = await call(session, "GET", "/v1/migrations/m-1")
        assert (merged["connections_moved"], merged["vcpu_pause_ms"]) == (4, 180.5)
        assert merged["connections_refused"] == {"policy": 1}
        assert merged["frames_lost"] is None
        assert merged["phase"] == "drain"
        seen = [(step["phase"], step["side"]) for step in merged["steps"]]
        assert seen == [
            ("prepare", "destination"),
            ("precopy", "source"),
            ("active", "destination"),
            ("drain", "source"),
        ]
        assert merged["sides"]["source"]["connections_moved"] == 5
        assert (await call(session, "GET", "/v1/migrations"))["migrations"] == [merged]


async def test_a_destination_may_not_know_the_source_yet(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await put(session, side="destination", host="beta", source="", phase="prepare")
        await put(session, side="source", phase="precopy")
        merged = await call(session, "GET", "/v1/migrations/m-1")
        assert (merged["source"], merged["destination"]) == ("alpha", "beta")
        wrong = await put(session, 400, side="destination", host="beta", destination="")
        assert wrong["field"] == "destination"


async def test_an_abort_on_either_side_is_the_phase(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await put(session, side="source", phase="aborted", error="gone")
        await put(session, side="destination", phase="precopy")
        merged = await call(session, "GET", "/v1/migrations/m-1")
        assert (merged["phase"], merged["error"]) == ("aborted", "gone")


async def test_a_report_that_is_late_changes_nothing(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        done = steps(("prepare", 1), ("precopy", 2), ("done", 3))
        assert (await put(session, phase="done", steps=done))["stored"]
        assert not (await put(session, phase="precopy", steps=done[:2]))["stored"]
        assert (await call(session, "GET", "/v1/migrations/m-1"))["phase"] == "done"


async def test_an_event_carries_the_report_as_well(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        report = make_report(connections_moved=7)
        await post_events(session, make_event("migration.completed", "beta", data=report))
        assert (await call(session, "GET", "/v1/migrations/m-1"))["connections_moved"] == 7
        broken = make_report(id="m-2", generation="many")
        await post_events(session, make_event("migration.failed", "beta", data=broken))
        await call(session, "GET", "/v1/migrations/m-2", 404)


async def test_the_newest_come_first_and_can_be_narrowed(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        for number in range(5):
            for side in ("source", "destination"):
                await put(
                    session, id=f"m-{number}", side=side, steps=steps(("prepare", number * 10**9))
                )
        await put(session, id="other", instance="x", steps=steps(("prepare", 99 * 10**9)))
        listed = await call(session, "GET", "/v1/migrations?limit=3")
        assert [m["id"] for m in listed["migrations"]] == ["other", "m-4", "m-3"]
        listed = await call(session, "GET", f"/v1/migrations?instance={VM}&limit=2")
        assert [m["id"] for m in listed["migrations"]] == ["m-4", "m-3"]


async def test_a_bad_report_is_refused_by_field(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        for field, value in (
            ("side", "middle"),
            ("generation", -1),
            ("generation", 2**63),
            ("instance", ""),
            ("source", "x" * 300),
            ("steps", steps(("done", 2**63))),
            ("host", "../x"),
            ("phase", "lunch"),
            ("connections_moved", "all"),
        ):
            problem = await put(session, 400, **{field: value})
            assert problem["field"] == field
        other = make_report(host="beta")
        problem = await call(session, "PUT", "/v1/migrations/elsewhere", 400, json=other)
        assert problem["field"] == "id"
        assert (await call(session, "GET", "/v1/migrations"))["migrations"] == []
