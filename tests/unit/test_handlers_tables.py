"""Tables of handlers: kept over restarts, never half in force, and following the ports."""

import asyncio
import struct

import pytest
from handler_documents import PORTS, Places

from vnet_agent import config
from vnet_agent.datapath.handlers import decompile_rule
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.exceptions import DatapathError, HandlerError, TableChanged, UnknownRule
from vnet_agent.handlers import document, enforce, tables
from vnet_agent.handlers.tables import Tables
from vnet_agent.model.handler import Handler, Miss, Origin, TableDocument
from vnet_agent.model.port import Port, PortState, Role

VM = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
PORT, OTHER = PORTS[3], PORTS[4]


def state(uuid, local_id):
    port = Port(
        uuid=uuid, instance=VM, instance_name="vm", tap=f"tap{local_id}", mac="52:54:00:00:00:01"
    )
    return PortState(
        port=port, role=Role.ACTIVE, generation=1, ifindex=7, tagged=True, local_id=local_id
    )


class Inventory:
    def __init__(self):
        self.ports = {}
        self.callbacks = []

    def states(self):
        return [state(uuid, local_id) for uuid, local_id in self.ports.items()]

    def subscribe(self, callback):
        self.callbacks.append(callback)

    def set(self, **ports):
        self.ports = {PORTS[int(number[1:])]: local_id for number, local_id in ports.items()}
        for callback in self.callbacks:
            callback()


class World:
    def __init__(self, directory):
        self.conf = config.load([], state_dir=str(directory))
        self.driver = MemoryDriver()
        self.driver.open()
        self.inventory = Inventory()
        self.groups = {}
        self.tables = None

    async def restart(self):
        if self.tables is not None:
            await self.tables.close()
        self.tables = Tables(
            self.conf,
            driver=self.driver,
            inventory=self.inventory,
            groups_of=lambda port: [
                name for name, ports in self.groups.items() if port.uuid in ports
            ],
        )
        await self.tables.start()

    def held(self, table=0, names=PORTS):
        """What the driver holds, in the order in which it came."""
        found = {state.table: state for state in self.driver.tables()}
        if table not in found:
            return []
        return [decompile_rule(rule, names) for rule in found[table].rules.values()]

    async def settle(self):
        for _ in range(3):  # the follower wakes, and takes the lock
            await asyncio.sleep(0)
        async with self.tables._lock:
            pass


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.restart()
    yield world
    await world.tables.close()
    world.driver.destroy()


def rule(*actions, priority=5, cookie=0, **match):
    value = {"priority": priority, "match": match, "actions": list(actions or ["drop"])}
    return document.rule_from_json(value | {"cookie": cookie}, 0)[1]


def doc(*rules, miss=Miss.CONTINUE):
    return TableDocument(rules=rules, miss=miss)


ONE, TWO = rule(ip_proto="tcp", tcp_dst=25), rule(ip_proto="udp", udp_dst=53, priority=9)


async def replace(world, *rules, table=0, **how):
    return await world.tables.replace(
        table, doc(*rules, miss=how.pop("miss", Miss.CONTINUE)), origin=Origin.OPERATOR, **how
    )


async def add(world, *rules, table=0, **how):
    return await world.tables.add(table, rules, origin=Origin.OPERATOR, **how)


async def test_a_table_is_in_force_and_survives(world):
    await replace(world, ONE, TWO, miss=Miss.DROP)
    assert world.held() == [ONE, TWO]
    assert world.driver.tables()[0].miss is Miss.DROP
    world.driver.replace_table(0, [], Miss.CONTINUE)
    world.driver.replace_table(7, [], Miss.DROP)
    await world.restart()
    assert world.held() == [ONE, TWO]
    content = world.tables.content(0)
    assert [item.id for item in content.rules.values()] == [1, 2]
    assert (content.miss, content.revision) == (Miss.DROP, 1)
    assert [held.table for held in world.driver.tables()] == [0]


async def test_the_order_is_by_priority(world):
    await replace(world, ONE, TWO)
    assert [item.handler for item in world.tables.ordered(0)] == [TWO, ONE]
    await world.tables.delete(0, 2)
    assert [item.handler for item in world.tables.ordered(0)] == [ONE]


