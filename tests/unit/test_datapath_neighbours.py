"""A VM that asks who has a known address is told; all other questions go to everybody."""

import ipaddress

import frames as f
import network_bench as n
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from network_bench import (
    A4,
    A6,
    B4,
    B6,
    BROADCAST,
    FAR,
    NETWORKS,
    RED,
    A,
    B,
    arp,
    group_of,
    solicit,
    tap,
)
from twin import EGRESS, Twin
from twin_neighbour import checksum
from twin_switch import Port, Switch, Uplink

from vnet_agent import config
from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.loader import load_driver
from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import Role

SHARED = "10.0.0.100"


@pytest.fixture
def driver():
    return n.make_driver(answers=True)


def floods(driver, frame: bytes, network: int = RED) -> bool:
    """Whether everybody is asked: the other port of the network, and outside."""
    outs = n.run(driver, tap(network, A), frame)
    return outs == [(tap(network, B), frame), (n.TRUNK, f.tagged(frame, 100))]


def test_arp_is_answered(driver) -> None:
    ((ifindex, reply),) = n.run(driver, tap(RED, A), arp(A4, B4))
    assert ifindex == tap(RED, A)
    body = f.arp(B, B4, A4, op=2)
    assert reply == f.ether(B, A, f.ARP, body[:18] + f.mac(A) + body[24:]).ljust(60, b"\0")
    # Bytes behind the question are no part of the answer.
    assert n.run(driver, tap(RED, A), arp(A4, B4) + b"x" * 100) == [(ifindex, reply)]
    # Whoever looks whether an address is free hears that it is not.
    ((_, reply),) = n.run(driver, tap(RED, A), arp("0.0.0.0", B4))
    assert (reply[28:32], reply[38:42]) == (f.address(B4), bytes(4))


def test_discovery_is_answered(driver) -> None:
    ((ifindex, reply),) = n.run(driver, tap(RED, A), solicit(A6, B6))
    assert (ifindex, len(reply)) == (tap(RED, A), 86)
    assert reply[:14] == f.mac(A) + f.mac(B) + b"\x86\xdd"
    assert reply[14:22] == b"\x60\0\0\0\0\x20\x3a\xff"
    assert reply[22:54] == f.address(B6) + f.address(A6)
    # Solicited and override, but no router; the target with its MAC.
    assert (reply[54:56], reply[58:62]) == (b"\x88\0", b"\x60\0\0\0")
    assert reply[62:] == f.address(B6) + b"\2\1" + f.mac(B)
    # The sum over everything, the sum included, is all ones.
    assert checksum(reply[22:86] + b"\0\0\0\x20\0\0\0\x3a") == b"\0\0"
    # Neither options, nor what is behind the packet, change it.
    for question in (
        solicit(A6, B6, option=None),
        solicit(A6, B6, more=b"\x0e\1nonce."),
        solicit(A6, B6) + b"padding",
    ):
        assert n.run(driver, tap(RED, A), question) == [(ifindex, reply)]


def test_a_duplicate_is_told_to_all_nodes() -> None:
    """From :: only a port whose addresses are not known may look for another's address."""
    driver = n.make_driver(answers=True)
    probe = solicit("::", B6, option=None)
    _, reason, _ = driver.native.process(c.FROM_PORT, tap(RED, A), probe)
    assert c.REASONS[reason] == "nd-spoof"
    n.set_port(driver, RED, A, addresses=())
    ((ifindex, reply),) = n.run(driver, tap(RED, A), probe)
    assert (ifindex, reply[:6]) == (tap(RED, A), f.mac("33:33:00:00:00:01"))
    assert (reply[38:54], reply[58]) == (f.address("ff02::1"), 0x20)
    assert checksum(reply[22:86] + b"\0\0\0\x20\0\0\0\x3a") == b"\0\0"
    action, _, _ = driver.native.process(c.TO_PORT, ifindex, reply)
    assert action == c.PASS


def test_an_answer_is_not_refused_on_its_way_back(driver) -> None:
    for question in (arp(A4, B4), arp("0.0.0.0", B4), solicit(A6, B6)):
        ((ifindex, reply),) = n.run(driver, tap(RED, A), question)
        action, _, _ = driver.native.process(c.TO_PORT, ifindex, reply)
        assert action == c.PASS
    counters = driver.counters(n.port_name(RED, A))
    assert (counters.tx_frames, counters.rx_frames, counters.drops) == (3, 3, {})


