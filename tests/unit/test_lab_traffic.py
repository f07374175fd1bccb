"""The traffic tool's counters: each must be able to say that something is wrong."""

import os
import pathlib
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from devstack.lab.control import Control
from devstack.lab.errors import LabError
from devstack.lab.image import build_traffic
from devstack.lab.waiting import wait_until

Start = Callable[..., tuple[Control, "subprocess.Popen[bytes]"]]


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build_traffic(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def start(tool: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Start]:
    running = []

    def start(*arguments: str) -> tuple[Control, "subprocess.Popen[bytes]"]:
        path = tmp_path / f"control{len(running)}"
        process = subprocess.Popen([tool, "--stall-ms", "200", *arguments, "--control", path])
        running.append(process)
        control = Control(path.name, lambda: path)
        control.ask("hello")
        return control, process

    yield start
    for process in running:
        process.kill()
        process.wait()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET6, kind) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


def wait_for(control: Control, group: str, **wanted: int) -> dict[str, int]:
    def reached() -> dict[str, int] | None:
        counters = control.group(group)
        return counters if wanted.items() <= counters.items() else None

    return wait_until(reached, f"{group} never had {wanted}: {control.group(group)}")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_ends_count_the_same(start: Start, host: str) -> None:
    port = free_port()
    server, _ = start("--listen", str(port))
    client, _ = start()
    client.dial("x", host, 20, port=port, interval_ms=50)
    wait_for(client, "x", open=20)
    wait_until(lambda: client.group("x")["received"] > 100, "no messages")
    assert server.group("listen")["accepted"] == 20
    assert len(client.connections("x")) == 20
    for counters in (client.group("x"), server.group("listen")):
        wrong = ("failed", "reset", "timed_out", "closed", "out_of_order", "corrupt")
        assert [counters[name] for name in wrong] == [0] * len(wrong)

    client.close("x")
    counters = wait_for(server, "listen", open=0, closed=20)
    assert counters["received"] == counters["sent"]
    with pytest.raises(LabError, match="no group x"):
        client.group("x")


def test_asking_again_dials_once(start: Start) -> None:
    port = free_port()
    server, _ = start("--listen", str(port))
    client, _ = start()
    for _ in range(3):
        client.dial("x", "::1", 2, port=port)
    wait_for(client, "x", open=2)
    assert server.group("listen")["accepted"] == 2


def test_refusal_is_a_failure(start: Start) -> None:
    client, _ = start()
    client.dial("x", "127.0.0.1", 3, port=free_port())
    counters = wait_for(client, "x", failed=3, open=0)
    assert counters["last_error"] == "ECONNREFUSED"


def test_dead_server_is_noticed(start: Start) -> None:
    port = free_port()
    _, server = start("--listen", str(port))
    client, _ = start()
    client.dial("x", "::1", 3, port=port, interval_ms=50)
    wait_for(client, "x", open=3)
    server.kill()
    counters = wait_until(
        lambda: (c := client.group("x"))["open"] == 0 and c, "the connections stay open"
    )
    assert counters["reset"] + counters["closed"] == 3


def test_silence_is_a_stall(start: Start) -> None:
    port = free_port()
    server, process = start("--listen", str(port))
    client, _ = start()
    client.dial("x", "::1", 3, port=port, interval_ms=50)
    wait_for(client, "x", open=3)
    wait_until(lambda: client.group("x")["received"] >= 3, "no messages")

    os.kill(process.pid, signal.SIGSTOP)
    wait_for(client, "x", stalled=3, open=3)
    os.kill(process.pid, signal.SIGCONT)
    counters = wait_for(client, "x", stalled=0, stalls=3)
    assert counters["longest_gap_ms"] >= 200
    assert counters["out_of_order"] == 0
    assert server.group("listen")["out_of_order"] == 0

    client.reset_counters()
    assert client.group("x")["stalls"] == 0


def echo_badly(listener: socket.socket, change: Callable[[int, bytes], bytes]) -> None:
    connection, _ = listener.accept()
    with connection:
        for i in range(1000):
            if not (message := connection.recv(16)):
                return
            connection.sendall(change(i, message))


@pytest.mark.parametrize(
    ("change", "counter"),
    [
        (lambda i, m: m if i != 3 else m[:15] + b"\xff", "out_of_order"),
        (lambda i, m: m if i != 3 else m + m, "out_of_order"),
        (lambda i, m: m if i != 3 else b"nonsense" + m[8:], "corrupt"),
    ],
    ids=["changed number", "doubled", "not a message"],
)
def test_wrong_echo_is_counted(
    start: Start, change: Callable[[int, bytes], bytes], counter: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo_badly, args=(listener, change))
        thread.start()
        client, process = start()
        client.dial("x", "127.0.0.1", 1, port=listener.getsockname()[1], interval_ms=50)
        wait_until(lambda: client.group("x")[counter] > 0, f"{counter} stays 0")
        process.kill()
        thread.join()


def datagram(stream: int, number: int) -> bytes:
    return b"VNLU" + stream.to_bytes(4, "big") + number.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("numbers", "received", "lost", "late", "doubled"),
    [
        ([5, 6, 7, 8], 4, 0, 0, 0),
        ([0, 1, 4, 5], 4, 2, 0, 0),
        ([0, 2, 1, 3], 4, 0, 1, 0),
        ([0, 1, 1, 2, 2], 3, 0, 0, 2),
        ([0, 9000, 9001], 3, 8999, 0, 0),
    ],
    ids=["all", "lost", "late", "doubled", "far ahead"],
)
def test_datagrams_are_accounted_for(
    start: Start, numbers: list[int], received: int, lost: int, late: int, doubled: int
) -> None:
    port = free_port(socket.SOCK_DGRAM)
    server, _ = start("--udp-listen", str(port))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        for number in numbers:
            sender.sendto(datagram(7, number), ("::1", port))
    wait_until(lambda: server.stats()["udp"]["streams"], "nothing came")
    (stream,) = server.stats()["udp"]["streams"]
    found = [stream[name] for name in ("received", "lost", "late", "doubled")]
    assert found == [received, lost, late, doubled]


def test_sender_and_receiver_of_datagrams_agree(start: Start) -> None:
    port = free_port(socket.SOCK_DGRAM)
    server, _ = start("--udp-listen", str(port))
    client, _ = start()
    client.send_udp("u", "127.0.0.1", 1000, port=port)
    wait_until(
        lambda: (s := server.stats()["udp"]["streams"]) and s[0]["received"] > 100, "no datagrams"
    )
    assert server.stats()["udp"]["streams"][0]["lost"] == 0
    client.close_udp("u")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("dial x nowhere 5000 1", "numeric address"),
        ("dial x ::1 0 1", "1 to 65535"),
        ("dial x ::1 5000 0", "1 to 20000"),
        ("dial x ::1 5000 1 1", "50 to 60000"),
        (f"dial {'x' * 32} ::1 5000 1", "at most 31"),
        ("close x", "no such dialled group"),
        ("connections x", "no such group"),
        ("udp-send u ::1 5000 0", "1 to 100000"),
        ("reboot", "only a guest"),
        ("dance", "no such command"),
    ],
)
def test_bad_commands_are_refused(start: Start, command: str, problem: str) -> None:
    client, _ = start()
    with pytest.raises(LabError, match=problem):
        client.ask(command)


def test_a_line_that_is_not_whole_is_ignored(start: Start) -> None:
    client, _ = start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(client.socket))
        connection.sendall(b"\n1 sta1 stats 2\n3 hello\n4\n\n5 hello 5\n")
        connection.settimeout(5)
        assert connection.recv(1000) == b'5 {"ok":true}\n'
