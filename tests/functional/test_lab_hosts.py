"""What a host is: files, names and networks of its own, and no way out of the lab."""

import pathlib
import signal
import subprocess
import urllib.request
from collections.abc import Callable

import psutil
import pytest

from devstack.lab import CONTROLLER_ADDRESS, Guest, Host, Lab, LabError, Peer, wait_until
from devstack.lab.host import PRIVATE


def links(*entry: str) -> set[str]:
    command = [*entry, "ip", "-o", "link"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split(": ")[1].partition("@")[0] for line in lines.splitlines()}


def test_each_host_has_directories_of_its_own(host_a: Host, host_b: Host) -> None:
    for directory in (*PRIVATE, "/sys/fs/bpf"):
        assert host_a.run(["mkdir", f"{directory}/of-a"]).returncode == 0
        assert host_a.run(["test", "-d", f"{directory}/of-a"]).returncode == 0
        assert host_b.run(["test", "-d", f"{directory}/of-a"]).returncode == 1
        assert not pathlib.Path(f"{directory}/of-a").exists()
        assert host_a.run(["rmdir", f"{directory}/of-a"]).returncode == 0
    assert host_a.run(["stat", "-f", "-c", "%T", "/sys/fs/bpf"]).stdout == "bpf_fs\n"


def test_files_in_private_directories_are_seen_from_outside(host_a: Host) -> None:
    host_a.path("/etc/vnet/agent.conf").write_text("[DEFAULT]\n")
    assert host_a.run(["cat", "/etc/vnet/agent.conf"]).stdout == "[DEFAULT]\n"
    host_a.path("/etc/vnet/agent.conf").unlink()
    with pytest.raises(LabError, match="/etc/passwd is in none"):
        host_a.path("/etc/passwd")


def test_hosts_have_names_and_identities(host_a: Host, host_b: Host) -> None:
    assert host_a.run(["hostname"]).stdout == "a\n"
    uuids = {host.connect().getCapabilities().split("<uuid>")[1][:36] for host in (host_a, host_b)}
    assert len(uuids) == 2


def test_hosts_and_controller_meet_on_the_management_network(lab: Lab, host_a: Host) -> None:
    for address in (CONTROLLER_ADDRESS, lab.host("b").address):
        assert host_a.run(["busybox", "ping", "-c1", "-W5", address]).returncode == 0
    assert links(*host_a.entry) == {"lo", "uplink0", "mgmt0"}
    assert links(*lab.controller.entry) == {"lo", "mgmt0"}


def test_nothing_of_it_is_in_the_machines_namespace(lab: Lab) -> None:
    assert links().isdisjoint({"uplink0", "mgmt0", "data", "mgmt", "a-data", "a-mgmt"})
    for namespace in (lab.controller, lab.host("a").namespace):
        routes = namespace.run(["ip", "route", "show", "default"]).stdout
        assert routes == ""


def test_processes_are_logged_and_end_by_pid(host_a: Host) -> None:
    process = host_a.spawn(["sh", "-c", "echo started; sleep 1000"], name="sleeper")
    wait_until(lambda: process.tail() == "started", "it logs nothing")
    assert process.alive
    assert process.stop() == -15

    assert host_a.spawn(["sh", "-c", "exit 7"], name="failing").wait() == 7
    stubborn = host_a.spawn(["sh", "-c", "trap '' TERM; echo ready; sleep 1000"], name="stubborn")
    wait_until(lambda: stubborn.tail() == "ready", "it logs nothing")
    assert stubborn.stop(timeout=0.2) == -9


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGKILL])
def test_a_stopped_process_goes_on_or_is_killed(host_a: Host, number: signal.Signals) -> None:
    """What enters the host for it stops as well."""
    sleeper = host_a.spawn(["sleep", "600"], name="sleeper")
    entry = psutil.Process(sleeper.pid).parent()
    assert entry is not None
    sleeper.signal(signal.SIGSTOP)
    wait_until(lambda: entry.status() == psutil.STATUS_STOPPED, "the entry does not stop")
    sleeper.signal(number)
    wait_until(
        lambda: not sleeper.alive or entry.status() != psutil.STATUS_STOPPED,
        "the entry stays stopped",
    )
    sleeper.kill()
    assert not sleeper.alive


def test_page_of_the_controller_is_reachable_from_the_machine(lab: Lab) -> None:
    page = lab.workdir / "index.html"
    page.write_text("the page")
    server = ["python3", "-m", "http.server", "8080", "--directory", str(lab.workdir)]
    process = lab.controller.spawn(server, name="server")
    port = lab.expose(8080)

    def fetch() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html") as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    assert wait_until(fetch, "no page") == "the page"
    process.kill()


def test_peer_on_a_port_of_a_host_talks_to_a_guest(
    host_a: Host, make_guest: Callable[..., Guest], make_peer: Callable[..., Peer]
) -> None:
    peer = make_peer("porter", "10.0.0.8/24", host=host_a, device="tapporter")
    host_a.bridge_taps("tapporter")
    guest = make_guest("vm", host_a, "10.0.0.5/24")
    guest.wait_ready()
    guest.control.dial("out", peer.address, 3)
    wait_until(lambda: guest.control.group("out")["open"] == 3, "no connection")
    guest.control.send_udp("u", peer.address, 50)
    wait_until(lambda: peer.control.stats()["udp"]["streams"], "no datagram")


def test_tap_is_made_as_asked(host_a: Host) -> None:
    host_a.create_tap("tapx", mac="fe:16:3e:00:00:01", mtu=1400, queues=2, txqueuelen=5000)
    host_a.create_tap("tapx")
    shown = host_a.run(["ip", "-d", "link", "show", "tapx"]).stdout
    for expected in ("mtu 1400", "fe:16:3e:00:00:01", "qlen 5000", "multi_queue", "persist on"):
        assert expected in shown
    host_a.delete_tap("tapx")
    host_a.delete_tap("tapx")
    assert not host_a.has_device("tapx")


def test_refused_commands_say_why(host_a: Host) -> None:
    with pytest.raises(LabError, match="in namespace a: link set nowhere up"):
        host_a.namespace.ip("link set nowhere up")
