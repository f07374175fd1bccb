"""Roles and generations: what libvirt, migrations and the datapath say of who owns a port."""

import asyncio
import threading
from typing import Any

import msgspec
import pytest
from inventory_fakes import (
    INSTANCE,
    OTHER,
    PORT,
    TAP,
    World,
    make_domain,
    make_port,
    running,
    until,
)

from vnet_agent.exceptions import PortTaken, StaleGeneration
from vnet_agent.inventory.listing import Running, role_of
from vnet_agent.model.port import Role
from vnet_agent.model.virt import DomainEvent

S, A, M = Role.STANDBY, Role.ACTIVE, Role.MOVED


@pytest.mark.parametrize(
    ("state", "reason", "current", "expected"),
    [
        ("running", "booted", None, A),
        ("running", "migrated", S, A),
        ("running", "migration-canceled", M, A),
        ("paused", "migration", None, S),
        ("paused", "starting-up", None, S),
        ("paused", "user", None, A),
        ("paused", "migration", S, S),
        ("paused", "starting-up", S, S),
        ("paused", "user", S, A),
        ("paused", "migration", A, A),
        ("paused", "migration", M, M),
        ("paused", "user", M, M),
        ("paused", "user", A, A),
        ("pmsuspended", "unknown", A, A),
    ],
)
def test_role_of(state: str, reason: str, current: Role | None, expected: Role) -> None:
    domain = Running(instance=INSTANCE, state=state, reason=reason, ports=())
    assert role_of(domain, current) is expected


def lifecycle(event: str, detail: str) -> DomainEvent:
    return DomainEvent(kind="lifecycle", uuid=INSTANCE, name="vm", event=event, detail=detail)


async def test_prepare_arms_before_the_tap_is_there() -> None:
    async with running(World()) as world:
        await world.inventory.prepare([make_port()], generation=3)
        assert world.driver.calls == [("set_port", PORT, S, 3), ("set_policy", PORT)]
        ifindex = world.links.add(TAP)
        await until(lambda: world.inventory.get(PORT).tagged)
        assert world.driver.calls[2:] == [("attach", PORT, ifindex)]


async def test_an_incoming_guest_activates_its_ports_when_it_resumes() -> None:
    async with running(World(linger=0.0)) as world:
        await world.inventory.prepare([make_port()], generation=3)
        world.domains.now = [make_domain(make_port(), state="paused", reason="migration")]
        await world.inventory.reconcile()
        assert world.role() is S
        world.domains.now = None
        world.bus.publish(lifecycle("RESUMED", "MIGRATED"))
        await until(lambda: world.role() is A)
        assert world.inventory.get(PORT).generation == 3
        assert world.driver.entries[PORT].role is A


async def test_the_guests_first_frame_is_noticed() -> None:
    async with running(World()) as world:
        await world.inventory.prepare([make_port()], generation=3)
        world.driver._replace(PORT, role=A)
        world.domains.now = [make_domain(make_port(), state="paused", reason="migration")]
        await world.inventory.reconcile()
        assert world.role() is A


async def test_a_prepared_port_waits_for_its_domain() -> None:
    async with running(World(linger=0.0)) as world:
        await world.inventory.prepare([make_port()], generation=3)
        await world.inventory.reconcile()
        assert world.role() is S


async def test_what_arrived_is_not_held_longer_than_any_other_port() -> None:
    async with running(World(linger=0.0)) as world:
        await world.inventory.prepare([make_port()], generation=3)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = []
        await world.inventory.reconcile()
        assert not world.held()


async def test_a_listing_begun_before_an_order_does_not_overrule_it() -> None:
    async with running(World(linger=0.0)) as world:
        world.domains.gate = asyncio.Event()
        task = asyncio.create_task(world.inventory.reconcile())
        await until(lambda: world.domains.asked)
        await world.inventory.prepare([make_port()], generation=3)
        (entry,) = world.inventory._table
        entry.held_until = 0.0
        world.domains.gate.set()
        await task
        assert world.held()

        world.domains.gate = asyncio.Event()
        world.domains.now = [make_domain(make_port())]
        task = asyncio.create_task(world.inventory.reconcile())
        await until(lambda: world.domains.asked == 2)
        await world.inventory.mark_moved(INSTANCE, generation=4)
        world.domains.gate.set()
        await task
        assert world.role() is M


async def test_a_vm_that_comes_back_finds_the_connections_of_its_stay_before() -> None:
    async with running(World(linger=0.0)) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        await world.inventory.mark_moved(INSTANCE, generation=1)
        world.driver.calls.clear()
        await world.inventory.expect(INSTANCE, generation=2)
        assert world.role() is S
        await world.inventory.release(INSTANCE, generation=1)
        assert world.held()
        assert ("flush", PORT) not in world.driver.calls
        with pytest.raises(StaleGeneration):
            await world.inventory.expect(INSTANCE, generation=1)


