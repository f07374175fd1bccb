"""A VM that turns round, or goes on, before all that its last migration left to do is done."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from migration_hosts import (
    INSTANCE,
    PORT,
    PORTS,
    FakeDriver,
    Hosts,
    precopy,
    switch,
    two_hosts,
    until,
)

from vnet_agent.model.migration import Phase
from vnet_agent.model.port import Role
from vnet_agent.model.virt import DomainState


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with two_hosts(tmp_path) as pair:
        pair[0].driver.change(PORT, 1, 2, 3)
        yield pair


def stuck(driver: FakeDriver) -> threading.Event:
    """Its next imports wait for this."""
    driver.waiting, driver.hold = False, threading.Event()
    return driver.hold


async def test_it_comes_back_before_its_state_has_left(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other host has not fetched yet is not forgotten for the VM's return."""
    a, b = hosts
    await precopy(a, b)
    hold, cursor = threading.Event(), a.driver.cursor
    monkeypatch.setattr(a.driver, "cursor", lambda: cursor() if hold.wait(10) else 0)
    a.driver.change(PORT, *range(4, 40))
    a.libvirt("SUSPENDED", "MIGRATED")
    b.guest_arrives()
    await until(lambda: a.roles == {Role.MOVED})
    await a.hook()
    assert a.roles == {Role.STANDBY}
    assert a.generation == 2
    hold.set()
    await until(lambda: a.phase is Phase.PRECOPY)
    assert a.generation == 3
    await until(lambda: b.driver.keys() == set(range(1, 40)))
    await switch(b, a)
    assert a.driver.keys() == set(range(1, 40))


async def test_it_goes_on_before_its_state_has_come(hosts: Hosts) -> None:
    """A host sends the last of the state once all of it is there."""
    a, b = hosts
    await precopy(a, b)
    hold = stuck(b.driver)
    a.driver.change(PORT, *range(4, 40))
    a.libvirt("SUSPENDED", "MIGRATED")
    await until(lambda: b.driver.waiting)
    b.guest_arrives()
    await until(lambda: b.roles == {Role.ACTIVE})
    await a.bus.drain()
    await a.hook()
    a.libvirt("STARTED", "MIGRATED")
    await until(lambda: b.migrations.reports()[-1].side == "source")
    b.libvirt("SUSPENDED", "MIGRATED")
    await until(lambda: b.phase is Phase.HANDOVER)
    assert a.phase is not Phase.HANDOVER
    hold.set()
    a.guest_arrives()
    b.libvirt("STOPPED", "MIGRATED")
    await until(lambda: a.phase is Phase.DONE)
    assert a.driver.keys() == set(range(1, 40))


async def test_it_came_and_left_again(hosts: Hosts) -> None:
    """The source, which has not noticed, must not take its guest for gone."""
    a, b = hosts
    await precopy(a, b)
    b.guest_arrives()
    b.libvirt("STOPPED", "FAILED")
    await until(lambda: a.phase is Phase.ABORTED)
    await until(lambda: b.phase is Phase.DONE)
    assert "has left the destination again" in str(b.report.error)
    assert a.roles == {Role.ACTIVE}
    assert a.driver.keys() == {1, 2, 3}


async def test_late_news_of_a_qemu_that_is_gone(hosts: Hosts) -> None:
    _, b = hosts
    b.domains = [DomainState(uuid=INSTANCE, name="vm1", state="shutoff")]
    b.inventory.put(PORTS, Role.STANDBY, 1)
    b.libvirt("STARTED", "MIGRATED")
    await b.bus.drain()
    await until(lambda: not b.migrations._beginning)
    assert b.migrations.reports() == []


async def test_it_waits_here_since_before_the_agent_did(hosts: Hosts) -> None:
    """Neither hook nor event were seen: what libvirt lists must do."""
    a, b = hosts
    b.inventory.put(PORTS, Role.STANDBY, 1)
    b.domains = [DomainState(uuid=INSTANCE, name="vm1", state="paused", reason="migration")]
    b.reconnected()
    await until(lambda: b.phase is Phase.PRECOPY)
    await switch(a, b)
    assert b.driver.keys() == {1, 2, 3}


async def test_started_is_told_once_although_the_agent_died_while_it_was(hosts: Hosts) -> None:
    a, b = hosts
    await precopy(a, b)
    (saved,) = [s.saved for s in b.migrations._incoming.values()]
    await until(lambda: b.events.types() == ["started"])
    saved.announced, saved.generation = False, 0
    await b.migrations._store.save_session(saved)
    await b.kill()
    await b.start()
    await until(lambda: (b.report.precopy_rounds or 0) >= 1)
    await switch(a, b)
    await until(lambda: b.events.types() == ["started", "completed"])
