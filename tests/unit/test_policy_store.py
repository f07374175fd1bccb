"""The groups in force: resolved, kept over restarts, never half replaced."""

import asyncio

import pytest

from vnet_agent import config
from vnet_agent.exceptions import PolicyError
from vnet_agent.model.policy import (
    ALLOW_ALL,
    DENY_ALL,
    Direction,
    Established,
    Group,
    Policy,
    Rule,
)
from vnet_agent.model.port import Port
from vnet_agent.policy.store import PolicyStore

INSTANCE = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
PORT = Port(
    uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    instance=INSTANCE,
    instance_name="vm1",
    tap="tap1",
    mac="52:54:00:00:00:01",
    project="acme",
)
IN = Rule(direction=Direction.INGRESS, protocol="tcp", ports=(22, 22))
OUT = Rule(direction=Direction.EGRESS)


def group(name, *selectors, rules=(IN,), established=Established.RECHECK):
    return Group(name=name, rules=rules, applies_to=selectors, established=established)


@pytest.fixture
def conf(tmp_path):
    conf = config.load([], state_dir=str(tmp_path / "state"))
    conf.set_override("host", "h1")
    return conf


@pytest.fixture
def store(conf):
    return PolicyStore(conf)


@pytest.mark.parametrize(("unbound", "policy"), [("allow", ALLOW_ALL), ("deny", DENY_ALL)])
async def test_no_group_applies(conf, unbound, policy):
    conf.set_override("unbound", unbound, group="policy")
    store = PolicyStore(conf)
    await store.replace([group("a", "project:other", "port:x")], origin="api")
    assert store.resolve(PORT) == policy


@pytest.mark.parametrize(
    "selector", ["*", f"port:{PORT.uuid}", f"instance:{INSTANCE}", "project:acme"]
)
async def test_each_selector_applies(store, selector):
    await store.replace([group("a", "project:other", selector)], origin="api")
    assert store.resolve(PORT) == Policy(rules=(IN,))


async def test_the_union_keeps_order_and_has_no_rule_twice(store):
    groups = [group("a", "*", "project:acme", rules=(OUT, IN)), group("b", "*", rules=(IN,))]
    await store.replace(groups, origin="api")
    assert store.resolve(PORT).rules == (OUT, IN)


async def test_a_group_without_rules_denies(store):
    await store.replace([group("a", "*", rules=())], origin="api")
    assert store.resolve(PORT) == DENY_ALL


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [("keep", "keep", "keep"), ("keep", "recheck", "recheck"), ("recheck", "keep", "recheck")],
)
async def test_established_is_kept_only_if_all_say_so(store, first, second, together):
    groups = [
        group("a", "*", established=Established(first)),
        group("b", "project:acme", established=Established(second)),
        group("c", "project:other", established=Established.RECHECK),
    ]
    await store.replace(groups, origin="api")
    assert store.resolve(PORT).established == together


async def test_a_restart_has_it(store, conf):
    await store.replace([group("a", "*")], origin="controller")
    again = PolicyStore(conf)
    assert again.groups() == ()
    await again.load()
    assert again.groups() == store.groups()
    assert again.origin == "controller"
    assert again.resolve(PORT) == Policy(rules=(IN,))


async def test_the_hook_runs_once_for_a_change_and_sees_it(store):
    seen = []

    async def changed():
        seen.append(store.groups())

    store.on_change = changed
    groups = (group("a", "*"),)
    await store.replace(groups, origin="api")
    await store.replace(groups, origin="api")
    assert seen == [groups]


async def test_a_datapath_that_refuses_leaves_the_old(store, conf):
    await store.replace([group("old", "*")], origin="api")
    applied = []

    async def changed():
        applied.append(store.groups()[0].name)
        if applied[-1] == "new":
            raise RuntimeError("too many rules")

    store.on_change = changed
    with pytest.raises(RuntimeError, match="too many"):
        await store.replace([group("new", "*")], origin="controller")
    assert applied == ["new", "old"]
    assert store.origin == "api"
    again = PolicyStore(conf)
    await again.load()
    assert again.groups() == store.groups() == (group("old", "*"),)