async def test_rules_that_stay_keep_their_ids(world):
    await replace(world, ONE, TWO)
    third = rule("normal")
    await replace(world, TWO, third)
    assert {item.handler: item.id for item in world.tables.ordered(0)} == {TWO: 2, third: 3}
    await world.tables.clear(0)
    assert world.held() == []
    (fresh,) = await add(world, ONE)
    assert fresh.id == 4


async def test_one_rule_more_and_less(world):
    (first,) = await add(world, ONE)
    (second,) = await add(world, TWO)
    assert world.held() == [ONE, TWO]
    assert await world.tables.delete(0, first.id) == first
    assert world.held() == [TWO]
    with pytest.raises(UnknownRule, match="Table 0 has no rule 1"):
        await world.tables.delete(0, first.id)
    await world.restart()
    assert world.held() == [TWO]
    assert world.tables.ordered(0) == [second]


async def test_the_same_match_is_one_rule(world):
    changed = rule("normal", ip_proto="tcp", tcp_dst=25)
    first, again, other = await add(world, ONE, ONE, changed)
    assert first == again
    assert other.id == 2
    assert world.held() == [changed]
    revision = world.tables.content(0).revision
    assert await add(world, changed) == [other]
    assert world.tables.content(0).revision == revision
    (last,) = await add(world, ONE)
    assert world.held() == [ONE]
    assert world.tables.ordered(0) == [last]


async def test_a_change_is_for_what_was_seen(world):
    content = await replace(world, ONE)
    await add(world, TWO, revision=content.revision)
    for change in (
        replace(world, revision=content.revision),
        add(world, rule(), revision=content.revision),
        world.tables.delete(0, 1, revision=content.revision),
    ):
        with pytest.raises(TableChanged):
            await change
    assert world.held() == [ONE, TWO]


class Refusing:
    """The driver refuses the call after `left` more."""

    def __init__(self, world, name, left=0):
        self.world, self.name, self.left = world, name, left
        self.real = getattr(world.driver, name)

    def __enter__(self):
        def call(*args):
            self.left -= 1
            if self.left < 0:
                raise DatapathError(operation=self.name, detail="no")
            return self.real(*args)

        setattr(self.world.driver, self.name, call)

    def __exit__(self, *_):
        delattr(self.world.driver, self.name)


@pytest.mark.parametrize(
    ("name", "left", "change"),
    [
        ("replace_table", 0, lambda world: replace(world, TWO)),
        ("insert_rule", 0, lambda world: add(world, rule(), TWO)),
        ("insert_rule", 1, lambda world: add(world, rule(), TWO)),
        ("delete_rule", 0, lambda world: world.tables.delete(0, 1)),
        ("delete_rule", 0, lambda world: add(world, rule("normal", ip_proto="tcp", tcp_dst=25))),
    ],
)
async def test_what_the_driver_refuses_changes_nothing(world, name, left, change):
    await replace(world, ONE)
    before = world.tables.content(0)
    with Refusing(world, name, left), pytest.raises(DatapathError):
        await change(world)
    assert world.tables.content(0) is before
    assert world.held() == [ONE]
    await world.restart()
    assert world.held() == [ONE]
    await world.tables.delete(0, 1)
    assert world.held() == []


async def test_what_cannot_be_written_changes_nothing(world, tmp_path):
    await replace(world, ONE)
    directory = tmp_path / "tables"
    directory.rename(tmp_path / "away")
    directory.touch()
    with pytest.raises(HandlerError, match="cannot be written"):
        await replace(world, TWO)
    assert world.held() == [ONE]


@pytest.mark.parametrize(
    "text", ["", "{}", '{"table": 1}', '{"table": 0, "rules": {"1": 3}}', "\udcff"]
)
async def test_a_damaged_file_is_no_empty_table(world, tmp_path, text):
    await replace(world, ONE)
    (tmp_path / "tables" / "0.json").write_text(text, errors="surrogateescape")
    with pytest.raises(HandlerError, match=r"0\.json"):
        await world.restart()


