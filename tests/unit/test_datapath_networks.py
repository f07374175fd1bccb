"""Networks that share MACs and addresses stay apart, on the host and on their uplinks."""

import frames as f
import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_bench import (
    ALONE,
    BLUE,
    BROADCAST,
    FAR,
    FLAT,
    GREEN,
    NETWORKS,
    OTHER_TRUNK,
    RED,
    TRUNK,
    VLANS,
    A,
    B,
    attach_uplinks,
    datagram,
    make_driver,
    port_name,
    run,
    set_port,
    tap,
)
from twin_switch import Port, Switch, Uplink

from vnet_agent.datapath import _flowcache as c
from vnet_agent.exceptions import DatapathError
from vnet_agent.model.port import Role


def make_twin() -> Switch:
    return Switch(
        {tap(network, mac): Port(f.mac(mac), network) for network in NETWORKS for mac in (A, B)},
        {TRUNK: Uplink(FLAT, dict(VLANS)), OTHER_TRUNK: Uplink(None, {100: GREEN})},
    )


macs = st.sampled_from([A, A, B, B, FAR, BROADCAST, "33:33:00:00:00:01"])
tags = st.lists(
    st.tuples(
        st.sampled_from([100, 200, 0, 5, 4095]),
        st.sampled_from([0, 0xE000, 0x1000]),
        st.sampled_from([f.VLAN] * 4 + [0x88A8]),
    ),
    max_size=2,
)


