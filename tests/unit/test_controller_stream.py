"""The stream of events: no event missed, none twice, wherever a client begins again."""

import asyncio
from typing import Any

import pytest
from controller_support import (
    VM,
    call,
    make_event,
    post_events,
    read_stream,
    run_controller,
    run_server,
    wait_until,
)

from vnet_controller import hub
from vnet_controller.store.journal import Filter, Row


@pytest.mark.parametrize("ring", [1, 7, 4096])
async def test_resume_under_concurrent_posts(
    tmp_path: Any, ring: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "RING", ring)
    monkeypatch.setattr(hub, "STEP", 5)
    monkeypatch.setattr(hub.Hub.__init__, "__kwdefaults__", {"ring": ring})
    batches = [[make_event(host=f"h{n}") for _ in range(3)] for n in range(60)]
    everything = {event["id"] for batch in batches for event in batch}
    async with run_controller(tmp_path) as session:

        async def post(share: list[list[dict[str, Any]]]) -> None:
            for batch in share:
                await post_events(session, *batch)

        posting = [asyncio.create_task(post(batches[start::4])) for start in range(4)]
        seen: list[tuple[int, dict[str, Any]]] = []
        while len(seen) < len(everything):
            headers = {"Last-Event-ID": str(seen[-1][0] if seen else 0)}
            async with session.get("/v1/events/stream", headers=headers) as response:
                assert response.status == 200
                assert response.content_type == "text/event-stream"
                seen += await read_stream(response, min(11, len(everything) - len(seen)))
        await asyncio.gather(*posting)
        assert [position for position, _ in seen] == list(range(1, len(everything) + 1))
        assert {event["id"] for _, event in seen} == everything
        stored = (await call(session, "GET", "/v1/events?limit=1000"))["events"]
        assert [event for _, event in seen] == stored


async def test_without_a_cursor_it_begins_now(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await post_events(session, make_event())
        async with session.get("/v1/events/stream") as response:
            await response.content.readline()
            later = make_event("suspended")
            await post_events(session, later)
            assert await read_stream(response, 1) == [(2, later)]


async def test_filters_apply_to_old_and_new(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        mine = [make_event(), make_event("stopped")]
        await post_events(session, make_event(subject="other"), mine[0])
        path = f"/v1/events/stream?after=0&subject={VM}"
        async with session.get(path) as response:
            assert await read_stream(response, 1) == [(2, mine[0])]
            await post_events(session, make_event(subject="other"), mine[1])
            assert await read_stream(response, 1) == [(4, mine[1])]


async def test_a_quiet_stream_moves_the_cursor(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vnet_controller.api.events.KEEP_ALIVE", 0.05)
    async with (
        run_controller(tmp_path) as session,
        session.get("/v1/events/stream?after=0&subject=nobody") as response,
    ):
        await post_events(session, make_event())

        async def is_told() -> bool:
            return await response.content.readline() == b"id: 1\n"

        await wait_until(is_told)


async def test_a_cursor_of_another_database_begins_anew(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        event = make_event()
        await post_events(session, event)
        headers = {"Last-Event-ID": "999"}
        async with session.get("/v1/events/stream", headers=headers) as response:
            assert await read_stream(response, 1) == [(1, event)]


async def test_streams_are_limited_and_counted(tmp_path: Any) -> None:
    async with run_server(tmp_path, limits__streams=1) as (server, session):
        async with session.get("/v1/events/stream"):
            problem = await call(session, "GET", "/v1/events/stream", 503)
            assert problem["status"] == 503
        await call(session, "GET", "/v1/events/stream?after=x", 400)

        async def is_gone() -> bool:
            # The server learns of the closed connection when it writes to it.
            await post_events(session, make_event())
            return server.services.metrics.open_streams == 0

        await wait_until(is_gone)


async def test_a_stream_ends_when_the_controller_stops(tmp_path: Any) -> None:
    async with (
        run_server(tmp_path) as (server, session),
        session.get("/v1/events/stream") as response,
    ):
        await response.content.readline()
        server.services.hub.head.close()
        assert (await asyncio.wait_for(response.content.read(), 20)).strip() == b""


async def test_a_stream_that_fails_ends_and_can_be_resumed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_controller(tmp_path) as session:
        event = make_event()
        await post_events(session, event)
        with monkeypatch.context() as broken:
            broken.setattr(hub.Hub, "_read_ring", lambda *_: 1 / 0)
            async with session.get("/v1/events/stream?after=0") as response:
                assert await response.content.read() == b"retry: 1000\n\n"
        async with session.get("/v1/events/stream?after=0") as response:
            assert await read_stream(response, 1) == [(1, event)]


def make_row(position: int) -> Row:
    return Row(position, str(position), "t", "s", None, "{}")


async def test_the_ring_drops_what_has_a_hole(tmp_path: Any) -> None:
    async with run_server(tmp_path) as (server, _):
        one = server.services.hub
        one.publish([make_row(1), make_row(2)])
        one.publish([make_row(5)])
        assert one._read_ring(1, Filter()) is None
        page = one._read_ring(4, Filter())
        assert page is not None
        assert [row.position for row in page.rows] == [5]
        # The database may be ahead of what was published.
        assert one._read_ring(9, Filter()) == ((), 9)