async def test_all_tables_together_have_a_bound(world, monkeypatch):
    for module in (tables, enforce):
        monkeypatch.setattr(module, "MAX_RULES", 3)
    await replace(world, ONE, TWO)
    await replace(world, ONE, table=1)
    with pytest.raises(HandlerError, match="that makes 4 rules"):
        await add(world, rule())
    with pytest.raises(HandlerError, match="that makes 4 rules"):
        await replace(world, ONE, TWO, table=1)
    await world.tables.clear(0)
    await add(world, rule(ip_proto="udp", udp_dst="0x0/0xfffd"), table=0)
    with pytest.raises(HandlerError, match="that makes 5 rules in the datapath"):
        await add(world, rule(ip_proto="udp", udp_src="0x0/0xfffd"), table=0)
    assert len(world.held(0)) == 2


async def test_a_rule_waits_for_its_port(world):
    bound = rule({"output": OTHER}, in_port=PORT)
    await replace(world, bound, ONE)
    assert world.held() == [ONE]
    assert world.tables.is_waiting(0, 1)
    assert not world.tables.is_waiting(0, 2)
    assert world.tables.count_waiting(0) == 1
    world.inventory.set(p3=3)
    await world.settle()
    assert world.held() == [ONE]
    world.inventory.set(p3=3, p4=4)
    await world.settle()
    assert world.held() == [ONE, bound]
    assert world.tables.count_waiting(0) == 0
    world.inventory.set(p4=4)
    await world.settle()
    assert world.held() == [ONE]
    await world.restart()
    assert world.held() == [ONE]
    assert world.tables.is_waiting(0, 1)


async def test_a_port_that_comes_back_has_another_id(world):
    world.inventory.set(p3=3)
    bound = rule(in_port=PORT)
    await add(world, bound)
    world.inventory.set(p3=9)
    await world.settle()
    assert world.held(names={9: PORT}) == [bound]


async def test_a_vm_is_all_its_ports(world):
    await replace(world, rule(instance=VM), ONE)
    assert world.held() == [ONE]
    world.inventory.set(p3=3, p4=4)
    await world.settle()
    assert [item.match.in_port for item in world.held()] == [None, PORT, OTHER]
    world.inventory.set(p4=4)
    await world.settle()
    assert [item.match.in_port for item in world.held()] == [None, OTHER]
    await world.tables.delete(0, 1)
    assert world.held() == [ONE]


@pytest.mark.parametrize(("name", "left"), [("insert_rule", 1), ("delete_rule", 0)])
async def test_a_change_of_ports_that_fails_is_made_later(world, name, left):
    world.inventory.set(p3=3)
    await replace(world, rule(instance=VM))
    with Refusing(world, name, left):
        world.inventory.set(p3=8, p4=4)
        await world.settle()
    world.inventory.set(p3=8, p4=4)
    await world.settle()
    held = world.driver.tables()[0].rules.values()
    assert sorted(struct.unpack_from("<I", item.match, 40)[0] for item in held) == [4, 8]


async def test_changes_are_made_one_at_a_time(world):
    await asyncio.gather(
        *(add(world, rule(ip_proto="tcp", tcp_dst=port)) for port in range(20)),
        replace(world, TWO, table=1),
    )
    assert len(world.held()) == 20
    assert sorted(world.tables.content(0).rules) == list(range(1, 21))
    assert world.held(1) == [TWO]


async def test_a_group_is_the_ports_that_it_applies_to(world):
    await replace(world, rule(group="web"), ONE)
    assert world.held() == [ONE]
    assert world.tables.is_waiting(0, 1)
    world.inventory.set(p3=3, p4=4)
    await world.settle()
    assert world.held() == [ONE], "the group applies to neither"
    for members, ports in (([PORT], [PORT]), ([PORT, OTHER], [PORT, OTHER]), ([], [])):
        world.groups["web"] = members
        world.tables.notice_groups()
        await world.settle()
        assert world.held() == [ONE, *(rule(in_port=port) for port in ports)]


async def test_a_caller_that_goes_leaves_it_whole(world):
    task = asyncio.create_task(replace(world, ONE))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with world.tables._lock:
        pass
    held = [item.handler for item in world.tables.content(0).rules.values()]
    assert world.held() == held


def test_what_is_here_has_the_shape_that_compiling_needs():
    here = enforce.Here([state(PORT, 3), state(OTHER, None)])
    assert (here.local_id(PORT), here.local_id(OTHER)) == (3, None)
    assert here.ids_of(VM) == [3]
    assert isinstance(rule(), Handler)
    assert Places().ids_of(VM) == [3, 4]
