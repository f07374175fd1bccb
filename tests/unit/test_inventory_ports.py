"""Ports from libvirt's listings to datapath and tag, and away again."""

import pytest
from inventory_fakes import (
    INSTANCE,
    MAC,
    OTHER,
    PORT,
    TAP,
    World,
    make_domain,
    make_port,
    running,
    until,
)

from vnet_agent.exceptions import DatapathError, UnknownPort
from vnet_agent.model.event import Type
from vnet_agent.model.policy import DENY_ALL
from vnet_agent.model.port import Role
from vnet_agent.model.virt import ConnectionChange, DomainEvent, DomainState, HookCall

ALIAS = f"vnet instance={INSTANCE} port={PORT}"


async def test_a_running_domain_is_armed_in_order_and_tagged() -> None:
    async with running(World()) as world:
        ifindex = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        world.bus.publish(ConnectionChange(connected=True))
        await until(lambda: world.events.kinds)
        assert world.driver.calls == [
            ("set_port", PORT, Role.ACTIVE, 1),
            ("set_policy", PORT),
            ("attach", PORT, ifindex),
        ]
        assert world.links.alias(ifindex) == ALIAS
        state = world.inventory.get(PORT)
        assert (state.role, state.generation, state.ifindex, state.tagged) == (
            Role.ACTIVE, 1, ifindex, True,
        )  # fmt: skip
        assert state.local_id is not None
        kind, subject, data = world.events.emitted[0]
        assert (kind, subject) == (Type.PORT_TAGGED, INSTANCE)
        assert data == {"port": PORT, "tap": TAP, "mac": MAC, "ifindex": ifindex}


async def test_the_same_listing_again_changes_nothing() -> None:
    async with running(World()) as world:
        world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        before = list(world.driver.calls)
        await world.inventory.reconcile()
        assert world.driver.calls == before


@pytest.mark.parametrize("key", [PORT, PORT.upper(), TAP, MAC, MAC.upper()])
async def test_ports_are_found_by_uuid_tap_and_mac(key: str) -> None:
    async with running(World()) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        assert world.inventory.get(key).port.uuid == PORT
        assert [s.port.uuid for s in world.inventory.of_instance(INSTANCE)] == [PORT]
        with pytest.raises(UnknownPort, match="nobody"):
            world.inventory.get("nobody")


async def test_a_tap_that_comes_later_is_taken_when_it_comes() -> None:
    async with running(World()) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        assert not world.inventory.get(PORT).tagged
        ifindex = world.links.add(TAP)
        await until(lambda: world.inventory.get(PORT).tagged)
        assert world.driver.calls[-1] == ("attach", PORT, ifindex)


async def test_a_recreated_tap_is_taken_and_the_port_stays() -> None:
    async with running(World()) as world:
        first = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.links.remove(first)
        await until(lambda: not world.inventory.get(PORT).tagged)
        second = world.links.add(TAP)
        await until(lambda: world.inventory.get(PORT).tagged)
        assert world.driver.entries[PORT].ifindex == second
        assert world.links.alias(second) == ALIAS
        assert ("remove_port", PORT) not in world.driver.calls
        await until(lambda: len(world.events.kinds) == 3)
        assert world.events.kinds == [Type.PORT_TAGGED, Type.PORT_UNTAGGED, Type.PORT_TAGGED]
        assert world.events.emitted[1][2]["reason"] == "tap-gone"


async def test_a_hard_reboot_finds_its_port_again() -> None:
    async with running(World()) as world:
        first = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = []
        await world.inventory.reconcile()
        world.links.remove(first)
        await until(lambda: world.inventory.get(PORT).ifindex is None)
        second = world.links.add(TAP)
        await until(lambda: world.inventory.get(PORT).ifindex == second)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        assert ("remove_port", PORT) not in world.driver.calls
        assert world.links.alias(second) == ALIAS


