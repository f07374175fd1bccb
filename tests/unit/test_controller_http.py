"""What holds for every answer: problems, headers, metrics, and a safe start."""

import asyncio
import gzip
from typing import Any

import pytest
import sqlalchemy as sa
from controller_support import (
    call,
    make_config,
    make_event,
    post_events,
    run_controller,
    run_server,
    wait_until,
)
from oslo_config import cfg
from prometheus_client.parser import text_string_to_metric_families

from vnet_controller import config
from vnet_controller.server import UnsafeListener, check_listener


async def test_errors_are_problems(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        for method, path, status in (
            ("GET", "/nowhere", 404),
            ("GET", "/static/nowhere.js", 404),
            ("GET", "/static/../config.py", 404),
            ("GET", "/static/%2e%2e/config.py", 404),
            ("DELETE", "/v1/events", 405),
            ("POST", "/", 405),
            ("GET", "/v1/instances/unknown", 404),
            ("GET", "/v1/instances/a%00b", 400),
            ("GET", "/v1/events?subject=%00", 400),
        ):
            async with session.request(method, path) as response:
                problem = await response.json()
                assert response.content_type == "application/problem+json", path
                assert (response.status, problem["status"]) == (status, status), path
                assert problem.keys() >= {"type", "title", "status", "detail"}
                assert ("Allow" in response.headers) == (status == 405)


async def test_bodies_must_be_json_and_say_so(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        for headers in ({"Content-Type": "text/plain"}, {"Content-Type": ""}):
            await call(session, "PUT", "/v1/groups/x", 415, data=b"{}", headers=headers)
        headers = {"Content-Type": "application/json"}
        for body in (b"", b"{", b"[]", b"\xff", b"[" * 50000):
            await call(session, "PUT", "/v1/groups/x", 400, data=body, headers=headers)


async def test_encoded_and_broken_bodies_are_refused(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        for body in (gzip.compress(b"[]"), b"none", gzip.compress(b" " * 2**26)):
            await call(session, "POST", "/v1/events", 415, data=body, headers=headers)


async def test_bodies_that_do_not_end_are_no_failure_of_ours(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with run_server(tmp_path) as (server, _):
        count = server.services.metrics.registry.get_sample_value

        async def is_counted(status: str) -> bool:
            return count("vnet_controller_problems_total", {"status": status}) == 1

        _, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(head + b"Content-Length: 500\r\n\r\n[")
        await asyncio.sleep(0.05)
        writer.close()
        await wait_until(lambda: is_counted("400"))
        monkeypatch.setattr("vnet_controller.api.exchange.BODY_TIMEOUT", 0.05)
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(head + b"Content-Length: 500\r\n\r\n[")
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        assert not await is_counted("500")


async def test_a_failure_of_ours_is_a_problem_without_its_inside(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    async with run_controller(tmp_path) as session:
        monkeypatch.setattr("vnet_controller.store.hosts.list_hosts", fail)
        problem = await call(session, "GET", "/v1/hosts", 500)
        assert "secret" not in str(problem)


async def test_a_broken_database_is_503_and_not_ready(tmp_path: Any) -> None:
    async with run_server(tmp_path) as (server, session):

        def break_it(connection: sa.Connection) -> None:
            connection.execute(sa.text("DROP TABLE counters"))

        await call(session, "GET", "/readyz")
        await server.services.writer.run(break_it)
        problem = await call(session, "POST", "/v1/events", 503, json=[make_event()])
        assert "SELECT" not in str(problem)
        await call(session, "GET", "/readyz", 503)
        await call(session, "GET", "/healthz")


async def test_every_answer_tells_browsers_to_be_strict(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        for path in ("/", "/static/style.css", "/v1/hosts", "/nowhere", "/v1/events/stream"):
            async with session.get(path) as response:
                policy = response.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'self';")
                assert "require-trusted-types-for 'script'" in policy
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["X-Frame-Options"] == "DENY"
                assert "aiohttp" not in response.headers["Server"]


async def test_the_page_and_its_files_are_cached_by_content(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        async with session.get("/static/js/main.js") as response:
            assert response.content_type == "text/javascript"
            tag = response.headers["ETag"]
        headers = {"If-None-Match": tag}
        async with session.get("/static/js/main.js", headers=headers) as response:
            assert (response.status, await response.read()) == (304, b"")


async def test_metrics_can_be_scraped(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        event = make_event()
        await post_events(session, event)
        await post_events(session, event, make_event("crashed"))
        await call(session, "GET", "/nowhere", 404)
        async with session.get("/metrics") as response:
            families = list(text_string_to_metric_families(await response.text()))
    assert all(family.name.startswith("vnet_") for family in families)
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert values["vnet_controller_events_total", "vnet.instance.started"] == 1
    assert values[("vnet_controller_events_duplicate_total",)] == 1
    assert values["vnet_controller_instances", "crashed"] == 1
    assert values["vnet_controller_problems_total", "404"] == 1
    assert values[("vnet_controller_event_position",)] == 2


@pytest.mark.parametrize(
    ("options", "is_safe"),
    [
        ({"listen_address": "127.0.0.1"}, True),
        ({"listen_address": "::1"}, True),
        ({"listen_address": "localhost"}, True),
        ({"listen_address": "0.0.0.0"}, False),
        ({"listen_address": "controller.example"}, False),
        ({"listen_address": "0.0.0.0", "insecure": True}, True),
        ({"listen_address": "0.0.0.0", "tls__cert_file": "c"}, False),
        ({"listen_address": "0.0.0.0", "tls__cert_file": "c", "tls__ca_file": "a"}, True),
    ],
)
def test_off_loopback_needs_certificates(tmp_path: Any, options: Any, is_safe: bool) -> None:
    conf = make_config(tmp_path, **options)
    if is_safe:
        check_listener(conf)
    else:
        with pytest.raises(UnsafeListener):
            check_listener(conf)


@pytest.mark.parametrize("line", ["listen_port = 70000", "host_timeout = 0", "insecure = maybe"])
def test_an_option_out_of_bounds_is_refused(tmp_path: Any, line: str) -> None:
    path = tmp_path / "controller.conf"
    path.write_text(f"[DEFAULT]\n{line}\n")
    with pytest.raises(cfg.Error):
        config.load(["--config-file", str(path)])


def test_every_option_has_help_and_bounds() -> None:
    for _, options in config.list_opts():
        for option in options:
            assert option.help.endswith(".")
            if isinstance(option, cfg.IntOpt | cfg.FloatOpt):
                assert option.type.min is not None
                assert option.type.max is not None
