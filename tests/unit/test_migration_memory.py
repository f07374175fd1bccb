"""The same migration over the real C core, as the memory driver runs it."""

import ipaddress
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from migration_hosts import (
    INSTANCE,
    PORT,
    PORTS,
    FakeController,
    FakeInventory,
    Host,
    State,
    migrate,
    precopy,
    switch,
    until,
)

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.datapath.records import NAT
from vnet_agent.migration import wire
from vnet_agent.model.migration import Phase
from vnet_agent.model.policy import ALLOW_ALL, Direction, Established, Policy, Rule
from vnet_agent.model.port import Port, Role

EGRESS_ONLY = (Rule(direction=Direction.EGRESS),)
CLOSED = Policy(rules=EGRESS_ONLY)
CLOSED_BUT_KEPT = Policy(rules=EGRESS_ONLY, established=Established.KEEP)
_HEAD = struct.Struct("<HBBHH16s16sBBBxIQQ")


def established(remote_port: int) -> bytes:
    """A TCP connection to port 80 of the VM, as csrc/core/record.h has it."""
    addresses = [ipaddress.ip_address(a) for a in ("::ffff:10.0.0.5", "::ffff:10.0.0.9")]
    flags = c.CONN_ASSURED
    head = _HEAD.pack(
        c.RECORD_VERSION,
        6,
        4,
        80,
        remote_port,
        *(address.packed for address in addresses),
        c.STATES.index("established"),
        flags,
        0,
        0,
        60_000,
        1_000,
    )
    return head.ljust(c.RECORD_SIZE, b"\0")


def translation() -> bytes:
    """What the frames of one of them to the VM are translated to."""
    record = bytearray(established(1))
    record[0:2] = NAT.to_bytes(2, "little")
    record[40] = c.STATES.index("nat")
    record[43] = 2  # enum vnet_nat_way
    record[96:] = record[8:40]  # to the same names: it is there that counts here
    return bytes(record)


class CoreInventory(FakeInventory):
    """Ports in a driver instead of a dictionary of their connections."""

    def __init__(self, driver: MemoryDriver, policy: Policy) -> None:
        super().__init__(driver)  # type: ignore[arg-type]
        self.core = driver
        self.policy = policy

    def put(self, ports: Sequence[Port], role: Role, generation: int) -> None:
        for port in ports:
            self.core.set_port(
                port.uuid,
                instance=port.instance,
                mac=port.mac,
                addresses=port.addresses,
                network=port.network,
                bridged=False,
                role=role,
                generation=generation,
                quota=20_000,
            )
            self.core.set_policy(port.uuid, self.policy)
            self.ports[port.uuid] = State(port=port, role=role, generation=generation)
        for callback in self._callbacks:
            callback()

    async def release(self, instance: str, *, generation: int) -> None:
        self.log.append(f"release {generation}")
        for state in self.of_instance(instance):
            if state.generation <= generation:
                self.core.remove_port(state.port.uuid, generation=generation)
                del self.ports[state.port.uuid]


def core_host(name: str, directory: Path, controller: FakeController, policy: Policy) -> Host:
    host = Host(name, directory / name, controller)
    driver = MemoryDriver()
    driver.open()
    host.driver = driver  # type: ignore[assignment]
    host.inventory = CoreInventory(driver, policy)
    return host


def connections(host: Host) -> set[int]:
    return {each.remote_port for each in host.driver.connections(PORT)}  # type: ignore[attr-defined]


@pytest.fixture
async def a(tmp_path: Path) -> AsyncIterator[Host]:
    host = core_host("a", tmp_path, FakeController(), ALLOW_ALL)
    await host.start()
    host.run_guest()
    records = b"".join(established(port) for port in range(1, 10_001))
    assert host.driver.import_records(PORT, records).moved == 10_000
    yield host
    await host.kill()


async def arrive(a: Host, directory: Path, policy: Policy) -> Host:
    host = core_host("b", directory, a.controller, policy)
    await host.start()
    return host


async def test_ten_thousand_connections(a: Host, tmp_path: Path) -> None:
    b = await arrive(a, tmp_path, CLOSED_BUT_KEPT)
    try:
        await precopy(a, b)
        assert b.report.connections_moved == 10_000
        a.driver.import_records(PORT, established(20_000))
        await switch(a, b)
        assert connections(b) == {*range(1, 10_001), 20_000}
        assert b.report.connections_moved == 10_001
        assert b.report.connections_refused == {}
        assert a.inventory.of_instance(INSTANCE) == []
    finally:
        await b.kill()


@pytest.mark.parametrize(("versions", "moved"), [((2, 1), 1), ((1,), 0)])
async def test_translations_move_to_who_knows_them(
    a: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: tuple[int, ...], moved: int
) -> None:
    monkeypatch.setattr(wire, "VERSIONS", versions)
    assert a.driver.import_records(PORT, translation()).moved == 1
    b = await arrive(a, tmp_path, CLOSED_BUT_KEPT)
    try:
        await migrate(a, b)
        found = list(b.driver.connections(PORT))  # type: ignore[attr-defined]
        assert [each.state for each in found].count("nat") == moved
        assert len(found) == 10_000 + moved
        assert b.report.connections_refused == {}
    finally:
        await b.kill()


async def test_rechecked_against_the_policy_in_force(a: Host, tmp_path: Path) -> None:
    b = await arrive(a, tmp_path, CLOSED)
    try:
        await migrate(a, b)
        assert connections(b) == set()
        assert b.report.connections_moved == 0
        assert b.report.connections_refused == {"policy": 10_000}
    finally:
        await b.kill()


async def test_abort_leaves_nothing(a: Host, tmp_path: Path) -> None:
    b = await arrive(a, tmp_path, CLOSED_BUT_KEPT)
    try:
        await precopy(a, b)
        b.libvirt("STOPPED", "FAILED")
        await until(lambda: a.phase is Phase.ABORTED)
        await until(lambda: b.events.types() == ["started", "failed"])
        assert b.driver.ports() == []  # type: ignore[attr-defined]
        assert len(connections(a)) == 10_000
        assert {state.role for state in a.inventory.of_instance(PORTS[0].instance)} == {
            Role.ACTIVE
        }
    finally:
        await b.kill()
