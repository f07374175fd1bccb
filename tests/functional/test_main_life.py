"""A VM's life on a host with an agent: its tags, and the events that reach the controller."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from migrations import qemu_pid

from devstack.cloud import Cloud, wait_for
from devstack.lab import Guest, Host, Lab, Nic
from devstack.lab.cache import LOGS


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Lab(wait=60, logs=LOGS) as lab:
        cloud = Cloud(lab)
        cloud.start()
        yield cloud


@pytest.fixture
def guest(cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[Guest]:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40]
    guest = cloud.lab.guest(name, cloud.lab.hosts[0], ("10.0.0.5/24", "fd00::5/64"))
    cloud.boot(guest)
    cloud.wait_event("vnet.instance.started", guest.uuid)
    yield guest
    guest.destroy()


def life(cloud: Cloud, guest: Guest) -> list[tuple[str, str, bool]]:
    """The instance's stored events: type, cause, inferred."""
    return [
        (event["type"].removeprefix("vnet.instance."), event["cause"], event["inferred"])
        for event in cloud.api.events(guest.uuid)
        if event["type"].startswith("vnet.instance.")
    ]


def settle(cloud: Cloud, host: Host) -> None:
    """Returns when whatever libvirt said on a host so far has reached the controller.

    A marker: a group of no consequence is not seen by libvirt, so the events of a suspend and a
    resume of nothing cannot serve; the agent's own count of undelivered events does.
    """
    wait_for(
        lambda: cloud.vnetctl(host, "status")["events_pending"] == 0,
        f"events of {host.name} wait in its journal",
    )


def test_guest_reboot(cloud: Cloud, guest: Guest) -> None:
    guest.reboot()
    cloud.wait_event("vnet.instance.rebooted", guest.uuid)
    guest.reboot()
    cloud.wait_event("vnet.instance.rebooted", guest.uuid, after=1)
    settle(cloud, guest.host)
    assert [kind for kind, _, _ in life(cloud, guest)] == ["started", "rebooted", "rebooted"]


def test_guest_shutdown(cloud: Cloud, guest: Guest) -> None:
    guest.power_off()
    stopped = cloud.wait_event("vnet.instance.stopped", guest.uuid)
    assert (stopped["cause"], stopped["inferred"]) == ("guest", False)


def test_operator_destroys(cloud: Cloud, guest: Guest) -> None:
    guest.domain.destroy()
    stopped = cloud.wait_event("vnet.instance.stopped", guest.uuid)
    assert (stopped["cause"], stopped["inferred"]) == ("operator", False)


def test_qemu_killed(cloud: Cloud, guest: Guest) -> None:
    os.kill(qemu_pid(guest.host, guest), signal.SIGKILL)
    crashed = cloud.wait_event("vnet.instance.crashed", guest.uuid)
    assert (crashed["cause"], crashed["inferred"]) == ("host", False)
    settle(cloud, guest.host)
    assert [kind for kind, _, _ in life(cloud, guest)] == ["started", "crashed"]


def test_guest_panics(cloud: Cloud, guest: Guest) -> None:
    guest.panic()
    crashed = cloud.wait_event("vnet.instance.crashed", guest.uuid)
    assert (crashed["cause"], crashed["inferred"]) == ("guest", False)
    wait_for(lambda: not guest.active, "the guest still runs")
    settle(cloud, guest.host)
    assert [kind for kind, _, _ in life(cloud, guest)] == ["started", "crashed"]


def test_suspend_and_resume(cloud: Cloud, guest: Guest) -> None:
    guest.domain.suspend()
    cloud.wait_event("vnet.instance.suspended", guest.uuid)
    guest.domain.resume()
    cloud.wait_event("vnet.instance.resumed", guest.uuid)
    assert [kind for kind, _, _ in life(cloud, guest)] == ["started", "suspended", "resumed"]


def test_libvirtd_away(cloud: Cloud, guest: Guest) -> None:
    """No false stop from its restarts, and what it could not say is inferred afterwards."""
    guest.host.restart_libvirtd()
    guest.host.kill_libvirtd()
    guest.host.start_libvirtd()
    wait_for(
        lambda: cloud.vnetctl(guest.host, "status")["libvirt_connected"],
        "the agent did not come back to libvirtd",
    )
    guest.reboot()  # an event that comes after whatever the reconnect made of the gap
    cloud.wait_event("vnet.instance.rebooted", guest.uuid)
    assert [kind for kind, _, _ in life(cloud, guest)] == ["started", "rebooted"]
    pid = qemu_pid(guest.host, guest)
    guest.host.kill_libvirtd()
    psutil.Process(pid).kill()
    guest.host.start_libvirtd()
    wait_for(
        lambda: [kind for kind, _, _ in life(cloud, guest)][2:],
        "the end of a VM behind libvirtd's back was never noticed",
    )
    kind, _, inferred = life(cloud, guest)[2]
    assert kind in ("stopped", "crashed")
    assert inferred