@pytest.mark.parametrize(
    "frame",
    [
        arp(A4, "10.0.0.77"),  # nobody here
        arp(A4, A4),  # an announcement
        arp("0.0.0.0", A4),  # whether its own is free
        arp(A4, B4, op=2),  # an answer of its own
        solicit(A6, "2001:db8::77"),
        solicit("::", A6, option=None),
        solicit(A6, B6, to="ff02::1"),  # not to the solicited node
        f.ether(A, BROADCAST, f.IPV4, f.ipv4(A4, B4, f.UDP, f.udp(1, 2))),
        f.ether(
            A,
            "33:33:00:00:00:01",
            f.IPV6,
            f.ipv6(A6, "ff02::1", f.ICMPV6, f.discovery(136, A6, A, 2), hops=255),
        ),
    ],
)
def test_other_frames_go_to_everybody(driver, frame: bytes) -> None:
    assert floods(driver, frame)


def test_a_target_behind_the_end_of_the_packet_is_none(driver) -> None:
    n.set_port(driver, RED, A, addresses=())
    for length in (8, 23):
        packet = f.ipv6(A6, group_of(B6), f.ICMPV6, f.discovery(135, B6), hops=255, length=length)
        assert floods(driver, f.ether(A, "33:33:ff:00:00:0b", f.IPV6, packet))


def test_who_asks_one_neighbour_asks_that_one(driver) -> None:
    """Whether it is alive, and has the address still."""
    for frame in (arp(A4, B4, target=B), solicit(A6, B6, to=B6, target=B)):
        assert n.run(driver, tap(RED, A), frame) == [(tap(RED, B), frame)]


def test_networks_do_not_know_each_others_neighbours(driver) -> None:
    n.set_port(driver, RED, B, addresses=("10.0.0.3",))
    assert floods(driver, arp(A4, B4))
    ((_, reply),) = n.run(driver, tap(RED, A), arp(A4, "10.0.0.3"))
    assert reply[6:12] == f.mac(B)
    frame = arp(A4, "10.0.0.3")
    assert n.run(driver, tap(n.ALONE, A), frame) == [(tap(n.ALONE, B), frame)]


def test_without_the_option_everybody_is_asked() -> None:
    driver = n.make_driver()
    assert floods(driver, arp(A4, B4))
    assert floods(driver, solicit(A6, B6))


def test_the_option_reaches_the_ports() -> None:
    for wanted in (True, False):
        conf = config.load([])
        conf.set_override("driver", "memory", group="datapath")
        conf.set_override("answer_neighbours", wanted, group="datapath")
        driver = load_driver(conf)
        driver.open()
        n.set_port(driver, RED, A)
        (port,) = driver.native.ports()
        assert bool(layout.number("port", "flags", port) & c.PORT_ANSWERED) is wanted


def bindings(driver) -> dict[tuple[int, str], str]:
    return {
        (
            layout.number("binding_key", "network", key),
            layout.unpack_address(layout.raw("binding_key", "address", key)),
        ): layout.unpack_mac(layout.number("binding", "mac", value))
        for key, value in driver.native.table_items(c.TABLE_BINDINGS)
    }


def test_bindings_follow_ports(driver) -> None:
    whole = {
        (network, address): mac
        for network in NETWORKS
        for mac, addresses in n.MACS.items()
        for address in addresses
    }
    assert bindings(driver) == whole
    # Wherever the VM runs, its MAC is the same: a move changes no answer.
    for role in (Role.STANDBY, Role.MOVED, Role.ACTIVE):
        n.set_port(driver, RED, B, role=role)
        assert bindings(driver) == whole
        ((_, reply),) = n.run(driver, tap(RED, A), arp(A4, B4))
        assert reply[6:12] == f.mac(B)
    driver.detach(n.port_name(RED, B))
    assert bindings(driver) == whole
    driver.remove_port(n.port_name(RED, B), generation=1)
    assert bindings(driver) == {k: v for k, v in whole.items() if (k[0], v) != (RED, B)}
    frame = arp(A4, B4)
    assert n.run(driver, tap(RED, A), frame) == [(n.TRUNK, f.tagged(frame, 100))]


def test_a_shared_address_is_nobodys(driver) -> None:
    n.set_port(driver, RED, A, addresses=(A4, SHARED))
    n.set_port(driver, RED, B, addresses=(B4, SHARED))
    n.set_port(driver, n.BLUE, B, addresses=(B4, SHARED))
    assert (RED, SHARED) not in bindings(driver)
    assert bindings(driver)[n.BLUE, SHARED] == B
    assert floods(driver, arp(A4, SHARED))
    n.set_port(driver, RED, A)
    assert bindings(driver)[RED, SHARED] == B
    ((_, reply),) = n.run(driver, tap(RED, A), arp(A4, SHARED))
    assert reply[6:12] == f.mac(B)


def test_bindings_are_made_true_when_the_datapath_is_adopted(driver) -> None:
    whole = bindings(driver)
    native = driver.native
    place = layout.pack("binding_key", network=RED, address=layout.pack_address(B4))
    strays = [
        (1, 99),  # of a port that is gone
        (2, 0),  # of another host: not this host's to remove
    ]
    native.table_remove(c.TABLE_BINDINGS, place)
    for last, local_id in strays:
        key = layout.pack("binding_key", network=1, address=bytes(15) + bytes([last]))
        value = layout.pack("binding", mac=last, local_id=local_id)
        native.table_put(c.TABLE_BINDINGS, key, value)
    driver.close()
    driver.open()
    remote = {(1, "::2"): "02:00:00:00:00:00"}
    assert bindings(driver) == whole | remote


