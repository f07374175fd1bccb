"""Where instances run: what events and snapshots may move, and what they must not."""

import itertools
import json
from typing import Any

import pytest
from controller_support import (
    VM,
    call,
    make_event,
    make_port,
    make_report,
    post_events,
    run_controller,
)
from hypothesis import given
from hypothesis import strategies as st

from vnet_controller.intake import JSON, Incoming, Limits, decode_events
from vnet_controller.store.projection import Instance, apply_event

KINDS = ("started", "stopped", "rebooted", "crashed", "suspended", "resumed")


def completed(
    source: str, destination: str, generation: int | None, **fields: Any
) -> dict[str, Any]:
    data = make_report(source=source, destination=destination, generation=generation)
    return make_event("migration.completed", destination, data=data, **fields)


async def place_of(session: Any, uuid: str = VM) -> tuple[str, str]:
    instance = await call(session, "GET", f"/v1/instances/{uuid}")
    return instance["host"], instance["state"]


async def test_states(tmp_path: Any) -> None:
    stories = {
        "started": "running",
        "started suspended": "suspended",
        "started suspended resumed": "running",
        "started crashed": "crashed",
        "started crashed stopped": "stopped",
        "started rebooted": "running",
        "stopped": "stopped",
    }
    async with run_controller(tmp_path) as session:
        for story, state in stories.items():
            await post_events(session, *[make_event(k, subject=story) for k in story.split()])
            assert await place_of(session, story) == ("alpha", state)


@pytest.mark.parametrize("split", [False, True])
async def test_every_order_of_delivery_ends_in_the_same_state(tmp_path: Any, split: bool) -> None:
    events = [make_event(kind) for kind in ("started", "suspended", "resumed", "stopped")]
    async with run_controller(tmp_path) as session:
        for index, order in enumerate(itertools.permutations(events)):
            uuid = f"vm-{index}"
            batch = [e | {"subject": uuid, "id": f"{uuid}/{e['id']}"} for e in order]
            for part in [[event] for event in batch] if split else [batch]:
                await post_events(session, *part)
            assert await place_of(session, uuid) == ("alpha", "stopped")


async def test_a_new_epoch_is_newer_than_any_sequence_of_the_old_one(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event(epoch=1, number=900))
        await post_events(session, make_event("stopped", epoch=2, number=1, second=901))
        await post_events(session, make_event("resumed", epoch=1, number=901, second=902))
        assert await place_of(session) == ("alpha", "stopped")


async def test_a_migration_moves_the_instance_and_keeps_its_state(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event(), make_event("suspended"))
        await post_events(session, completed("alpha", "beta", 1))
        assert await place_of(session) == ("beta", "suspended")
        # What the source tells of its remains is no news of the instance.
        await post_events(session, make_event("stopped", "alpha"), make_event("crashed", "alpha"))
        assert await place_of(session) == ("beta", "suspended")
        await post_events(session, make_event("stopped", "beta"))
        assert await place_of(session) == ("beta", "stopped")


