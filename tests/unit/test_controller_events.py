"""Events in: what is taken, what is refused and how, and what comes out again."""

import json
import re
from typing import Any

import msgspec
import pytest
from cloudevents.v1.http import from_json
from controller_support import VM, call, make_event, post_events, run_controller
from hypothesis import given
from hypothesis import strategies as st

from vnet_agent.model.event import Event
from vnet_controller.intake import BATCH, JSON, SINGLE, Limits, decode_events, parse_time
from vnet_controller.problem import Problem

LIMITS = Limits(events=10, event_size=4096)


async def test_what_is_posted_comes_out_in_order(tmp_path: Any) -> None:
    events = [make_event(), make_event("suspended"), make_event("resumed")]
    async with run_controller(tmp_path) as session:
        answer = await post_events(session, *events)
        assert answer == {"durable": [event["id"] for event in events]}
        out = await call(session, "GET", "/v1/events")
        assert out == {"events": events, "cursor": 3}
        assert (await call(session, "GET", "/v1/events?after=2"))["events"] == events[2:]
        assert (await call(session, "GET", "/v1/events?last=2"))["events"] == events[1:]


@pytest.mark.parametrize(
    ("content_type", "batch"), [(JSON, True), (JSON, False), (SINGLE, False), (BATCH, True)]
)
async def test_every_content_type_is_taken(tmp_path: Any, content_type: str, batch: bool) -> None:
    event = make_event()
    body = json.dumps([event] if batch else event)
    async with run_controller(tmp_path) as session:
        headers = {"Content-Type": f"{content_type}; charset=utf-8"}
        answer = await call(session, "POST", "/v1/events", data=body, headers=headers)
        assert answer["durable"] == [event["id"]]


async def test_a_duplicate_is_durable_and_stored_once(tmp_path: Any) -> None:
    first, second = make_event(), make_event("suspended")
    async with run_controller(tmp_path) as session:
        await post_events(session, first, first)
        answer = await post_events(session, first, second)
        assert answer["durable"] == [first["id"], second["id"]]
        assert (await call(session, "GET", "/v1/events"))["events"] == [first, second]


async def test_a_bad_event_refuses_the_whole_batch(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        events = [make_event(), make_event(epoch="x")]
        async with session.post("/v1/events", json=events) as response:
            problem = await response.json()
            assert response.status == 400
            assert response.content_type == "application/problem+json"
        assert (problem["index"], problem["field"]) == (1, "epoch")
        assert (await call(session, "GET", "/v1/events"))["events"] == []
        assert (await call(session, "GET", "/v1/instances"))["instances"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "a\nb"),
        ("id", 7),
        ("source", "/elsewhere/alpha"),
        ("source", "/hosts/"),
        ("source", "/hosts/../x"),
        ("type", "vnet.instance.exploded"),
        ("time", "yesterday"),
        ("time", "2026-03-01T00:00:00"),
        ("time", "0001-01-01T00:00:00+14:00"),
        ("time", "9999-12-31T23:59:59-14:00"),
        ("sequence", ""),
        ("sequence", "1;2"),
        ("epoch", -1),
        ("epoch", 2**63),
        ("subject", "\0"),
        ("subject", "x" * 257),
        ("specversion", "0.3"),
        ("datacontenttype", "text/xml"),
        ("cause", "gremlins"),
        ("data", []),
        ("inferred", "yes"),
    ],
)
def test_a_bad_field_is_named(field: str, value: Any) -> None:
    body = json.dumps([make_event(), make_event() | {field: value}]).encode()
    with pytest.raises(Problem) as caught:
        decode_events(body, JSON, LIMITS)
    assert caught.value.fields == {"index": 1, "field": field}


def test_a_missing_field_is_named() -> None:
    event = make_event()
    del event["sequence"]
    with pytest.raises(Problem) as caught:
        decode_events(json.dumps(event).encode(), JSON, LIMITS)
    assert caught.value.fields == {"index": 0, "field": "sequence"}


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (json.dumps([make_event()] * 11), JSON, 413),
        (json.dumps(make_event(data={"name": "x" * 5000})), JSON, 400),
        (json.dumps(make_event()), BATCH, 400),
        (json.dumps([make_event()]), SINGLE, 400),
        (json.dumps(make_event()), "text/plain", 415),
        ("[" * 100000, JSON, 400),
        ("", JSON, 400),
        ("null", JSON, 400),
        ('[{"id": NaN}]', JSON, 400),
    ],
)
def test_limits_and_forms(body: str, content_type: str, status: int) -> None:
    with pytest.raises(Problem) as caught:
        decode_events(body.encode(), content_type, LIMITS)
    assert caught.value.status == status


