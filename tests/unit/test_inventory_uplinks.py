"""What [datapath] uplinks may say, and what the driver is told of it."""

import pytest
from inventory_fakes import World, running, until

from vnet_agent.exceptions import ConfigError
from vnet_agent.inventory.uplink_options import Uplink, read_uplinks


def test_networks_of_an_interface() -> None:
    assert read_uplinks(["eth0", "eth1:7", "eth1:8:vlan=100", "eth2:9:vlan=100"]) == {
        "eth0": Uplink(network=0, vlans={}),
        "eth1": Uplink(network=7, vlans={100: 8}),
        "eth2": Uplink(network=None, vlans={100: 9}),
    }
    assert read_uplinks([]) == {}
    edges = read_uplinks(["eth1:1:vlan=1", "eth1:16777215:vlan=4094"])
    assert edges["eth1"].vlans == {1: 1, 4094: 16777215}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["eth1:7", "eth1:8"], r"'eth1:8': network 7 leaves eth1 untagged already"),
        (["eth1", "eth1:0:vlan=4"], r"'eth1:0:vlan=4': network 0 has an uplink already"),
        (["eth1:7", "eth2:7"], r"'eth2:7': network 7 has an uplink already"),
        (["e:7:vlan=4", "e:8:vlan=4"], r"'e:8:vlan=4': VLAN 4 of e is network 7 already"),
        (["eth1:7:vlan=0"], r"'eth1:7:vlan=0': an 802.1Q id is 1 to 4094"),
        (["eth1:7:vlan=4095"], r"'eth1:7:vlan=4095': an 802.1Q id is 1 to 4094"),
        (["eth1:16777216"], r"'eth1:16777216': a network number is at most 16777215"),
        (["eth1:vlan=3"], r"'eth1:vlan=3': it is not NAME"),
    ],
)
def test_what_no_frame_could_follow_is_refused(values: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[datapath\] uplinks: {reason}"):
        read_uplinks(values)
    with pytest.raises((ConfigError, ValueError)):
        World(uplinks=values)


async def test_the_driver_hears_of_all_networks_at_once() -> None:
    async with running(World(uplinks=["up0:8:vlan=100", "up0:7", "up1:9:vlan=1"])) as world:
        first, second = world.links.add("up0"), world.links.add("up1")
        await until(lambda: len(world.driver.uplinks) == 2)
        assert world.driver.uplinks == {first: 7, second: None}
        assert world.driver.vlans == {first: {100: 8}, second: {1: 9}}
        world.links.remove(first)
        await until(lambda: world.driver.vlans == {second: {1: 9}})