async def test_source_moves_and_releases() -> None:
    async with running(World(linger=0.0)) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        await world.inventory.set_generation(INSTANCE, generation=2)
        world.domains.now = []
        await world.inventory.reconcile()
        assert world.held()
        await world.inventory.mark_moved(INSTANCE, generation=2)
        await world.inventory.reconcile()
        assert world.role() is M
        await world.inventory.release(INSTANCE, generation=2)
        assert not world.held()


async def test_a_departure_nobody_handled_is_seen_and_forgotten_in_time() -> None:
    async with running(World(linger=0.0)) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = []
        world.bus.publish(lifecycle("STOPPED", "MIGRATED"))
        await until(lambda: world.role() is M)
        await world.inventory.reconcile()
        assert world.held()
        (entry,) = world.inventory._table
        entry.held_until = 0.0
        await world.inventory.reconcile()
        assert not world.held()


async def test_a_departure_that_frames_follow_is_for_the_migration_to_end() -> None:
    async with running(World(linger=0.0)) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = []
        world.driver.relaying.add(PORT)
        world.bus.publish(lifecycle("STOPPED", "MIGRATED"))
        (entry,) = world.inventory._table
        await until(lambda: entry.held_until > 0.0)
        await world.inventory.reconcile()
        assert world.role() is A
        await world.inventory.mark_moved(INSTANCE, generation=1)
        assert world.role() is M


async def test_an_aborted_migration_resumes_on_the_source() -> None:
    async with running(World()) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        await world.inventory.mark_moved(INSTANCE, generation=2)
        await world.inventory.activate(INSTANCE, generation=2)
        assert world.role() is A


async def test_a_late_clean_up_of_an_older_owner_does_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with running(World()) as world:
        await world.inventory.prepare([make_port()], generation=5)
        await world.inventory.release(INSTANCE, generation=4)
        assert world.held()
        assert "generation 4 was released" in caplog.text
        for order in (
            world.inventory.activate(INSTANCE, generation=4),
            world.inventory.mark_moved(INSTANCE, generation=4),
            world.inventory.set_generation(INSTANCE, generation=4),
            world.inventory.prepare([make_port()], generation=4),
        ):
            with pytest.raises(StaleGeneration, match="generation 4 is older than the owner's 5"):
                await order
        assert world.role() is S


async def test_a_vm_that_comes_back_starts_without_its_old_connections() -> None:
    async with running(World()) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        await world.inventory.mark_moved(INSTANCE, generation=2)
        await world.inventory.prepare([make_port()], generation=3)
        assert ("flush", PORT) in world.driver.calls
        assert world.role() is S
        world.driver.calls.clear()
        await world.inventory.prepare([make_port()], generation=3)
        assert ("flush", PORT) not in world.driver.calls


async def test_an_order_whose_caller_gives_up_is_carried_out() -> None:
    async with running(World()) as world:
        entered, proceed = threading.Event(), threading.Event()
        original = world.driver.set_port

        def slow(*arguments: Any, **fields: Any) -> Any:
            entered.set()
            proceed.wait(10)
            return original(*arguments, **fields)

        world.driver.set_port = slow  # type: ignore[method-assign]
        order = asyncio.create_task(world.inventory.prepare([make_port()], generation=3))
        await until(entered.is_set)
        order.cancel()
        await asyncio.gather(order, return_exceptions=True)
        proceed.set()
        await until(lambda: world.inventory.states())
        assert world.driver.calls == [("set_port", PORT, S, 3), ("set_policy", PORT)]


async def test_orders_for_an_instance_without_ports_are_no_error() -> None:
    async with running(World()) as world:
        await world.inventory.activate(OTHER, generation=1)
        await world.inventory.release(OTHER, generation=1)


async def test_a_late_departure_does_not_touch_what_comes_back() -> None:
    """A to B and back at once: STOPPED/MIGRATED of the first way is handled after the hook."""
    async with running(World()) as world:
        await world.inventory.prepare([make_port()], generation=5)
        world.bus.publish(lifecycle("STOPPED", "MIGRATED"))
        await world.bus.drain()
        assert world.role() is S
        world.driver._replace(PORT, role=A)  # the guest's first frame
        world.bus.publish(lifecycle("STOPPED", "MIGRATED"))
        await world.bus.drain()
        assert world.role() is M


async def test_a_port_is_not_given_to_another_vm_that_names_it() -> None:
    thief = msgspec.structs.replace(make_port(), instance=OTHER)
    async with running(World()) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        with pytest.raises(PortTaken, match=INSTANCE):
            await world.inventory.prepare([thief], generation=9)
        world.domains.now = [make_domain(thief, uuid=OTHER), make_domain(make_port())]
        await world.inventory.reconcile()
        assert world.inventory.get(PORT).port.instance == INSTANCE
        assert world.role() is A
        world.domains.now = [make_domain(thief, uuid=OTHER)]
        await world.inventory.reconcile()
        assert world.inventory.get(PORT).port.instance == OTHER