async def test_a_removed_tag_is_written_again() -> None:
    async with running(World()) as world:
        ifindex = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.links.change(ifindex, alias="mine")
        await until(lambda: world.links.alias(ifindex) == ALIAS)
        assert world.events.kinds == [Type.PORT_TAGGED]


async def test_a_tag_removed_without_news_is_written_again_by_the_comparison() -> None:
    async with running(World()) as world:
        ifindex = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.links.hidden[ifindex] = ""
        await world.inventory.reconcile()
        assert world.links.aliases_set == [ALIAS, ALIAS]


async def test_a_fight_over_the_tag_ends() -> None:
    async with running(World()) as world:
        ifindex = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        changes = 0

        def fight() -> None:
            nonlocal changes
            if world.links.alias(ifindex) == ALIAS and changes < 100:
                changes += 1
                world.links.change(ifindex, alias="theirs")

        world.links.subscribe(fight)
        fight()
        await until(lambda: not world.inventory.get(PORT).tagged)
        assert changes <= 11
        assert world.inventory.get(PORT).ifindex == ifindex


async def test_a_renamed_tap_is_followed() -> None:
    async with running(World()) as world:
        ifindex = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.links.change(ifindex, name="renamed")
        await world.inventory.reconcile()
        state = world.inventory.get(PORT)
        assert (state.ifindex, state.tagged) == (ifindex, True)
        world.links.change(ifindex, alias="")
        await until(lambda: world.links.alias(ifindex) == ALIAS)
        assert world.driver.calls.count(("attach", PORT, ifindex)) == 1


async def test_a_new_tap_of_the_old_name_replaces_the_renamed_one() -> None:
    async with running(World()) as world:
        old = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.links.change(old, name="renamed")
        new = world.links.add(TAP)
        await until(lambda: world.inventory.get(PORT).ifindex == new)
        await until(lambda: world.links.alias(new) == ALIAS)
        assert world.links.alias(old) == ""


async def test_a_port_goes_with_its_domain_after_the_grace() -> None:
    async with running(World(linger=0.0)) as world:
        ifindex = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = [DomainState(uuid=INSTANCE, name="vm", state="shutoff")]
        await world.inventory.reconcile()
        assert not world.held()
        assert world.links.alias(ifindex) == ""
        assert world.inventory.states() == []
        await until(lambda: len(world.events.kinds) == 2)
        assert world.events.emitted[1][0] == Type.PORT_UNTAGGED
        assert world.events.emitted[1][2]["reason"] == "removed"


async def test_the_grace_ends_by_itself() -> None:
    async with running(World(linger=0.1)) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = []
        await world.inventory.reconcile()
        assert world.held()
        await until(lambda: not world.held())


async def test_a_domain_that_comes_back_starts_the_grace_anew() -> None:
    async with running(World(linger=600.0)) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = []
        await world.inventory.reconcile()
        (entry,) = world.inventory._table
        assert entry.missing_since is not None
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        assert entry.missing_since is None


async def test_nothing_goes_because_libvirtd_is_away() -> None:
    async with running(World(linger=0.0)) as world:
        ifindex = world.links.add(TAP)
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = None
        world.bus.publish(ConnectionChange(connected=False))
        await world.inventory.reconcile()
        assert world.held()
        world.links.change(ifindex, alias="")
        await until(lambda: world.links.alias(ifindex) == ALIAS)


async def test_an_unplugged_interface_goes_at_once() -> None:
    async with running(World(linger=600.0)) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = [make_domain()]
        world.bus.publish(DomainEvent(kind="device-removed", uuid=INSTANCE, name="vm"))
        await until(lambda: not world.held())


