"""What a guest of the lab does to itself, libvirt tells apart; and its libvirtd may die."""

from collections.abc import Callable

import libvirt
import pytest

from devstack.lab import Guest, Host, Nic, Peer, wait_until

MakeGuest = Callable[..., Guest]
MakePeer = Callable[..., Peer]


def shut_off(guest: Guest, reason: int) -> None:
    """Waits until libvirt says that the guest is shut off, and for this reason."""
    wait_until(lambda: not guest.active, f"{guest.name} is still active")
    assert guest.domain.state() == [libvirt.VIR_DOMAIN_SHUTOFF, reason]


def test_reboot_from_inside_keeps_the_vm(host_a: Host, make_guest: MakeGuest) -> None:
    guest = make_guest("rebooting", host_a, "10.0.0.5/24")
    boot, run = guest.wait_ready(), guest.domain.ID()

    assert guest.reboot() != boot
    assert guest.domain.ID() == run


def test_crash_shutdown_and_power_button_are_told_apart(
    host_a: Host, host_b: Host, make_guest: MakeGuest
) -> None:
    crashing = make_guest("crashing", host_a, "10.0.0.5/24")
    leaving = make_guest("leaving", host_b, "10.0.0.6/24")
    asked = make_guest("asked", host_b, "10.0.0.7/24")
    for guest in (crashing, leaving, asked):
        guest.wait_ready()

    crashing.panic()
    leaving.power_off()
    asked.domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    shut_off(crashing, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED)
    shut_off(leaving, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)
    shut_off(asked, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)


def test_crash_may_restart_the_guest(host_a: Host, make_guest: MakeGuest) -> None:
    guest = make_guest("restarting", host_a, "10.0.0.5/24", on_crash="restart")
    boot = guest.wait_ready()

    guest.panic()
    wait_until(lambda: guest.wait_ready() != boot, "the guest did not come back")
    assert guest.active


def test_guest_and_its_traffic_outlive_libvirtd(
    host_a: Host, make_guest: MakeGuest, make_peer: MakePeer
) -> None:
    peer = make_peer("peer", "10.0.0.9/24", "fd00::9/64")
    guest = make_guest("lasting", host_a, "10.0.0.5/24", "fd00::5/64")
    boot = guest.wait_ready()
    peer.control.dial("in", guest.address, 5)
    peer.control.dial("in6", "fd00::5", 5)
    for group in ("in", "in6"):
        wait_until(lambda g=group: peer.control.group(g)["open"] == 5, f"{group} did not open")

    host_a.kill_libvirtd()
    assert not host_a.libvirtd.alive
    host_a.start_libvirtd()
    host_a.restart_libvirtd()

    assert guest.active
    assert guest.control.boot_id() == boot
    for group in ("in", "in6"):
        counters = peer.control.group(group)
        assert (counters["open"], counters["stalled"]) == (5, 0)


def test_port_is_plugged_and_unplugged(host_a: Host, make_guest: MakeGuest) -> None:
    guest = make_guest("plugging", host_a, "10.0.0.5/24")
    guest.wait_ready()
    nic = Nic(addresses=["10.0.0.6/24"])

    guest.attach(nic)
    assert nic.mac in guest.domain.XMLDesc()
    guest.detach(nic)
    wait_until(lambda: nic.mac not in guest.domain.XMLDesc(), "the port is still there")
    host_a.delete_tap(nic.tap)


def test_missing_tap_fails_the_start(host_a: Host, make_guest: MakeGuest) -> None:
    guest = make_guest("tapless", host_a, "10.0.0.5/24")
    guest.domain.destroy()
    guest.unplug(host_a)

    with pytest.raises(libvirt.libvirtError, match="managed='no' but specified dev doesn't exist"):
        guest.domain.create()


def test_hook_gets_each_operation(host_a: Host, make_guest: MakeGuest) -> None:
    calls = host_a.path("/run/vnet/calls")
    host_a.install_hook(["sh", "-c", 'echo "$@" >>/run/vnet/calls', "hook"], name="recorder")
    try:
        guest = make_guest("hooked", host_a, "10.0.0.5/24")
        guest.domain.destroy()
        operations = [line.split()[:2] for line in calls.read_text().splitlines()]
    finally:
        host_a.path("/etc/libvirt/hooks/qemu.d/recorder").unlink()
        host_a.restart_libvirtd()
    expected = ["prepare", "start", "started", "stopped", "release"]
    assert operations == [["hooked", operation] for operation in expected]


def test_host_that_crashes_comes_back_with_its_definitions_only(
    host_a: Host, host_b: Host, make_guest: MakeGuest
) -> None:
    lost = make_guest("lost", host_b, "10.0.0.5/24")
    other = make_guest("other", host_a, "10.0.0.6/24")
    tap = lost.spec.nics[0].tap
    assert host_b.has_device(tap)

    host_b.stop()
    host_b.stop()
    assert not host_b.running
    host_b.start()
    host_b.start()

    assert not host_b.has_device(tap)
    assert not lost.active
    assert other.active