async def test_a_disk_that_refuses_leaves_the_old(store, tmp_path):
    await store.replace([group("old", "*")], origin="api")
    called = []
    store.on_change = lambda: called.append(1)
    (tmp_path / "state" / ".policy.json.new").mkdir()
    with pytest.raises(PolicyError, match="cannot be written"):
        await store.replace([group("new", "*")], origin="api")
    assert store.groups()[0].name == "old"
    assert called == []


async def test_names_are_unique(store):
    with pytest.raises(PolicyError, match="twice"):
        await store.replace([group("a"), group("a")], origin="controller")
    assert store.groups() == ()


async def test_replacing_goes_on_when_the_caller_is_cancelled(store, conf):
    going, may_end = asyncio.Event(), asyncio.Event()
    applied = []

    async def changed():
        going.set()
        await may_end.wait()
        applied.append(store.groups()[0].name)

    store.on_change = changed
    task = asyncio.create_task(store.replace([group("a", "*")], origin="api"))
    await going.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_end.set()
    await store.replace([group("b", "*")], origin="api")
    assert applied == ["a", "b"]


async def test_the_file_is_loaded_at_start_and_on_request(conf, tmp_path):
    path = tmp_path / "p.yaml"
    conf.set_override("file", str(path), group="policy")
    path.write_text("groups: [{name: a, applies_to: ['*']}]")
    store = PolicyStore(conf)
    await store.load()
    assert (store.groups(), store.origin) == ((group("a", "*", rules=()),), "file")
    path.write_text("groups: [{name: a b}]")
    with pytest.raises(PolicyError, match=r"p\.yaml:1"):
        await store.load_file()
    assert store.groups()[0].name == "a"
    again = PolicyStore(conf)
    await again.load()  # the bad file is logged; what was in force is
    assert again.groups() == store.groups()


async def test_a_bad_file_with_nothing_before_it_is_no_start(conf, tmp_path):
    conf.set_override("file", str(tmp_path / "none.yaml"), group="policy")
    with pytest.raises(PolicyError, match=r"none\.yaml:1: cannot be read"):
        await PolicyStore(conf).load()


@pytest.mark.parametrize("text", ["", "{", '{"groups": 3}', '{"groups": [{"name": "a b"}]}'])
async def test_a_damaged_store_is_no_start(conf, tmp_path, text):
    path = tmp_path / "state" / "policy.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(PolicyError, match=r"policy\.json"):
        await PolicyStore(conf).load()


async def test_a_restart_is_no_change(conf, tmp_path):
    """The file stays behind what came after it, until it says something else."""
    file = tmp_path / "policy.yaml"
    file.write_text("groups: [{name: file}]")
    conf.set_override("file", str(file), group="policy")

    async def restart():
        store = PolicyStore(conf)
        await store.load()
        return store, [group.name for group in store.groups()]

    store, names = await restart()
    assert names == ["file"]
    await store.replace([group("c", "*")], origin="controller", mark="3:x")
    store, names = await restart()
    assert (names, store.origin, store.mark("controller")) == (["c"], "controller", "3:x")
    await store.load_file()
    store, names = await restart()
    assert (names, store.mark("controller")) == (["file"], "3:x")
    await store.replace([group("hand", "*")], origin="api")
    file.write_text("groups: [{name: changed}]")
    store, names = await restart()
    assert names == ["changed"]


async def test_members_elsewhere_last_over_a_restart(store, conf):
    changes = []

    async def changed():
        changes.append(store.members_elsewhere("web"))

    store.on_change = changed
    await store.replace_members({"web": {0: ("10.0.0.1",)}, "db": {0: ("10.0.0.2",)}})
    await store.add_members({"web": {7: ("10.0.0.3",)}})
    await store.add_members({"web": {7: ("10.0.0.3",)}})
    assert changes == [{0: ("10.0.0.1",)}, {7: ("10.0.0.3",)}]
    again = PolicyStore(conf)
    await again.load()
    assert again.members_elsewhere("web") == {7: ("10.0.0.3",)}
    assert again.members_elsewhere("db") == {0: ("10.0.0.2",)}
    await store.replace_members({})
    assert store.members_elsewhere("web") == {}


async def test_damaged_members_are_none(conf, tmp_path, caplog):
    path = tmp_path / "state" / "members.json"
    path.parent.mkdir()
    path.write_text('{"web": {"0": ["x"]}}')
    store = PolicyStore(conf)
    await store.load()
    assert store.members_elsewhere("web") == {}
    assert "members.json" in caplog.text