def test_agent_killed_and_controller_away(cloud: Cloud, guest: Guest) -> None:
    """Events of that time arrive once, later, and in order."""
    host = guest.host
    assert cloud.controller is not None
    cloud.controller.kill()
    guest.domain.suspend()
    wait_for(
        lambda: any(
            event["type"] == "vnet.instance.suspended" and event["subject"] == guest.uuid
            for event in cloud.vnetctl(host, "event", "list", "--limit", "1000")
        ),
        "the agent has not seen the suspend",
    )
    cloud.agents[host.name].kill()
    guest.domain.resume()
    cloud.start_agent(host)
    cloud.start_controller()
    resumed = cloud.wait_event("vnet.instance.resumed", guest.uuid)
    assert resumed["inferred"]
    assert life(cloud, guest)[1:] == [
        ("suspended", "operator", False),
        ("resumed", "unknown", True),
    ]


def test_agent_killed_under_traffic(cloud: Cloud, guest: Guest) -> None:
    """Not one datagram is lost, and policy goes on to admit and to refuse new connections."""
    rules = [
        {"direction": "ingress", "protocol": "udp", "ports": 5001},
        {"direction": "ingress", "protocol": "tcp", "ports": 5000},
    ]
    cloud.put_group("door", rules, applies_to=[f"instance:{guest.uuid}"])
    peer = cloud.lab.peer("peer", ("10.0.0.100/24", "fd00::100/64"))
    try:
        guest.control.listen("shut", 5002)
        peer.control.send_udp("stream", guest.address, 500)

        def received() -> int:
            return sum(s["received"] for s in guest.control.stats()["udp"]["streams"])

        wait_for(lambda: received() > 100, "no datagrams arrive")
        cloud.agents[guest.host.name].kill()
        peer.control.dial("welcome", guest.address, 10)
        peer.control.dial("refused", guest.address, 1, port=5002)
        wait_for(
            lambda: peer.control.group("welcome")["received"] > 20,
            "new connections did not come up without the agent",
        )
        at_restart = received()
        cloud.start_agent(guest.host)
        cloud.wait_tagged(guest)
        wait_for(lambda: received() > at_restart + 500, "datagrams stopped after the restart")
        assert peer.control.group("refused")["open"] == 0
        peer.control.close_udp("stream")
        (stream,) = guest.control.stats()["udp"]["streams"]
        assert (stream["lost"], stream["late"], stream["doubled"]) == (0, 0, 0)
    finally:
        peer.stop()
        cloud.api.delete("/v1/groups/door")


def alias_of(cloud: Cloud, guest: Guest, tap: str) -> str:
    return cloud.aliases(guest.host).get(tap, "")


def wait_alias(cloud: Cloud, guest: Guest, tap: str, nic: Nic) -> None:
    wanted = f"vnet instance={guest.uuid} port={nic.uuid}"
    wait_for(lambda: alias_of(cloud, guest, tap) == wanted, f"{tap} has not the alias {wanted}")


def test_tag_comes_back(cloud: Cloud, guest: Guest) -> None:
    """After somebody removed it, after the tap was re-created, and under another name."""
    (nic,) = guest.spec.nics
    namespace = guest.host.namespace
    wait_alias(cloud, guest, nic.tap, nic)
    namespace.ip(f'link set dev {nic.tap} alias ""')
    wait_alias(cloud, guest, nic.tap, nic)

    guest.domain.destroy()
    guest.host.delete_tap(nic.tap)
    guest.plug(guest.host)
    guest.domain.create()
    guest.wait_ready()
    wait_alias(cloud, guest, nic.tap, nic)

    namespace.ip(f"link set dev {nic.tap} down")
    namespace.ip(f"link set dev {nic.tap} name renamed0", "link set dev renamed0 up")
    namespace.ip('link set dev renamed0 alias ""')
    wait_alias(cloud, guest, "renamed0", nic)
    namespace.ip("link set dev renamed0 down")
    namespace.ip(f"link set dev renamed0 name {nic.tap}", f"link set dev {nic.tap} up")


def test_hotplug(cloud: Cloud, guest: Guest) -> None:
    nic = Nic(addresses=("10.0.0.8/24", "fd00::8/64"))
    guest.attach(nic)

    def found() -> list[dict[str, Any]]:
        return [port for port in cloud.ports(guest.host) if port["mac"] == nic.mac]

    port = wait_for(found, "the plugged port is not listed")[0]
    wait_for(
        lambda: alias_of(cloud, guest, nic.tap).startswith(f"vnet instance={guest.uuid} port="),
        "the plugged port's tap is not tagged",
    )
    guest.detach(nic)
    wait_for(lambda: not found(), f"port {port['port']} is still listed after its unplug")
    wait_for(lambda: not alias_of(cloud, guest, nic.tap), "its tap still has the tag")
    guest.host.delete_tap(nic.tap)


def test_port_list_tells_all(cloud: Cloud, guest: Guest) -> None:
    (nic,) = guest.spec.nics
    (port,) = (port for port in cloud.ports(guest.host) if port["instance"] == guest.uuid)
    assert port["vm"] == guest.name
    assert port["port"] == nic.uuid
    assert (port["tap"], port["mac"], port["role"]) == (nic.tap, nic.mac, "active")
    assert set(port["addresses"]) == {"10.0.0.5", "fd00::5"}
    assert port["tag"] is True