async def test_a_body_beyond_the_limit_is_refused(tmp_path: Any) -> None:
    async with run_controller(tmp_path, limits__body_size=2000) as session:
        problem = await call(session, "POST", "/v1/events", 413, json=[make_event()] * 20)
        assert problem["status"] == 413


async def test_filters(tmp_path: Any) -> None:
    mine = make_event(host="alpha")
    other = make_event("stopped", host="beta", subject="other")
    async with run_controller(tmp_path) as session:
        await post_events(session, mine, other, make_event("crashed", host="gamma", subject="x"))
        for query in (
            "type=vnet.instance.started",
            f"subject={VM}",
            "source=/hosts/alpha",
            f"last=10&subject={VM}",
        ):
            assert (await call(session, "GET", f"/v1/events?{query}"))["events"] == [mine]
        two = "type=vnet.instance.started,vnet.instance.stopped"
        assert (await call(session, "GET", f"/v1/events?{two}"))["events"] == [mine, other]
        for query in ("type=vnet.wrong", "kind=x", "after=-1", "limit=0", "after=1e3", "last=x"):
            await call(session, "GET", f"/v1/events?{query}", 400)


async def test_the_cursor_of_a_filtered_page_skips_nothing(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        wanted = [make_event(subject="a") for _ in range(5)]
        mixed = [event for one in wanted for event in (one, make_event(subject="b"))]
        await post_events(session, *mixed)
        seen, cursor = [], 0
        while True:
            page = await call(session, "GET", f"/v1/events?subject=a&limit=2&after={cursor}")
            if not page["events"]:
                break
            seen, cursor = seen + page["events"], page["cursor"]
        assert seen == wanted
        assert page["cursor"] == len(mixed)


async def test_a_cursor_of_another_database_begins_anew(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event())
        page = await call(session, "GET", "/v1/events?after=1000")
        assert (len(page["events"]), page["cursor"]) == (1, 1)


async def test_the_sdk_reads_our_events(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        sent = make_event("migration.completed", data={"name": "<b>", "n": 2**60})
        await post_events(session, sent)
        out = (await call(session, "GET", "/v1/events"))["events"][0]
    parsed = from_json(json.dumps(out))
    attributes = parsed.get_attributes()
    assert {name: attributes[name] for name in ("id", "source", "type", "subject")} == {
        name: sent[name] for name in ("id", "source", "type", "subject")
    }
    assert attributes["specversion"] == "1.0"
    assert (attributes["epoch"], attributes["sequence"]) == (1, sent["sequence"])
    assert parsed.get_data() == sent["data"]
    # Names of extensions are lower-case letters and digits, or brokers refuse them.
    assert all(re.fullmatch("[a-z0-9]+", name) for name in out)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_problem(body: bytes) -> None:
    try:
        decoded = decode_events(body, JSON, LIMITS)
    except Problem:
        return
    assert decoded == []  # of an empty list


@given(st.sampled_from(list(make_event())), _json)
def test_an_event_with_anything_in_a_field_is_taken_or_refused(field: str, value: Any) -> None:
    body = msgspec.json.encode([make_event() | {field: _without_surrogates(value)}])
    try:
        [incoming] = decode_events(body, JSON, LIMITS)
    except Problem:
        return
    assert msgspec.json.decode(incoming.body, type=Event) == incoming.event


def _without_surrogates(value: Any) -> Any:
    return json.loads(json.dumps(value).encode().decode("utf-8", "replace"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T02:00:00.000007+02:00", 7),
        ("1970-01-01t00:00:00.000001999z", 1),
        ("1969-12-31T23:59:59Z", None),
        ("2026-02-30T00:00:00Z", None),
        ("2026-01-01 00:00:00Z", None),
        ("\u0662026-01-01T00:00:00Z", None),
    ],
)
def test_times(text: str, expected: int | None) -> None:
    assert parse_time(text) == expected
