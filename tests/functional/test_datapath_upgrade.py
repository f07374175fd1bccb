"""From the version before to this one, under traffic: nothing is lost, nobody begins anew."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import datapath_keeper
import previous_version
import pytest
from datapath_world import eventually, private
from test_datapath_swap import PORT, World, count_received, traffic

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import Direction, Established, Policy, Rule

#: The VM may open anything, and what is established goes on; nobody may open anything to it.
CLOSED = Policy(rules=(Rule(direction=Direction.EGRESS),), established=Established.KEEP)


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return previous_version.build(tmp_path_factory.mktemp("previous"))


class Upgrade:
    """A world whose agent is of the version before, and dies when this one's is to begin."""

    def __init__(self, bpffs: str, extension: Path) -> None:
        self.world = World(bpffs)
        self.extension = extension
        self.wanted = {"ports": [self.world.port], "uplink": self.world.outside.ifindex}
        self.agent = self.start()
        self.server = self.world.vm.listen(7000)

    def start(self) -> "subprocess.Popen[str]":
        return previous_version.start(self.extension, self.world.pin_dir, self.wanted)

    def kill(self) -> None:
        os.kill(self.agent.pid, signal.SIGKILL)
        self.agent.wait()

    def connect(self) -> tuple[socket.socket, socket.socket]:
        client = self.world.outside.connect("10.9.0.1", 7000)
        pair = client, self.server.accept()[0]
        for end in pair:
            end.settimeout(5.0)
        talk(*pair)
        return pair

    def versions(self) -> list[str]:
        return sorted(os.listdir(self.world.pin_dir))


def talk(one: socket.socket, other: socket.socket) -> None:
    """Both ways."""
    for sender, receiver in ((one, other), (other, one)):
        sender.sendall(b"still here")
        assert receiver.recv(100) == b"still here"


def is_cut(one: socket.socket, other: socket.socket) -> bool:
    other.settimeout(1.0)
    one.sendall(b"anybody?")
    try:
        return not other.recv(100)
    except TimeoutError:
        return True


def run(test, extension: Path) -> None:  # type: ignore[no-untyped-def]
    """In namespaces of its own."""

    def inside(*, bpffs: str) -> None:
        test(Upgrade(bpffs, extension))

    private(inside)()


def test_upgrade_loses_nothing_under_traffic(extension: Path) -> None:
    def test(upgrade: Upgrade) -> None:
        world = upgrade.world
        pairs = [upgrade.connect() for _ in range(20)]
        receiver = world.vm.udp("10.9.0.1", 7001)
        assert world.vm.ping("10.9.0.9")
        assert upgrade.versions() == ["v1"]
        with traffic(world) as count:
            eventually(lambda: count() > 200, "datagrams flow")
            upgrade.kill()
            driver = world.driver()
            after = count()
            eventually(lambda: count() > after + 1000, "datagrams flow on")
        assert count_received(receiver) == count()
        assert driver.counters(PORT).drops == {}
        assert upgrade.versions() == [f"v{c.ABI_VERSION}"]
        (entry,) = driver.ports()
        assert (entry.port, entry.addresses, entry.quota) == (PORT, ("10.9.0.1",), 1000)
        held = driver.connections(PORT)
        assert sum(item.state == "established" for item in held) == 20
        datagrams = [item for item in held if item.protocol == "udp"]
        assert sum(item.ingress_packets for item in datagrams) >= count() * 0.99
        # What comes now passes only because it is established.
        driver.set_policy(PORT, CLOSED)
        for pair in pairs:
            talk(*pair)
        with pytest.raises(TimeoutError):
            world.outside.connect("10.9.0.1", 7000, timeout=1.0)
        driver.destroy()

    run(test, extension)


def test_without_the_upgrade_connections_are_cut(extension: Path) -> None:
    """The control: the same, and nobody looks at what the version before has left."""

    def test(upgrade: Upgrade) -> None:
        world = upgrade.world
        pair = upgrade.connect()
        upgrade.kill()
        os.rename(os.path.join(world.pin_dir, "v1"), os.path.join(world.pin_dir, "v0"))
        driver = world.driver()
        assert driver.ports() == []
        datapath_keeper.set_up(driver, [world.port], world.outside.ifindex)
        driver.set_policy(PORT, CLOSED)
        assert is_cut(*pair)
        driver.destroy()

    run(test, extension)


def test_upgrade_brings_what_began_while_it_ran(extension: Path) -> None:
    def test(upgrade: Upgrade) -> None:
        world = upgrade.world
        pairs = [upgrade.connect()]
        upgrade.kill()

        class Slow(EbpfDriver):
            def _replace_programs(self) -> None:
                # The copy is made, the old programs still run.
                pairs.append(upgrade.connect())
                pairs[0][0].shutdown(socket.SHUT_WR)
                assert pairs[0][1].recv(10) == b""
                super()._replace_programs()

        driver = Slow(pin_dir=world.pin_dir, max_ports=16)
        driver.open()
        states = sorted(item.state for item in driver.connections(PORT))
        assert states == ["established", "fin-wait"]
        driver.set_policy(PORT, CLOSED)
        talk(*pairs[1])
        driver.destroy()

    run(test, extension)


def test_upgrade_that_died_is_done_by_the_next_one(extension: Path) -> None:
    def test(upgrade: Upgrade) -> None:
        world = upgrade.world
        pairs = [upgrade.connect()]
        upgrade.kill()
        for _ in range(2):
            kernel = c.Kernel(world.pin_dir, 16)
            kernel.close()  # before any interface has its programs
            assert upgrade.versions() == ["v1", f"v{c.ABI_VERSION}"]
            pairs.append(upgrade.connect())
        driver = world.driver()
        assert upgrade.versions() == [f"v{c.ABI_VERSION}"]
        driver.set_policy(PORT, CLOSED)
        for pair in pairs:
            talk(*pair)
        driver.destroy()

    run(test, extension)


def test_upgrade_after_a_downgrade_takes_what_ran_last(extension: Path) -> None:
    def test(upgrade: Upgrade) -> None:
        world = upgrade.world
        upgrade.kill()
        driver = world.driver()
        driver.close()
        # The older agent knows nothing of what the newer one has left, and begins anew.
        upgrade.agent = upgrade.start()
        pair = upgrade.connect()
        upgrade.kill()
        assert upgrade.versions() == ["v1", f"v{c.ABI_VERSION}"]
        driver = world.driver()
        assert upgrade.versions() == [f"v{c.ABI_VERSION}"]
        driver.set_policy(PORT, CLOSED)
        talk(*pair)
        driver.destroy()

    run(test, extension)