def test_a_router_is_called_one(driver) -> None:
    key = layout.pack("binding_key", network=RED, address=layout.pack_address("2001:db8::77"))
    value = layout.pack("binding", mac=layout.pack_mac(FAR), flags=c.BINDING_ROUTER)
    driver.native.table_put(c.TABLE_BINDINGS, key, value)
    ((_, reply),) = n.run(driver, tap(RED, A), solicit(A6, "2001:db8::77"))
    assert (reply[6:12], reply[58]) == (f.mac(FAR), 0xE0)
    assert checksum(reply[22:86] + b"\0\0\0\x20\0\0\0\x3a") == b"\0\0"


def test_bridged_ports_neither_ask_nor_are_known(driver) -> None:
    driver.set_port(
        n.port_name(RED, B),
        instance=n.INSTANCE,
        mac=B,
        addresses=(B4,),
        network=RED,
        bridged=True,
        role=Role.ACTIVE,
        generation=1,
        quota=64,
    )
    assert (RED, B4) not in bindings(driver)
    frame = arp(B4, A4, mac=B)
    action, _, outs = driver.native.process(c.FROM_PORT, tap(RED, B), frame)
    assert (action, outs) == (c.PASS, ())


def test_a_trace_calls_it_an_answer(driver) -> None:
    traced = driver.trace(n.port_name(RED, A), arp(A4, B4), egress=True)
    assert traced.verdict == "answer"
    assert [item.port for item in traced.out] == [n.port_name(RED, A)]
    assert driver.trace(n.port_name(RED, A), arp(A4, A4), egress=True).verdict == "forward"


# -- against the twin

people4 = st.sampled_from([A4, B4, "10.0.0.77", "0.0.0.0", SHARED])
people6 = st.sampled_from([A6, B6, "2001:db8::77", "::", "fe80::1"])
everybody = st.sampled_from([BROADCAST, BROADCAST, "33:33:ff:00:00:0b", B, A])
arps = st.builds(
    lambda sender, asked, op, target, rest: arp(sender, asked, op=op, target=target) + rest,
    people4,
    people4,
    st.sampled_from([1, 1, 1, 2, 3]),
    everybody,
    st.sampled_from([b"", b"\0" * 18, b"x" * 60]),
)
solicits = st.builds(
    lambda source, asked, to, option, more, target, rest: (
        solicit(source, asked, to=to, option=option, more=more, target=target) + rest
    ),
    people6,
    people6,
    st.sampled_from([None, None, None, "ff02::1", B6, "ff02::1:ff00:b"]),
    st.sampled_from([A, A, None, B]),
    st.sampled_from([b"", b"", b"\x0e\1nonce.", b"\x0e\2" + bytes(14), b"\x0e\0nonce."]),
    everybody,
    st.sampled_from([b"", b"rest"]),
)


#: Its reserved field (RFC 4861, 4.3) is not zero, as it must be in the answer.
RESERVED = {
    "question": solicit(A6, B6, option=A),
    "network": RED,
    "known": False,
    "shared": False,
    "change": (59, b"\1"),
    "damage": True,
    "cut": 0,
}


@example(**RESERVED)
@given(
    question=st.one_of(arps, solicits),
    network=st.sampled_from([RED, n.ALONE]),
    known=st.booleans(),
    shared=st.booleans(),
    change=st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=1)),
    damage=st.booleans(),
    cut=st.sampled_from([0, 0, 0, 1, 9, 30]),
)
def test_core_and_twin_agree_on_answers(
    question, network, known, shared, change, damage, cut
) -> None:
    if damage and change[0] < len(question):
        question = question[: change[0]] + change[1] + question[change[0] + 1 :]
    question = question[: len(question) - cut]
    driver = n.make_driver(answers=True)
    own = {A: (*n.MACS[A], SHARED) if known else (), B: n.MACS[B]}
    if shared:
        own[B] = (*n.MACS[B], SHARED)
    for mac, addresses in own.items():
        n.set_port(driver, network, mac, addresses=addresses)
    switch = Switch(
        {
            tap(network, mac): Port(
                f.mac(mac), network, tuple(ipaddress.ip_address(item) for item in addresses)
            )
            for mac, addresses in own.items()
        },
        {n.TRUNK: Uplink(n.FLAT, dict(n.VLANS))},
        answers=True,
    )
    reason = Twin(A, own[A], ALLOW_ALL).process(EGRESS, question, 1)
    expected = switch.from_port(tap(network, A), question) if reason == "none" else reason
    got = n.run(driver, tap(network, A), question)
    assert got == expected, question.hex()
