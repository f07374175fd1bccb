"""Frames that wait for earlier ones, and those that come late, in the core."""

import frames as f
from network_bench import BROADCAST, FAR, FLAT, TRUNK, A, B, datagram, make_driver, port_name, tap

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.model.port import Role

ROOM = 950
PORT = port_name(FLAT, B)


def to_vm(driver: MemoryDriver) -> tuple[int, int]:
    """What becomes of a frame at the VM's tap: action, and where it goes."""
    frame = datagram(A, B)
    action, _, out = driver.native.run(c.TO_PORT, tap(FLAT, B), frame)
    return action, out[0][0] if out else 0


def held(driver: MemoryDriver) -> bool:
    action, way = to_vm(driver)
    assert (action, way) in ((c.REDIRECT, ROOM), (c.PASS, 0))
    return action == c.REDIRECT


def test_held_as_long_as_somebody_asks_for_it() -> None:
    driver = make_driver()
    holding = driver.holding(PORT)
    assert not held(driver)
    holding.begin(ROOM)
    assert not held(driver)
    holding.extend(60)
    assert held(driver)
    assert holding.held() == 1
    holding.extend(-1)
    assert not held(driver)
    holding.extend(60)
    holding.end()
    assert not held(driver)


def test_straight_once_all_have_gone_on() -> None:
    driver = make_driver()
    holding = driver.holding(PORT)
    holding.begin(ROOM)
    holding.extend(60)
    assert held(driver)
    assert held(driver)
    holding.drain()
    assert held(driver)
    holding.sent_on(2)
    assert held(driver)
    holding.sent_on(4)
    assert not held(driver)
    assert not held(driver)
    assert holding.held() == 4


def test_change_of_the_port_does_not_end_it() -> None:
    driver = make_driver()
    driver.holding(PORT).begin(ROOM)
    driver.holding(PORT).extend(60)
    driver.set_port(
        PORT, instance=PORT, mac=B, addresses=("10.0.0.2",), network=FLAT, bridged=False,
        role=Role.ACTIVE, generation=2, quota=64,
    )  # fmt: skip
    assert held(driver)


def test_dead_agents_hold_is_ended() -> None:
    driver = make_driver()
    driver.holding(PORT).begin(ROOM)
    driver.holding(PORT).extend(60)
    driver.holding(PORT).relay(wanted=True)
    driver.close()
    driver.open()
    assert not held(driver)


def moved(driver: MemoryDriver) -> None:
    driver.set_port(
        PORT, instance=PORT, mac=B, addresses=("10.0.0.2",), network=FLAT, bridged=False,
        role=Role.MOVED, generation=2, quota=64,
    )  # fmt: skip


def test_late_frames_from_outside_follow() -> None:
    driver = make_driver()
    moved(driver)
    late = datagram(FAR, B)

    def from_outside() -> list[int]:
        return [way for way, _ in driver.native.run(c.FROM_UPLINK, TRUNK, late)[2] if way]

    def from_here() -> list[int]:
        return [way for way, _ in driver.native.run(c.FROM_PORT, tap(FLAT, A), datagram(A, B))[2]]

    assert from_outside() == []
    driver.holding(PORT).relay(wanted=True)
    assert from_outside() == [tap(FLAT, B)]
    assert from_here() == [TRUNK]
    driver.holding(PORT).relay(wanted=False)
    assert from_outside() == []


def test_vm_that_speaks_elsewhere_is_noticed() -> None:
    driver = make_driver()
    holding = driver.holding(PORT)
    announcement = f.ether(B, BROADCAST, f.RARP, bytes(46))
    driver.native.run(c.FROM_UPLINK, TRUNK, announcement)
    assert not holding.seen_outside()
    holding.relay(wanted=True)
    assert not holding.seen_outside()
    driver.native.run(c.FROM_UPLINK, TRUNK, announcement)
    assert holding.seen_outside()