async def test_refused_xml_leaves_ports_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    async with running(World(linger=0.0)) as world:
        good = make_domain(make_port())
        world.domains.now = [good]
        await world.inventory.reconcile()
        bad = DomainState(uuid=INSTANCE, name="vm", state="running", xml=good.xml + "<")
        other = make_domain(
            make_port(uuid=OTHER, tap="tapother", mac="fa:16:3e:00:00:0b"), uuid=OTHER
        )
        world.domains.now = [bad, other]
        await world.inventory.reconcile()
        await world.inventory.reconcile()
        assert world.held()
        assert OTHER in world.driver.entries
        assert caplog.text.count("Domain XML of vm refused") == 1


async def test_a_domain_cannot_pose_as_another() -> None:
    async with running(World()) as world:
        honest = make_domain(make_port())
        posing = DomainState(uuid=OTHER, name="evil", state="running", xml=honest.xml)
        world.domains.now = [posing]
        await world.inventory.reconcile()
        assert world.inventory.states() == []


async def test_of_two_domains_with_one_port_the_first_has_it() -> None:
    async with running(World()) as world:
        thief = make_port(instance=OTHER, tap="tapthief")
        world.domains.now = [make_domain(make_port()), make_domain(thief, uuid=OTHER)]
        await world.inventory.reconcile()
        assert world.inventory.get(PORT).port.instance == INSTANCE


async def test_a_port_that_moves_to_another_instance_starts_without_connections() -> None:
    async with running(World()) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.domains.now = [make_domain(make_port(), uuid=OTHER)]
        await world.inventory.reconcile()
        assert world.driver.calls[2] == ("remove_port", PORT)
        assert world.inventory.get(PORT).port.instance == OTHER


async def test_a_reused_tap_name_belongs_to_the_vm_that_runs() -> None:
    async with running(World(linger=600.0)) as world:
        gone = make_port(tap="vnet0")
        first = world.links.add("vnet0")
        world.domains.now = [make_domain(gone)]
        await world.inventory.reconcile()
        world.domains.now = []
        await world.inventory.reconcile()
        world.links.remove(first)
        second = world.links.add("vnet0")
        await until(lambda: world.inventory.get(PORT).ifindex is None)
        heir = make_port(uuid=OTHER, instance=OTHER, tap="vnet0", mac="fa:16:3e:00:00:0b")
        world.domains.now = [make_domain(heir, uuid=OTHER)]
        await world.inventory.reconcile()
        assert world.inventory.get(OTHER).ifindex == second
        assert world.inventory.get(PORT).ifindex is None
        assert ("attach", PORT, second) not in world.driver.calls


async def test_of_two_vms_that_name_one_tap_one_has_it() -> None:
    async with running(World()) as world:
        ifindex = world.links.add(TAP)
        second = make_port(uuid=OTHER, instance=OTHER, mac="fa:16:3e:00:00:0b")
        world.domains.now = [make_domain(make_port()), make_domain(second, uuid=OTHER)]
        await world.inventory.reconcile()
        assert world.inventory.get(PORT).ifindex == ifindex
        assert world.inventory.get(OTHER).ifindex is None
        assert world.links.aliases_set == [ALIAS]


async def test_one_port_that_fails_does_not_stop_the_others() -> None:
    async with running(World()) as world:
        world.driver.refuse.add("set_port")
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        assert world.inventory.states() == []
        world.driver.refuse.clear()
        await world.inventory.reconcile()
        assert world.held()


async def test_a_port_without_policy_is_not_attached() -> None:
    async with running(World()) as world:
        world.links.add(TAP)
        world.driver.refuse.add("set_policy")
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        assert world.driver.entries[PORT].ifindex is None
        world.driver.refuse.clear()
        await world.inventory.reconcile()
        assert world.driver.entries[PORT].ifindex is not None


async def test_apply_policy_changes_what_changed() -> None:
    async with running(World()) as world:
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        world.driver.calls.clear()
        await world.inventory.apply_policy()
        assert world.driver.calls == []
        world.policy.policy = DENY_ALL
        await world.inventory.apply_policy()
        assert world.driver.policies[PORT] == DENY_ALL
        world.driver.refuse.add("set_policy")
        world.policy.policy = world.policy.policy.__class__(established="keep")
        with pytest.raises(DatapathError, match="set_policy"):
            await world.inventory.apply_policy()