@given(
    ifindex=st.sampled_from([*make_twin().ports, *[TRUNK] * 5, *[OTHER_TRUNK] * 3]),
    source=st.sampled_from([A, A, B, FAR]),
    target=macs,
    stack=tags,
)
def test_core_and_twin_agree_on_who_gets_what(ifindex, source, target, stack) -> None:
    frame = datagram(source, target)
    for vlan, priority, proto in stack:
        frame = f.tagged(frame, vlan | priority, proto)
    twin = make_twin()
    if ifindex in twin.ports:
        expected = twin.from_port(ifindex, frame)
    else:
        expected = twin.from_uplink(ifindex, frame)
    got = run(make_driver(), ifindex, frame)
    assert (got if isinstance(got, str) else sorted(got)) == (
        expected if isinstance(expected, str) else sorted(expected)
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("target", [B, BROADCAST])
def test_nothing_leaks_between_networks(network: int, target: str) -> None:
    """The same MACs and addresses everywhere: only the network tells frames apart."""
    frame = datagram(A, target)
    tagged = {RED: f.tagged(frame, 100), BLUE: f.tagged(frame, 200), GREEN: f.tagged(frame, 100)}
    trunk = {FLAT: TRUNK, RED: TRUNK, BLUE: TRUNK, GREEN: OTHER_TRUNK}
    outs = [(tap(network, B), frame)]
    if target == BROADCAST and network != ALONE:
        outs.append((trunk[network], tagged.get(network, frame)))
    assert run(make_driver(), tap(network, A), frame) == outs


def test_a_frame_from_outside_is_of_its_tags_network() -> None:
    driver = make_driver()
    frame = datagram(FAR, A)
    for tag, network in ((100, RED), (200, BLUE), (0, FLAT), (0xE000, FLAT), (0xE064, RED)):
        assert run(driver, TRUNK, f.tagged(frame, tag)) == [(tap(network, A), frame)]
    assert run(driver, TRUNK, frame) == [(tap(FLAT, A), frame)]
    assert run(driver, OTHER_TRUNK, f.tagged(frame, 100)) == [(tap(GREEN, A), frame)]
    # Of no network here, so for no VM: untagged on a trunk that has tags only, tags unknown.
    for stray in (frame, f.tagged(frame, 0), f.tagged(frame, 200)):
        assert run(driver, OTHER_TRUNK, stray) == []
    for stray in (f.tagged(frame, 7), f.tagged(frame, 4095), f.tagged(frame, 100, 0x88A8)):
        assert run(driver, TRUNK, stray) == []


def test_a_second_tag_stays_and_is_refused_at_the_tap() -> None:
    driver = make_driver()
    double = f.tagged(f.tagged(datagram(FAR, A), 5), 100)
    ((ifindex, frame),) = run(driver, TRUNK, double)
    assert (ifindex, frame) == (tap(RED, A), f.tagged(datagram(FAR, A), 5))
    _, reason, _ = driver.native.process(c.TO_PORT, ifindex, frame)
    assert c.REASONS[reason] == "vlan"
    assert driver.counters(port_name(RED, A)).drops == {"vlan": 1}


def test_floods_of_a_sender_do_not_come_back_to_it() -> None:
    driver = make_driver()
    frame = datagram(A, BROADCAST)
    assert run(driver, TRUNK, f.tagged(frame, 100)) == [(tap(RED, B), frame)]
    assert run(driver, TRUNK, f.tagged(datagram(FAR, BROADCAST), 100)) == [
        (tap(RED, mac), datagram(FAR, BROADCAST)) for mac in (A, B)
    ]


def test_a_vm_that_is_elsewhere_is_behind_its_networks_tag() -> None:
    driver = make_driver()
    for role in (Role.STANDBY, Role.MOVED):
        set_port(driver, RED, B, role=role)
        frame = datagram(A, B)
        assert run(driver, tap(RED, A), frame) == [(TRUNK, f.tagged(frame, 100))]
        assert run(driver, tap(BLUE, A), frame) == [(tap(BLUE, B), frame)]
        assert run(driver, TRUNK, f.tagged(datagram(FAR, B), 100)) == []


def test_networks_move_between_uplinks_and_tags() -> None:
    driver = make_driver()
    frame = datagram(A, FAR)

    def way(network: int) -> list | str:
        return run(driver, tap(network, A), frame)

    # Untagged becomes tagged, and the other way round, on the same interface.
    driver.attach_uplink(TRUNK, network=RED, vlans={100: FLAT, 201: BLUE})
    assert way(RED) == [(TRUNK, frame)]
    assert way(FLAT) == [(TRUNK, f.tagged(frame, 100))]
    assert way(BLUE) == [(TRUNK, f.tagged(frame, 201))]
    assert run(driver, TRUNK, f.tagged(datagram(FAR, A), 200)) == []
    assert run(driver, TRUNK, f.tagged(datagram(FAR, A), 100))[0][0] == tap(FLAT, A)
    # Another interface takes some; what is left stays.
    driver.attach_uplink(OTHER_TRUNK, network=RED, vlans={5: FLAT})
    assert (way(RED), way(FLAT)) == (
        [(OTHER_TRUNK, frame)],
        [(OTHER_TRUNK, f.tagged(frame, 5))],
    )
    assert way(GREEN) == "no-destination"
    assert way(BLUE) == [(TRUNK, f.tagged(frame, 201))]
    assert run(driver, TRUNK, datagram(FAR, A)) == []
    assert run(driver, TRUNK, f.tagged(datagram(FAR, A), 100)) == []
    assert run(driver, TRUNK, f.tagged(datagram(FAR, A), 201))[0][0] == tap(BLUE, A)
    # And the last one.
    driver.attach_uplink(OTHER_TRUNK, network=BLUE)
    assert way(BLUE) == [(OTHER_TRUNK, frame)]
    assert (way(RED), way(FLAT)) == ("no-destination", "no-destination")
    items = [len(driver.native.table_items(table)) for table in (c.TABLE_VLANS, c.TABLE_SEGMENTS)]
    assert items == [0, 0]
    driver.detach_uplink(OTHER_TRUNK)
    assert way(BLUE) == "no-destination"
    attach_uplinks(driver)
    before = [driver.native.table_items(table) for table in range(11) if table < c.TABLE_VLANS + 1]
    attach_uplinks(driver)
    assert before == [
        driver.native.table_items(table) for table in range(11) if table < c.TABLE_VLANS + 1
    ]


def test_uplinks_are_there_after_close_and_open() -> None:
    driver = make_driver()
    driver.close()
    driver.open()
    frame = datagram(A, FAR)
    assert run(driver, tap(BLUE, A), frame) == [(TRUNK, f.tagged(frame, 200))]


@pytest.mark.parametrize(
    ("network", "vlans", "reason"),
    [
        (None, {}, "no network"),
        (RED, {100: RED}, "stands twice"),
        (None, {1: RED, 2: RED}, "stands twice"),
        (RED, {0: BLUE}, "0 is no VLAN: 1 to 4094"),
        (RED, {4095: BLUE}, "4095 is no VLAN"),
    ],
)
def test_uplinks_that_cannot_be(network: int | None, vlans: dict, reason: str) -> None:
    driver = make_driver()
    frame = datagram(A, FAR)
    with pytest.raises(DatapathError, match=f"attach uplink {TRUNK}.*{reason}"):
        driver.attach_uplink(TRUNK, network=network, vlans=vlans)
    assert run(driver, tap(RED, A), frame) == [(TRUNK, f.tagged(frame, 100))]


def test_a_trace_names_network_and_tag() -> None:
    driver = make_driver()
    for network, vlan in ((RED, 100), (FLAT, None)):
        traced = driver.trace(port_name(network, A), datagram(A, FAR), egress=True)
        assert traced.verdict == "forward"
        assert [(e.ifindex, e.network, e.vlan) for e in traced.out] == [(TRUNK, network, vlan)]
    traced = driver.trace(port_name(RED, A), datagram(A, B), egress=True)
    assert [(e.network, e.vlan) for e in traced.out] == [(None, None)]
