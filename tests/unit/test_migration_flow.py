"""A live migration between two agents, from the hook to the report."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from migration_hosts import (
    INSTANCE,
    PORT,
    PORTS,
    Host,
    Hosts,
    migrate,
    precopy,
    switch,
    two_hosts,
    until,
)

from vnet_agent import exceptions
from vnet_agent.datapath.base import PortCounters
from vnet_agent.model.migration import Phase
from vnet_agent.model.port import Role
from vnet_agent.model.virt import DomainEvent


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with two_hosts(tmp_path) as pair:
        yield pair


async def test_whole_way(hosts: Hosts) -> None:
    a, b = hosts
    a.driver.change(PORT, *range(200))
    a.driver.change(PORTS[1].uuid, 7, 8)
    await precopy(a, b)
    assert b.roles == {Role.STANDBY}
    a.driver.change(PORT, 500, state=2)
    a.driver.change(PORT, 3, state=9)
    await switch(a, b)

    assert b.driver.keys() == {*range(200), 500}
    assert b.driver.keys(PORTS[1].uuid) == {7, 8}
    assert b.driver.tables[PORT][3][0] == 9
    assert b.generation == 2
    assert a.inventory.states() == []
    assert a.inventory.log == ["mark_moved 1", "release 1"]

    report = b.report
    assert (report.side, report.source, report.destination) == ("destination", "a", "b")
    assert report.instance == INSTANCE
    assert report.connections_moved == 203
    assert report.connections_refused == {}
    assert report.precopy_rounds is not None
    assert report.precopy_rounds >= 2
    assert report.final_delta_ms is not None
    assert report.final_delta_ms > 0
    assert report.vcpu_pause_ms is not None
    assert report.vcpu_pause_ms > 0
    assert report.frames_lost is report.frames_replayed is report.network_gap_ms is None
    assert report.error is None
    assert a.report.id == report.id
    assert (a.report.side, a.report.phase) == ("source", Phase.DONE)

    phases = list(dict.fromkeys(step.phase for step in report.steps))
    assert phases == [
        Phase.PREPARE,
        Phase.PRECOPY,
        Phase.HANDOVER,
        Phase.ACTIVE,
        Phase.DRAIN,
        Phase.DONE,
    ]


async def test_guest_does_not_wait_until_connections_are_counted(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts
    a.driver.change(PORT, 1, 2)
    await precopy(a, b)
    gate, count = threading.Event(), b.driver.counters

    def counters(port: str) -> PortCounters:
        gate.wait()
        return count(port)

    monkeypatch.setattr(b.driver, "counters", counters)
    try:
        a.libvirt("SUSPENDED", "MIGRATED")
        await until(lambda: b.phase is Phase.HANDOVER)
        assert b.report.steps[-1].detail == "final delta imported"
        b.guest_arrives()
        await until(lambda: b.roles == {Role.ACTIVE})
    finally:
        gate.set()
    await until(lambda: a.roles == {Role.MOVED})
    a.libvirt("STOPPED", "MIGRATED")
    await until(lambda: b.phase is Phase.DONE)
    await until(lambda: b.report.connections_moved == 2)


async def test_events_once_and_from_the_destination_only(hosts: Hosts) -> None:
    a, b = hosts
    await migrate(a, b)
    await until(lambda: b.events.types() == ["started", "completed"])
    assert a.events.types() == []
    started, completed = b.events.emitted
    assert started.subject == INSTANCE
    assert started.data["source"] == "a"
    assert completed.data["phase"] == "done"
    assert completed.data["connections_moved"] == 0
    reported = a.controller.reports
    await until(
        lambda: (
            {
                ("source", Phase.DONE),
                ("destination", Phase.PRECOPY),
                ("destination", Phase.DONE),
            }
            <= {(r.side, r.phase) for r in reported}
        )
    )


async def test_final_delta_is_not_polled_for(tmp_path: Path) -> None:
    """With rounds ten seconds apart only the event itself can bring FINAL in time."""
    async with two_hosts(tmp_path, precopy_interval=10.0, idle_timeout=60.0) as (a, b):
        await b.hook()
        await until(lambda: b.report.precopy_rounds == 1)
        a.driver.change(PORT, 77)
        a.libvirt("SUSPENDED", "MIGRATED")
        await until(lambda: b.phase is Phase.HANDOVER, seconds=5)
        assert b.driver.keys() == {77}
        assert b.report.precopy_rounds == 1


async def test_change_during_an_export_is_in_a_later_round(hosts: Hosts) -> None:
    a, b = hosts
    a.driver.change(PORT, *range(64))

    def change_what_was_sent() -> None:
        a.driver.on_export = None
        a.driver.change(PORT, 0, state=5)

    a.driver.on_export = change_what_was_sent
    await migrate(a, b)
    assert b.driver.tables[PORT][0][0] == 5


async def test_refused_by_the_destination(hosts: Hosts) -> None:
    a, b = hosts
    a.driver.change(PORT, 1, 2, 0xFFFF0001)
    await migrate(a, b)
    assert b.report.connections_refused == {"policy": 1}
    assert b.report.connections_moved == 2
    assert b.report.phase is Phase.DONE


async def test_there_and_back_with_late_clean_up(hosts: Hosts) -> None:
    """A's clean-up of the first move comes after the VM is back: it must hurt nobody."""
    a, b = hosts
    a.driver.change(PORT, 1, 2)
    await precopy(a, b)
    a.libvirt("SUSPENDED", "MIGRATED")
    await until(lambda: b.phase is Phase.HANDOVER)
    b.guest_arrives()
    await until(lambda: a.roles == {Role.MOVED})
    # No STOPPED yet. The VM turns round.
    b.driver.change(PORT, 3)
    await a.hook()
    await until(lambda: a.report.phase is Phase.PRECOPY)
    assert a.generation == 3
    assert a.migrations.reports()[0].phase is Phase.DONE
    await a.inventory.release(INSTANCE, generation=1)
    a.libvirt("STOPPED", "MIGRATED")
    await a.bus.drain()
    await switch(b, a)
    assert a.roles == {Role.ACTIVE}
    assert a.generation == 3
    assert a.driver.keys() == {1, 2, 3}
    assert b.inventory.states() == []