async def test_adoption_touches_nothing() -> None:
    world = World()
    ifindex = world.links.add(TAP, alias=ALIAS)
    world.driver.set_port(
        PORT, instance=INSTANCE, mac=MAC, addresses=(), network=0, bridged=False,
        role=Role.ACTIVE, generation=7, quota=100,
    )  # fmt: skip
    world.driver.attach(PORT, ifindex)
    world.driver.calls.clear()
    async with running(world):
        state = world.inventory.get(TAP)
        assert (state.generation, state.tagged, state.ifindex) == (7, True, ifindex)
        await world.inventory.apply_policy()
        assert world.driver.calls == []
        world.domains.now = None
        await world.inventory.reconcile()
        assert world.driver.calls == []
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        assert world.driver.calls == [("set_port", PORT, Role.ACTIVE, 7), ("set_policy", PORT)]
        assert world.inventory.get(PORT).port.instance_name == "vm"
    assert world.events.kinds == []


async def test_what_stopped_while_the_agent_was_away_is_cleaned_up() -> None:
    world = World(linger=0.0)
    ifindex = world.links.add(TAP, alias=ALIAS)
    world.driver.set_port(
        PORT, instance=INSTANCE, mac=MAC, addresses=(), network=0, bridged=False,
        role=Role.ACTIVE, generation=7, quota=100,
    )  # fmt: skip
    world.driver.attach(PORT, ifindex)
    async with running(world):
        await world.inventory.reconcile()
        assert not world.held()
        assert world.links.alias(ifindex) == ""


async def test_subscribers_hear_of_changes_and_only_of_them() -> None:
    async with running(World()) as world:
        heard: list[int] = []
        world.inventory.subscribe(lambda: heard.append(len(world.inventory.states())))
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        await world.inventory.reconcile()
        assert heard == [1]


async def test_uplinks_come_and_go() -> None:
    async with running(World(uplinks=["up0", "up1:7"])) as world:
        first = world.links.add("up1")
        await until(lambda: world.driver.uplinks == {first: 7})
        world.links.remove(first)
        await until(lambda: world.driver.uplinks == {})
        second = world.links.add("up1")
        await until(lambda: world.driver.uplinks == {second: 7})
        await world.inventory.reconcile()
        assert [c for c in world.driver.calls if c[0] == "attach_uplink"] == [
            ("attach_uplink", first, 7),
            ("attach_uplink", second, 7),
        ]


async def test_a_start_hook_arms_the_port_before_libvirt_tells() -> None:
    async with running(World(linger=600.0)) as world:
        world.links.add(TAP)
        world.domains.now = None
        xml = make_domain(make_port()).xml
        world.bus.publish(HookCall(domain="vm", operation="start", xml=xml))
        await until(lambda: world.held() and world.inventory.get(PORT).tagged)
        assert world.role() is Role.STANDBY
        world.domains.now = [make_domain(make_port())]
        await world.inventory.reconcile()
        assert world.role() is Role.ACTIVE


async def test_a_start_that_fails_leaves_nothing() -> None:
    async with running(World(linger=0.05)) as world:
        xml = make_domain(make_port()).xml
        world.bus.publish(HookCall(domain="vm", operation="start", xml=xml))
        await until(world.held)
        world.bus.publish(HookCall(domain="vm", operation="release", xml=xml))
        await until(lambda: not world.held())


async def test_a_hook_with_hostile_xml_changes_nothing() -> None:
    async with running(World()) as world:
        world.bus.publish(HookCall(domain="vm", operation="start", xml="<!DOCTYPE d><domain/>"))
        await world.bus.drain()
        assert world.inventory.states() == []
