"""`vnetctl capture` over a datapath without a kernel: how it begins, is refused, and ends."""

import http.client
import json
import socket
import struct
import sys
import threading
import time

import datapath_bench as b
import frames as f
import pytest
from sight_agent import Agent

from vnet_agent.capture import stream
from vnet_agent.cli import pcap
from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import ring
from vnet_agent.exceptions import DatapathError

PACKET = f.ipv4(b.VM4, b.PEER4, f.UDP, f.udp(1, 53))
FRAME = f.ether(b.VM, b.PEER, f.IPV4, PACKET)


@pytest.fixture
def agent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stream, "TICK", 0.05)
    agent = Agent(tmp_path, capsys)
    agent.bench.native.set_clock(0)
    agent.path = tmp_path / "out.pcapng"
    yield agent
    agent.stop()


def captures(agent):
    return agent.bench.native.table_items(c.TABLE_CAPTURES)


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Beside:
    """Does something once a capture runs, while vnetctl has this thread."""

    def __init__(self, agent, action):
        self.agent, self.action = agent, action
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        wait_until(lambda: captures(self.agent))
        self.action()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.thread.join(20)


def send(agent, *frames):
    return lambda: [agent.bench.process(c.FROM_PORT, b.TAP, frame) for frame in frames]


def capture(agent, *words, action=lambda: None):
    with Beside(agent, action):
        return agent.ctl("capture", "-w", str(agent.path), *words)


def comments(data):
    found = []
    while data:
        kind, size = struct.unpack_from("<II", data)
        if kind == 6:
            (captured,) = struct.unpack_from("<I", data, 20)
            options = data[28 + captured + -captured % 4 :]
            (length,) = struct.unpack_from("<H", options, 2)
            found.append(options[4 : 4 + length].decode())
        data = data[size:]
    return found


def test_frames_until_the_count(agent):
    spoofed = f.ether(b.PEER, b.GATEWAY, f.IPV4, PACKET)
    done = capture(agent, "--count", "2", action=send(agent, FRAME, spoofed, FRAME, FRAME))
    assert done == (0, "", "2 frames captured, 0 lost\n")
    data = agent.path.read_bytes()
    assert pcap.read_frame(data, 1, name="x") == FRAME
    tags = f"instance={b.INSTANCE} port={b.PORT} direction=egress"
    assert comments(data) == [
        f"{tags} verdict=pass action=forward",
        f"{tags} verdict=drop action=drop reason=mac-spoof",
    ]
    assert agent.path.stat().st_mode & 0o777 == 0o600
    assert captures(agent) == []


def test_filters_and_the_length_reach_the_datapath(agent):
    other = f.ether(b.VM, b.PEER, f.IPV4, f.ipv4(b.VM4, "10.0.0.3", f.UDP, f.udp(1, 53)))
    words = ("--remote", "10.0.0.3", "--protocol", "udp", "--direction", "egress", "--snap", "20")
    status, _, err = capture(
        agent, "tap1", *words, "--count", "1", action=send(agent, FRAME, other)
    )
    assert (status, err) == (0, "1 frames captured, 0 lost\n")
    assert pcap.read_frame(agent.path.read_bytes(), 1, name="x") == other[:20].ljust(42, b"\0")


def test_time_ends_it(agent):
    assert capture(agent, "--seconds", "1") == (0, "", "0 frames captured, 0 lost\n")
    assert comments(agent.path.read_bytes()) == []


def test_what_is_beyond_the_rate_is_told(agent):
    agent.bench.native.set_clock(agent.bench.now)
    frames = [FRAME] * 10
    status, _, err = capture(agent, "--rate", "4", "--seconds", "1", action=send(agent, *frames))
    assert (status, err) == (0, "2 frames captured, 8 lost (over-rate 8)\n")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["tap77"], "No port tap77"),
        (["--remote", "10.0.0.0/40"], "no address or CIDR"),
        (["--protocol", "xyz"], "'xyz' is no protocol"),
        (["--rate", "5001"], "rate must be a number from 1 to 5000, not '5001'"),
        (["--snap", "70000"], "snap must be a number from 0 to 65535"),
        (["--count", "0"], "count must be a number from 1"),
        (["--seconds", "-1"], "seconds must be a number from 1"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_written(agent, words, what):
    agent.path.write_bytes(b"precious")
    assert what in agent.refused("capture", "-w", str(agent.path), *words)
    assert agent.path.read_bytes() == b"precious"
    assert captures(agent) == []


def test_without_ports_there_is_nothing_to_capture(agent):
    agent.bench.driver.remove_port(b.PORT, generation=1)
    assert "There is no port" in agent.refused("capture", "-w", str(agent.path))


def test_a_second_one_is_refused(agent):
    refused = []

    def second():
        refused.append(request(agent, "GET", "/v1/capture"))
        send(agent, FRAME)()

    assert capture(agent, "--count", "1", action=second)[0] == 0
    ((status, body),) = refused
    assert status == 409
    assert "one at a time" in body["detail"]


def request(agent, method, path):
    connection = http.client.HTTPConnection("agent")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(agent.socket)
    connection.request(method, path)
    answer = connection.getresponse()
    body = json.load(answer)
    connection.close()
    return answer.status, body


def test_a_terminal_is_refused(agent, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "use -w FILE, or pipe it" in agent.refused("capture")


def test_a_file_that_cannot_be_written_ends_it(agent):
    place = agent.path / "nowhere"
    assert f"{place} cannot be written: No such file" in agent.refused("capture", "-w", str(place))
    wait_until(lambda: not captures(agent))


def test_a_reader_that_goes_in_silence_is_noticed(agent):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(agent.socket)
        sock.sendall(b"GET /v1/capture HTTP/1.1\r\nHost: agent\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        wait_until(lambda: captures(agent))
    wait_until(lambda: not captures(agent))


def test_only_the_one_that_runs_can_be_ended(agent):
    assert request(agent, "DELETE", "/v1/capture/x")[0] == 404
    assert request(agent, "GET", "/v1/capture?ports=x")[0] == 400


def test_the_agents_end_is_the_captures(agent):
    def end():
        send(agent, FRAME)()
        wait_until(lambda: agent.path.exists() and comments(agent.path.read_bytes()))
        agent.run(agent.api.close())

    status, _, err = capture(agent, action=end)
    assert status == 1
    assert "is vnet-agent running?" in err
    assert len(comments(agent.path.read_bytes())) == 1
    assert captures(agent) == []


def test_a_datapath_that_fails_breaks_it_off(agent, monkeypatch):
    def fail(_):
        raise DatapathError(operation="capture", detail="no more")

    def end():
        monkeypatch.setattr(ring.RingCapture, "read", fail)

    status, _, err = capture(agent, action=end)
    assert (status, err) == (1, "The agent broke the capture off; its log says why\n")
    assert captures(agent) == []