async def test_control_without_state(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await b.kill()
        b.options["transfer_state"] = False
        await b.start()
        a.driver.change(PORT, 1, 2)
        await migrate(a, b)
        assert b.driver.keys() == set()
        assert b.driver.imports == 0
        assert b.report.connections_moved == 0
        assert b.report.error is None
        await until(lambda: b.events.types() == ["started", "completed"])


async def test_stay_before_leaves_nothing_behind(tmp_path: Path) -> None:
    """Without the transfer a connection of an earlier stay must not come back to life."""
    async with two_hosts(tmp_path, transfer_state=False) as (a, b):
        b.inventory.put(PORTS, Role.MOVED, 1)
        b.driver.change(PORT, 1, 2)
        await migrate(a, b)
        assert b.driver.keys() == set()


async def test_guest_paused_by_its_user(hosts: Hosts) -> None:
    """No SUSPENDED on the source: the destination asks for the rest when its domain is here."""
    a, b = hosts
    await precopy(a, b)
    a.driver.change(PORT, 9)
    b.libvirt("SUSPENDED", "PAUSED")
    await until(lambda: b.phase is Phase.DRAIN)
    assert b.driver.keys() == {9}
    assert b.roles == {Role.ACTIVE}
    a.libvirt("STOPPED", "MIGRATED")
    await until(lambda: b.phase is Phase.DONE)
    assert b.report.final_delta_ms is None
    assert b.report.vcpu_pause_ms is None


async def test_guest_gone_before_the_destination_asks(hosts: Hosts) -> None:
    a, b = hosts
    await precopy(a, b)
    a.driver.change(PORT, 9)
    a.libvirt("STOPPED", "MIGRATED")
    await until(lambda: b.phase is Phase.HANDOVER)
    assert b.driver.keys() == {9}
    await until(lambda: a.phase is Phase.DONE)
    b.guest_arrives()
    await until(lambda: b.phase is Phase.DONE)


async def test_resumed_before_final(hosts: Hosts) -> None:
    """RESUMED here overtakes SUSPENDED from there: the rest still comes."""
    a, b = hosts
    await precopy(a, b)
    a.driver.change(PORT, 9)
    b.guest_arrives()
    await until(lambda: b.roles == {Role.ACTIVE})
    await until(lambda: b.driver.keys() == {9})
    a.libvirt("SUSPENDED", "MIGRATED")
    a.libvirt("STOPPED", "MIGRATED")
    await until(lambda: b.phase is Phase.DONE)
    assert b.report.error is None


async def test_first_frame_makes_it_active(hosts: Hosts) -> None:
    """The datapath switched the port itself, and no event of libvirt came."""
    a, b = hosts
    await precopy(a, b)
    b.inventory.put(PORTS, Role.ACTIVE, 2)
    await until(lambda: b.phase in (Phase.ACTIVE, Phase.DRAIN))
    a.libvirt("STOPPED", "MIGRATED")
    await until(lambda: b.phase is Phase.DONE)


async def test_downtime_of_libvirt_is_preferred(hosts: Hosts) -> None:
    a, b = hosts
    await precopy(a, b)
    a.libvirt("SUSPENDED", "MIGRATED")
    await until(lambda: b.phase is Phase.HANDOVER)
    b.guest_arrives()
    await until(lambda: a.roles == {Role.MOVED})
    a.libvirt("STOPPED", "MIGRATED")
    complete_job(a, "MIGRATION_OUT", 123.0)
    await until(lambda: b.phase is Phase.DONE)
    assert b.report.vcpu_pause_ms == 123.0
    assert a.report.vcpu_pause_ms == 123.0


async def test_statistics_of_other_jobs_are_not_the_migrations(hosts: Hosts) -> None:
    """A snapshot or a managed save completes a job as well, during the migration or after it."""
    a, b = hosts
    await precopy(a, b)
    complete_job(a, "SNAPSHOT", 5.0)
    await a.bus.drain()
    assert a.report.vcpu_pause_ms is None
    complete_job(a, "MIGRATION_OUT", 123.0)
    await switch(a, b)
    complete_job(a, "SAVE", 7000.0)
    await a.bus.drain()
    assert a.report.vcpu_pause_ms == 123.0


def complete_job(host: Host, operation: str, downtime_ms: float) -> None:
    host.bus.publish(
        DomainEvent(
            kind="job-completed",
            uuid=INSTANCE,
            name="vm1",
            event=operation,
            downtime_ms=downtime_ms,
        )
    )


async def test_by_static_peers(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        a.controller.broken = True
        await b.kill()
        b.options["peers"] = ["http://127.0.0.1:1", b.url, a.url]
        await b.start()
        a.driver.change(PORT, 4)
        await migrate(a, b)
        assert b.driver.keys() == {4}


async def test_hook_that_was_never_called(hosts: Hosts) -> None:
    """The agent was down: STARTED/MIGRATED and the ports that the inventory found must do."""
    a, b = hosts
    a.driver.change(PORT, 4)
    b.libvirt("STARTED", "MIGRATED")
    await b.bus.drain()
    assert b.phase is None
    b.inventory.put(PORTS, Role.ACTIVE, 1)
    await until(lambda: b.phase is Phase.PRECOPY)
    assert b.roles == {Role.STANDBY}
    await switch(a, b)
    assert b.driver.keys() == {4}


async def test_sessions_that_are_over_are_not_kept(hosts: Hosts) -> None:
    """A host sees many instances in a year; their reports are what stays, the last ones."""
    a, b = hosts
    await migrate(a, b)
    await b.migrations._incoming[INSTANCE].finished.wait()
    other = "2a1a0d0e-0000-4000-8000-000000000002"
    port = msgspec.structs.replace(PORTS[0], uuid=other, instance=other, instance_name="vm2")
    b.migrations._parse = lambda _: (port,)
    await b.hook()
    assert set(b.migrations._incoming) == {other}
    assert len(b.migrations.reports()) == 2


async def test_hook_with_nothing_to_do(hosts: Hosts) -> None:
    _, b = hosts
    await b.hook("reconnect")
    await b.hook("release")
    assert b.migrations.reports() == []
    with pytest.raises(exceptions.MigrationError, match="no-such"):
        b.migrations.report("no-such")


async def test_controller_that_is_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It thinks already that the VM is where it goes to: the peers know better."""
    async with two_hosts(tmp_path) as (a, b):
        await b.kill()
        b.options["peers"] = [a.url]
        await b.start()

        async def locate(instance: str) -> tuple[str, str]:
            return b.name, b.url

        monkeypatch.setattr(b.controller, "locate", locate)
        a.driver.change(PORT, 4)
        await migrate(a, b)
        assert b.driver.keys() == {4}
