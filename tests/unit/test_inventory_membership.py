"""Ports make members of the groups that apply to them, at once and without a gap."""

from inventory_fakes import PORT, World, make_domain, make_port, running

from vnet_agent import config
from vnet_agent.inventory.membership import Membership
from vnet_agent.model.policy import Direction, Group, Rule
from vnet_agent.model.port import Port
from vnet_agent.policy.store import PolicyStore

SECOND = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8fa"
ASK = Rule(direction=Direction.INGRESS, remote_group="web")


def group(name, *selectors, rules=(), members=()):
    return Group(name=name, rules=rules, applies_to=selectors, members=members)


def port(uuid: str = PORT, *addresses: str, network: int = 0, **more) -> Port:
    return make_port(uuid=uuid, addresses=addresses, network=network, **more)


async def store(tmp_path, *groups) -> PolicyStore:
    made = PolicyStore(config.load([], state_dir=str(tmp_path)))
    await made.replace(groups, origin="api")
    return made


async def test_members_are_ports_to_which_the_group_applies(tmp_path) -> None:
    policy = await store(
        tmp_path,
        group("web", f"port:{PORT}", "project:acme", members=("192.0.2.0/24",)),
        group("nobody-asks", "*"),
        group("db", "*", rules=(ASK,)),
    )
    ports = [
        port(PORT, "10.0.0.1", "2001:db8::1"),
        port(SECOND, "10.0.0.2", network=7, project="acme"),
        port("other", "10.0.0.3", network=7),
    ]
    assert Membership(policy).of(ports) == {
        "web": {
            0: {"192.0.2.0/24", "10.0.0.1", "2001:db8::1"},
            7: {"192.0.2.0/24", "10.0.0.2"},
        }
    }


async def test_a_group_that_is_missing_has_no_members(tmp_path) -> None:
    policy = await store(tmp_path, group("db", "*", rules=(ASK,)))
    assert Membership(policy).of([port(PORT, "10.0.0.1")]) == {"web": {0: frozenset()}}


async def test_a_new_policy_is_looked_at_again(tmp_path) -> None:
    policy = await store(tmp_path, group("web", "*", rules=(ASK,)))
    membership = Membership(policy)
    assert membership.of([port(PORT, "10.0.0.1")]) == {"web": {0: {"10.0.0.1"}}}
    await policy.replace([group("web", rules=(ASK,)), group("db", "*")], origin="api")
    assert membership.of([port(PORT, "10.0.0.1")]) == {"web": {0: frozenset()}}


def ask(world: World) -> None:
    """All ports are in `web`, and some rule asks for it."""
    world.policy.member_groups = {"web": ()}
    world.policy.groups_of = lambda port: [group("web", "*")]


async def test_members_come_before_rules_and_go_with_the_port() -> None:
    async with running(World()) as world:
        ask(world)
        world.domains.now = [make_listed("10.0.0.1")]
        await world.inventory.reconcile()
        names = [call[0] for call in world.driver.calls]
        assert names.index("set_members") < names.index("set_policy")
        assert world.driver.members == {"web": {0: {"10.0.0.1"}}}
        before = len(world.driver.calls)
        await world.inventory.reconcile()
        assert len(world.driver.calls) == before
        await world.inventory.release(world.inventory.states()[0].port.instance, generation=1)
        assert world.driver.members == {"web": {}}


def make_listed(address: str):
    domain = make_domain(make_port())
    xml = domain.xml.replace(
        f"uuid='{PORT}'/>", f"uuid='{PORT}'><v:ip address='{address}'/></v:port>"
    )
    return type(domain)(uuid=domain.uuid, name="vm", state="running", reason="booted", xml=xml)


async def test_a_restart_takes_nobody_away_before_all_ports_are_known() -> None:
    world = World()
    ask(world)
    async with running(world):
        world.domains.now = [make_listed("10.0.0.1")]
        await world.inventory.reconcile()
    world.driver.members["web"][0].add("10.0.0.2")  # of a port that is seen later
    world.inventory = world.make()
    world.domains.now = None
    world.driver.calls.clear()
    await world.inventory.start()
    await world.inventory.apply_policy()
    assert world.driver.members == {"web": {0: {"10.0.0.1", "10.0.0.2"}}}
    world.domains.now = [make_listed("10.0.0.1")]
    await world.inventory.reconcile()
    assert world.driver.members == {"web": {0: {"10.0.0.1"}}}
    await world.inventory.close()


async def test_a_new_policy_adds_members_then_rules_then_takes_members_away() -> None:
    async with running(World()) as world:
        ask(world)
        world.domains.now = [make_listed("10.0.0.1")]
        await world.inventory.reconcile()
        world.driver.calls.clear()
        seen = []
        set_policy = world.driver.set_policy
        world.driver.set_policy = lambda *args: (
            seen.append(dict(world.driver.members["web"])),
            set_policy(*args),
        )
        world.policy.revision, world.policy.policy = "2", world.policy.policy.__class__()
        world.policy.member_groups = {"web": ("192.0.2.1",)}
        world.policy.groups_of = lambda port: []
        await world.inventory.apply_policy()
        assert seen == [{0: {"10.0.0.1", "192.0.2.1"}}]
        assert world.driver.members == {"web": {0: {"192.0.2.1"}}}


async def test_a_full_table_refuses_no_port() -> None:
    async with running(World()) as world:
        ask(world)
        world.driver.refuse = {"set_members"}
        world.domains.now = [make_listed("10.0.0.1")]
        await world.inventory.reconcile()
        assert PORT in world.driver.policies