async def test_only_the_destination_says_that_it_completed(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        claim = completed("alpha", "beta", 1) | {"source": "/hosts/gamma"}
        await post_events(session, make_event(), claim)
        assert await place_of(session) == ("alpha", "running")


async def test_there_and_back_in_any_order(tmp_path: Any) -> None:
    started = make_event()
    there, back = completed("alpha", "beta", 1), completed("beta", "alpha", 2)
    async with run_controller(tmp_path) as session:
        for index, order in enumerate(itertools.permutations([started, there, back])):
            uuid = f"vm-{index}"
            for event in order:
                mine = event | {"subject": uuid, "id": f"{uuid}/{event['id']}"}
                await post_events(session, mine)
            assert (await place_of(session, uuid))[0] == "alpha", order


async def test_a_destination_whose_clock_is_behind_still_moves_it(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event(second=100))
        await post_events(session, completed("alpha", "beta", 1, second=95))
        assert (await place_of(session))[0] == "beta"


async def test_a_start_elsewhere_moves_it_unless_it_is_old(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event(second=100))
        await post_events(session, make_event(host="beta", second=50))
        assert (await place_of(session))[0] == "alpha"
        await post_events(session, make_event(host="beta", second=200))
        assert (await place_of(session))[0] == "beta"
        await post_events(session, make_event("stopped", second=300))
        assert await place_of(session) == ("beta", "running")


@pytest.mark.parametrize("data", [{}, {"destination": 5}, {"generation": "x"}, {"generation": -1}])
async def test_migration_data_of_no_use_moves_nothing(tmp_path: Any, data: Any) -> None:
    async with run_controller(tmp_path) as session:
        event = completed("alpha", "beta", 1)
        data = (event["data"] | data) if data else {}
        await post_events(session, make_event(), event | {"data": data})
        assert await place_of(session) == ("alpha", "running")


async def send_ports(session: Any, host: str, *ports: dict[str, Any]) -> None:
    await call(session, "PUT", f"/v1/hosts/{host}/ports", json={"ports": list(ports)})


async def test_a_snapshot_tells_of_instances_that_no_event_told(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await send_ports(session, "beta", make_port(role="standby"))
        await call(session, "GET", f"/v1/instances/{VM}", 404)
        await send_ports(session, "alpha", make_port())
        assert await place_of(session) == ("alpha", "active")


async def test_a_snapshot_moves_only_with_a_newer_generation(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event())
        await send_ports(session, "alpha", make_port(generation=1))
        await send_ports(session, "beta", make_port(generation=1))
        assert await place_of(session) == ("alpha", "running")
        await send_ports(session, "beta", make_port(generation=2))
        assert await place_of(session) == ("beta", "running")
        # The source's, which was under way when the migration completed.
        await send_ports(session, "alpha", make_port(generation=1))
        assert await place_of(session) == ("beta", "running")


async def test_a_snapshot_of_the_source_does_not_undo_a_completed_event(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await send_ports(session, "beta", make_port(role="standby", generation=3))
        await post_events(session, make_event(), completed("alpha", "beta", 3))
        await send_ports(session, "alpha", make_port(generation=3))
        assert (await place_of(session))[0] == "beta"


async def test_snapshots_alone_tell_in_the_end_where_it_is(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event())
        await send_ports(session, "alpha", make_port(generation=2))
        await send_ports(session, "beta", make_port(generation=2))
        assert (await place_of(session))[0] == "alpha"
        await send_ports(session, "alpha", make_port(role="moved", generation=2))
        await send_ports(session, "beta", make_port(generation=2))
        assert (await place_of(session))[0] == "beta"
        await send_ports(session, "beta")
        await send_ports(session, "alpha", make_port(generation=1))
        assert (await place_of(session))[0] == "alpha"


async def test_a_migration_without_a_generation_goes_by_time(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await send_ports(session, "alpha", make_port(generation=1))
        await post_events(session, make_event("resumed", second=100))
        old = completed("gamma", "beta", 0, second=50)
        await post_events(session, old)
        assert (await place_of(session))[0] == "alpha"
        late = "2035-01-01T00:00:00Z"
        await post_events(session, completed("alpha", "beta", 0, time=late))
        assert (await place_of(session))[0] == "beta"


async def test_ports_are_those_of_the_last_snapshot(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await send_ports(session, "alpha", make_port(), make_port(uuid="p-2"))
        await send_ports(session, "beta", make_port(role="standby"))
        await send_ports(session, "alpha", make_port(uuid="p-2", tagged=False))
        ports = (await call(session, "GET", f"/v1/instances/{VM}"))["ports"]
        expected = {("p-2", "alpha", "active"), (make_port()["uuid"], "beta", "standby")}
        assert {(p["uuid"], p["host"], p["role"]) for p in ports} == expected
        pages = await call(session, "GET", "/v1/ports?limit=1")
        rest = await call(session, "GET", f"/v1/ports?after={pages['next']}")
        assert pages["ports"] + rest["ports"] == (await call(session, "GET", "/v1/ports"))["ports"]
        bad = {"ports": [make_port(), make_port()]}
        problem = await call(session, "PUT", "/v1/hosts/alpha/ports", 400, json=bad)
        assert problem["field"] == "ports[1].uuid"
        bad = {"ports": [make_port(role="boss")]}
        problem = await call(session, "PUT", "/v1/hosts/alpha/ports", 400, json=bad)
        assert problem["field"] == "ports[0].role"


async def test_names_are_kept_and_cut(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event(data={"name": "\0" + "x" * 400}))
        await post_events(session, make_event("suspended", data={"name": 5}))
        name = (await call(session, "GET", f"/v1/instances/{VM}"))["name"]
        assert name == "\ufffd" + "x" * 254


def incoming(event: dict[str, Any]) -> Incoming:
    return decode_events(json.dumps(event).encode(), JSON, Limits(1, 65536))[0]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS), st.sampled_from(["alpha", "beta"]), st.integers(0, 3600)
        ),
        max_size=12,
    )
)
def test_an_end_is_believed_of_the_recorded_host_only(story: list[tuple[str, str, int]]) -> None:
    instance: Instance | None = None
    for number, (kind, host, second) in enumerate(story, start=1):
        event = make_event(kind, host, number=number, second=second)
        before, instance = instance, apply_event(instance, incoming(event))
        assert instance is not None
        if before is not None and before.host != host and kind in ("stopped", "crashed"):
            assert instance == before
        if before is None or before.host == host:
            assert (instance.host, instance.since_us) == (host, incoming(event).time_us)
        assert before is None or instance.ordered_us >= before.ordered_us
