"""The real program: what it acknowledged survives its death, and nothing makes it fail."""

import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from controller_support import ControllerProcess, make_event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vnet_controller.intake import BATCH, JSON, SINGLE


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[ControllerProcess]:
    process = ControllerProcess(tmp_path)
    try:
        yield process
    finally:
        process.clean_up()


def test_an_acknowledged_event_survives_sigkill(controller: ControllerProcess) -> None:
    acknowledged = []
    for kind in ("started", "crashed", "suspended"):
        controller.start()
        event = make_event(kind)
        assert controller.call("POST", "/v1/events", [event])["durable"] == [event["id"]]
        assert controller.stop(signal.SIGKILL) == -signal.SIGKILL
        acknowledged.append(event)
    controller.start()
    assert controller.call("GET", "/v1/events") == {"events": acknowledged, "cursor": 3}
    [instance] = controller.call("GET", "/v1/instances")["instances"]
    assert instance["state"] == "suspended"


def test_sigterm_ends_it_cleanly_with_a_stream_open(controller: ControllerProcess) -> None:
    controller.start()
    stream = http.client.HTTPConnection("127.0.0.1", controller.port, timeout=20)
    stream.request("GET", "/v1/events/stream")
    answer = stream.getresponse()
    assert answer.readline() == b"retry: 1000\n"
    assert controller.stop() == 0
    assert answer.read().strip() == b""
    stream.close()
    log = (controller.directory / "log").read_text()
    assert "Traceback" not in log
    assert "never retrieved" not in log


def test_systemd_hears_when_it_is_ready(controller: ControllerProcess, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(20)
        controller.start(NOTIFY_SOCKET=address)
        assert listener.recv(100) == b"READY=1"
        controller.stop()
        assert listener.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize(
    ("section", "line", "message", "status"),
    [
        ("DEFAULT", "listen_port = 99999", "listen_port", 78),
        ("DEFAULT", "listen_address = 0.0.0.0", "not on loopback", 78),
        ("database", "connection = sqlite+aiosqlite:////nowhere/x.db", "unable to open", 71),
    ],
)
def test_a_start_that_cannot_be_says_why_in_one_line(
    controller: ControllerProcess, section: str, line: str, message: str, status: int
) -> None:
    with pytest.raises(AssertionError) as caught:
        controller.start(section=section, line=line)
    log = (controller.directory / "log").read_text()
    assert message in log
    assert "Traceback" not in log
    assert controller.process is not None
    assert controller.process.wait(20) == status
    assert caught.value.args


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControllerProcess]:
    process = ControllerProcess(tmp_path_factory.mktemp("fuzz"))
    try:
        process.start()
        yield process
        assert process.stop() == 0
        assert "Traceback" not in (process.directory / "log").read_text()
    finally:
        process.clean_up()


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def _event(draw: st.DrawFn) -> dict[str, Any]:
    """An event with up to three fields replaced by anything."""
    event = make_event(draw(st.sampled_from(["started", "migration.completed", "stopped"])))
    for field in draw(st.lists(st.sampled_from(sorted(event)), max_size=3)):
        event[field] = draw(_json)
    return event


_bodies = (
    st.binary(max_size=300)
    | _json.map(lambda value: json.dumps(value).encode())
    | st.lists(_event(), max_size=4).map(lambda events: json.dumps(events).encode())
    | _event().map(lambda event: json.dumps(event).encode())
)


@given(body=_bodies, content_type=st.sampled_from([JSON, SINGLE, BATCH, "text/plain", ""]))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_body_makes_it_fail(fuzzed: ControllerProcess, body: bytes, content_type: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", fuzzed.port, timeout=20)
    try:
        connection.request("POST", "/v1/events", body, {"Content-Type": content_type})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status in (200, 400, 413, 415), text
        decoded = json.loads(text)
        if answer.status == 200:
            assert decoded.keys() == {"durable"}
        else:
            assert re.match("application/problem.json", answer.headers["Content-Type"])
    finally:
        connection.close()


def test_everything_is_still_readable_after_the_fuzzing(fuzzed: ControllerProcess) -> None:
    for path in ("events", "instances", "migrations", "hosts", "ports", "groups"):
        assert path in fuzzed.call("GET", f"/v1/{path}?{'limit=1000' if path[0] in 'eim' else ''}")
