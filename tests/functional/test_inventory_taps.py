"""The inventory on real taps, in a network namespace of its own."""

import ctypes
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from inventory_fakes import INSTANCE, PORT, TAP, World, make_domain, make_port, running, until

from vnet_agent.inventory.taps import NetlinkLinks

ALIAS = f"vnet instance={INSTANCE} port={PORT}"
#: What a tap is lengthened to unless the configuration says otherwise.
QUEUE = 10000
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.fixture
def namespace() -> Iterator[None]:
    """This thread in a new network namespace, which goes when the test leaves it."""
    original = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    check(LIBC.unshare(CLONE_NEWNET))
    try:
        yield
    finally:
        check(LIBC.setns(original, CLONE_NEWNET))
        os.close(original)


@pytest.fixture
async def world(namespace: None) -> AsyncIterator[World]:
    world = World(linger=0.0, uplinks=["up0"])
    world.links = NetlinkLinks()  # type: ignore[assignment]
    world.inventory = world.make()
    async with running(world):
        yield world


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def add_tap(name: str = TAP) -> None:
    ip("tuntap", "add", name, "mode", "tap")
    ip("link", "set", name, "up")


def alias(name: str = TAP) -> str:
    shown = ip("-o", "link", "show", name)
    return shown.rsplit("alias ", 1)[1].strip() if "alias " in shown else ""


async def start_vm(world: World) -> None:
    world.domains.now = [make_domain(make_port())]
    await world.inventory.reconcile()


async def test_a_tap_there_before_and_one_that_comes_later(world: World) -> None:
    add_tap()
    await start_vm(world)
    assert alias() == ALIAS
    ip("link", "del", TAP)
    await until(lambda: not world.inventory.get(PORT).tagged)
    add_tap()
    await until(lambda: world.inventory.get(PORT).tagged)
    assert alias() == ALIAS
    assert ("remove_port", PORT) not in world.driver.calls


async def test_a_removed_alias_comes_back(world: World) -> None:
    add_tap()
    await start_vm(world)
    ip("link", "set", TAP, "alias", "something else")
    await until(lambda: alias() == ALIAS)
    ip("link", "set", TAP, "alias", "")
    await until(lambda: alias() == ALIAS)


async def test_of_a_tap_that_is_down_by_the_comparison(world: World) -> None:
    add_tap()
    await start_vm(world)
    ip("link", "set", TAP, "down")
    ip("link", "set", TAP, "alias", "")
    await world.inventory.reconcile()
    assert alias() == ALIAS


async def test_a_renamed_tap_keeps_its_tag(world: World) -> None:
    add_tap()
    await start_vm(world)
    ifindex = world.inventory.get(PORT).ifindex
    ip("link", "set", TAP, "down")
    ip("link", "set", TAP, "name", "renamed0")
    ip("link", "set", "renamed0", "up")
    ip("link", "set", "renamed0", "alias", "")
    await until(lambda: alias("renamed0") == ALIAS)
    assert world.inventory.get(PORT).ifindex == ifindex


def open_tap(name: str = TAP) -> int:
    """As QEMU does: what is written to it is what the VM sends."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    flags = 0x1002  # IFF_TAP, IFF_NO_PI
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), flags))  # TUNSETIFF
    return descriptor


@pytest.mark.parametrize(
    ("is_read", "has_sent", "length"),
    [(False, False, QUEUE), (True, False, QUEUE), (True, True, 1000), (False, True, QUEUE)],
)
async def test_the_queue_is_lengthened_unless_a_vm_uses_it(
    world: World, is_read: bool, has_sent: bool, length: int
) -> None:
    add_tap()
    descriptor = open_tap()
    try:
        if has_sent:
            os.write(descriptor, bytes(64))
        if not is_read:
            os.close(descriptor)
        await start_vm(world)
        assert world.inventory.get(PORT).tagged
        assert f"qlen {length}" in ip("-o", "link", "show", TAP)
    finally:
        if is_read:
            os.close(descriptor)


async def test_a_tap_in_and_out_of_a_bridge_stays(world: World) -> None:
    """A bridge says of a port that leaves it that the link was deleted."""
    add_tap()
    await start_vm(world)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", TAP, "master", "br0")
    ip("link", "set", TAP, "nomaster")
    add_tap("marker")
    await until(lambda: world.inventory._links.by_name("marker"))
    assert world.inventory.get(PORT).tagged
    assert ("detach", PORT) not in world.driver.calls


async def test_the_tag_goes_with_the_port(world: World) -> None:
    add_tap()
    await start_vm(world)
    world.domains.now = []
    await world.inventory.reconcile()
    assert alias() == ""
    assert not world.held()


async def test_an_uplink_that_comes_late(world: World) -> None:
    add_tap("up0")
    await until(lambda: world.driver.uplinks)


async def test_lost_news_are_made_up_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """More news at once than the kernel keeps for a listener that does not read."""
    news = world.inventory._links._news
    news.socket.setsockopt(1, 8, 2048)  # SOL_SOCKET, SO_RCVBUF
    names = [f"br{number}" for number in range(100)]
    for name in names:
        ip("link", "add", name, "type", "bridge")
    # Before anything else asks for all interfaces.
    await until(lambda: all(map(world.inventory._links.by_name, names)))
    assert "News of interfaces were lost" in caplog.text
    add_tap()
    await start_vm(world)
    assert alias() == ALIAS
    ip("link", "set", TAP, "alias", "")
    await until(lambda: alias() == ALIAS)
