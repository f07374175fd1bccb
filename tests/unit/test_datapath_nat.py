"""Translation: what leaves for what came, whom policy judges, and what stays behind."""

import frames as f
import pytest
from datapath_bench import (
    IN_TCP_80,
    OUT_ALL,
    PEER,
    PEER4,
    PEER6,
    PORT,
    TAP,
    UPLINK,
    VM,
    VM4,
    VM6,
    Bench,
    policy,
)
from test_tables_driver import compiled, load
from twin_sums import seal

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.base import FlowFilter, Translated
from vnet_agent.datapath.records import NAT, without_translations
from vnet_agent.exceptions import RecordError
from vnet_agent.model.handler import Miss
from vnet_agent.model.policy import Direction, Rule

OUTER, OUTER6 = "203.0.113.7", "2001:db8:ffff::7"
VIP, VIP6 = "10.0.0.100", "2001:db8::100"
TCP = {"eth_type": "ipv4", "ip_proto": "tcp"}
UDP = {"eth_type": "ipv4", "ip_proto": "udp"}


def rule(direction, match=TCP, **actions):
    """A rule for a direction that translates, and goes on."""
    wanted = [{name: value} for name, value in actions.items()]
    return {"match": {"direction": direction, **match}, "actions": [*wanted, "normal"]}


class World(Bench):
    """`sent` and `got` are what becomes of a frame from the VM and to it: the frame, or the reason
    of the drop."""

    def __init__(self, *rules, **rest):
        super().__init__(**rest)
        load(self.driver, 0, *rules)

    def _through(self, hook, place, frame):
        action, reason, outs = self.native.run(hook, TAP, frame)
        if action == c.DROP:
            assert outs == []
            return c.REASONS[reason]
        ((where, data),) = outs
        assert where == place
        return data

    def sent(self, packet):
        return self._through(c.FROM_PORT, UPLINK, frame(VM, PEER, packet))

    def got(self, packet):
        return self._through(c.TO_PORT, 0, frame(PEER, VM, packet))

    def entries(self):
        return sorted(self.driver.connections(PORT), key=lambda item: (item.state, item.local))


def frame(source, target, packet):
    ethertype = f.IPV6 if packet[0] >> 4 == 6 else f.IPV4
    return seal(f.ether(source, target, ethertype, packet))


def outwards(packet):
    return frame(VM, PEER, packet)


def inwards(packet):
    return frame(PEER, VM, packet)


def tcp(source, destination, sport, dport, flags=f.ACK, payload=b"data"):
    return f.ipv4(source, destination, f.TCP, f.tcp(sport, dport, flags, payload))


def udp(source, destination, sport, dport, payload=b"data"):
    return f.ipv4(source, destination, f.UDP, f.udp(sport, dport, payload))


def open_tcp(world, name, other, *, inner=VM4, remote=PEER4, sport=4000, dport=80):
    """A handshake that the VM begins as `inner` to `remote`, and that others see as `name`."""
    (own, port), (peer, peer_port) = name, other
    for flags, is_out in ((f.SYN, True), (f.SYN | f.ACK, False), (f.ACK, True)):
        if is_out:
            said = world.sent(tcp(inner, remote, sport, dport, flags, b""))
            assert said == outwards(tcp(own, peer, port, peer_port, flags, b""))
        else:
            said = world.got(tcp(peer, own, peer_port, port, flags, b""))
            assert said == inwards(tcp(remote, inner, dport, sport, flags, b""))


def test_a_source_becomes_another_and_comes_back():
    world = World(rule("egress", snat=OUTER))
    open_tcp(world, (OUTER, 4000), (PEER4, 80))
    conn, from_vm, to_vm = world.entries()
    assert (conn.state, conn.local, conn.remote) == ("established", VM4, PEER4)
    assert (to_vm.state, to_vm.local, to_vm.translated.local) == ("nat", OUTER, VM4)
    assert (from_vm.local, from_vm.translated.way) == (VM4, "egress")
    assert (from_vm.translated.local, from_vm.translated.remote) == (OUTER, PEER4)
    assert (from_vm.translated.local_port, from_vm.translated.remote_port) == (4000, 80)


def test_a_destination_becomes_another_and_policy_judges_that():
    backends = policy(Rule(direction=Direction.EGRESS, remote="10.0.0.2/32"))
    vip = {"address": PEER4, "port": 8080}
    world = World(rule("egress", {**TCP, "ip_dst": VIP}, dnat=vip), policy=backends)
    open_tcp(world, (VM4, 4000), (PEER4, 8080), remote=VIP)
    assert world.sent(tcp(VM4, "10.0.0.101", 4001, 80, f.SYN)) == "policy"


def test_a_floating_address_leads_to_the_vm_and_back():
    world = World(rule("ingress", {**TCP, "ip_dst": OUTER}, dnat=VM4), policy=policy(IN_TCP_80))
    assert world.got(tcp(PEER4, OUTER, 4000, 80, f.SYN)) == inwards(
        tcp(PEER4, VM4, 4000, 80, f.SYN)
    )
    assert world.sent(tcp(VM4, PEER4, 80, 4000, f.SYN | f.ACK)) == outwards(
        tcp(OUTER, PEER4, 80, 4000, f.SYN | f.ACK)
    )
    # Without translation the same stays what it is.
    assert world.got(tcp(PEER4, VM4, 4001, 80, f.SYN)) == inwards(tcp(PEER4, VM4, 4001, 80, f.SYN))
    assert world.sent(tcp(VM4, PEER4, 80, 4001, f.SYN | f.ACK)) == outwards(
        tcp(VM4, PEER4, 80, 4001, f.SYN | f.ACK)
    )


def test_a_peer_is_shown_as_another_one():
    shown = {"address": VIP, "port": "7000-7001"}
    world = World(rule("ingress", UDP, snat=shown))
    said = world.got(udp(PEER4, VM4, 4000, 53))
    assert said in [inwards(udp(VIP, VM4, port, 53)) for port in (7000, 7001)]
    (seen,) = [item for item in world.entries() if item.translated and item.remote == VIP]
    assert world.sent(udp(VM4, VIP, 53, seen.remote_port)) == outwards(udp(VM4, PEER4, 53, 4000))
    # Policy knows it as what it is.
    assert [item.remote for item in world.entries() if not item.translated] == [PEER4]


def test_both_ends_become_others():
    world = World(
        rule("egress", {**TCP, "ip_dst": VIP}, dnat={"address": PEER4, "port": 81}, snat=OUTER)
    )
    open_tcp(world, (OUTER, 4000), (PEER4, 81), remote=VIP)


def test_ports_are_kept_while_they_are_free():
    outer = {"address": OUTER, "port": "1024-1027"}
    world = World(rule("egress", UDP, snat=outer), addresses=(VM4, "10.0.0.9", "10.0.0.8"))
    assert world.sent(udp(VM4, PEER4, 1025, 53)) == outwards(udp(OUTER, PEER4, 1025, 53))
    # It is another one's to another host.
    said = world.sent(udp("10.0.0.9", "10.0.0.3", 1025, 53))
    assert said == outwards(udp(OUTER, "10.0.0.3", 1025, 53))
    left = {1024, 1026, 1027}
    for sport in (1025, 1025, 7777, 7778):
        before = len(world.entries())
        said = world.sent(udp("10.0.0.9", PEER4, sport, 53))
        (port,) = [port for port in left if said == outwards(udp(OUTER, PEER4, port, 53))] or [0]
        assert port or (sport == 1025 and len(world.entries()) == before)
        left.discard(port)
    assert left == set()
    # All four are taken.
    assert world.sent(udp("10.0.0.8", PEER4, 9, 53)) == "nat"
    assert world.driver.counters(PORT).drops == {"nat": 1}
    # Its frame passed policy: the connection stays, as an opening that nobody answered.
    world.sleep(31)
    assert world.sent(udp("10.0.0.8", PEER4, 1025, 53)) == outwards(udp(OUTER, PEER4, 1025, 53))


def test_a_name_that_is_in_use_untranslated_is_left_alone():
    world = World(
        rule("egress", {**UDP, "ip_src": "10.0.0.9"}, snat=VM4), addresses=(VM4, "10.0.0.9")
    )
    assert world.sent(udp(VM4, PEER4, 4000, 53)) == outwards(udp(VM4, PEER4, 4000, 53))
    said = world.sent(udp("10.0.0.9", PEER4, 4000, 53))
    (way,) = [item for item in world.entries() if item.translated and item.local == "10.0.0.9"]
    assert way.translated.local_port >= 1024
    assert way.translated.local_port != 4000
    assert said == outwards(udp(VM4, PEER4, way.translated.local_port, 53))
    assert world.got(udp(PEER4, VM4, 53, 4000)) == inwards(udp(PEER4, VM4, 53, 4000))


def test_two_destinations_that_become_one_are_not_mixed_up():
    world = World(rule("egress", {**UDP, "ip_dst": VIP}, dnat=PEER4))
    assert world.sent(udp(VM4, PEER4, 4000, 53)) == outwards(udp(VM4, PEER4, 4000, 53))
    assert world.sent(udp(VM4, VIP, 4000, 53)) == "nat"
    assert world.got(udp(PEER4, VM4, 53, 4000)) == inwards(udp(PEER4, VM4, 53, 4000))
    assert world.sent(udp(VM4, VIP, 4001, 53)) == outwards(udp(VM4, PEER4, 4001, 53))
    assert world.got(udp(PEER4, VM4, 53, 4001)) == inwards(udp(VIP, VM4, 53, 4001))


def test_what_began_without_translation_goes_on_so():
    world = World()
    world.handshake_in()
    load(world.driver, 0, rule("egress", snat=OUTER))
    assert world.sent(tcp(VM4, PEER4, 80, 4000)) == outwards(tcp(VM4, PEER4, 80, 4000))
    # An answer begins nothing either.
    assert world.sent(tcp(VM4, PEER4, 81, 4000, f.SYN | f.ACK)) == "no-connection"
    assert [item.state for item in world.entries()] == ["established"]


def test_what_policy_refuses_leaves_nothing():
    world = World(rule("ingress", {**TCP, "ip_dst": OUTER}, dnat=VM4), policy=policy(OUT_ALL))
    assert world.got(tcp(PEER4, OUTER, 4000, 80, f.SYN)) == "policy"
    assert world.entries() == []


def test_a_vm_cannot_speak_as_others_by_a_rule():
    world = World(rule("egress", snat=OUTER))
    assert world.sent(tcp("10.0.0.66", PEER4, 4000, 80, f.SYN)) == "ip-spoof"
    assert world.sent(tcp(OUTER, PEER4, 4000, 80, f.SYN)) == "ip-spoof"


def test_without_the_rule_nothing_is_translated():
    world = World(rule("egress", snat=OUTER), rule("egress", UDP, snat=OUTER))
    open_tcp(world, (OUTER, 4000), (PEER4, 80))
    load(world.driver, 0, rule("egress", UDP, snat=OUTER))
    # While any rule translates, what began goes on.
    assert world.sent(tcp(VM4, PEER4, 4000, 80)) == outwards(tcp(OUTER, PEER4, 4000, 80))
    load(world.driver, 0, {"match": TCP, "actions": ["normal"]})
    assert world.sent(tcp(VM4, PEER4, 4000, 80)) == outwards(tcp(VM4, PEER4, 4000, 80))
    (state,) = world.driver.ports()
    assert state.port == PORT


def test_entries_last_as_the_connection_does():
    world = World(rule("egress", snat=OUTER), rule("egress", UDP, snat=OUTER))
    open_tcp(world, (OUTER, 4000), (PEER4, 80))
    world.sent(udp(VM4, PEER4, 4000, 53))
    world.sleep(31)
    world.driver.collect()
    assert [item.state for item in world.entries()] == ["established", "nat", "nat"]
    world.sleep(400_000)
    assert world.got(tcp(PEER4, OUTER, 80, 4000)) == inwards(tcp(PEER4, VM4, 80, 4000))
    world.sleep(400_000)
    assert world.sent(tcp(VM4, PEER4, 4000, 80)) == outwards(tcp(OUTER, PEER4, 4000, 80))
    world.sent(tcp(VM4, PEER4, 4000, 80, f.RST | f.ACK))
    world.sleep(11)
    world.driver.collect()
    assert world.entries() == []


@pytest.mark.parametrize("port_security", [True, False])
def test_one_way_traffic_keeps_both_entries(port_security):
    world = World(rule("egress", UDP, snat=OUTER))
    world.set_port(port_security=port_security)
    for _ in range(10):
        assert world.sent(udp(VM4, PEER4, 4000, 53)) == outwards(udp(OUTER, PEER4, 4000, 53))
        world.sleep(20)
    assert world.got(udp(PEER4, OUTER, 53, 4000)) == inwards(udp(PEER4, VM4, 53, 4000))
    world.sleep(100)
    assert world.got(udp(PEER4, OUTER, 53, 4000)) == inwards(udp(PEER4, VM4, 53, 4000))


def test_a_full_table_takes_no_translation():
    world = World(rule("egress", UDP, snat=OUTER), quota=3)
    assert world.sent(udp(VM4, PEER4, 4000, 53)) == outwards(udp(OUTER, PEER4, 4000, 53))
    assert world.got(udp(PEER4, OUTER, 53, 4000)) == inwards(udp(PEER4, VM4, 53, 4000))
    world.sleep(1)
    assert world.sent(udp(VM4, PEER4, 4000, 53)) == outwards(udp(OUTER, PEER4, 4000, 53))
    assert world.sent(udp(VM4, PEER4, 4001, 53)) == "quota"
    assert world.sent(udp(VM4, PEER4, 4000, 53)) == outwards(udp(OUTER, PEER4, 4000, 53))


def quote(packet, length=8):
    size = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    return packet[: size + length]


def sealed_ip(packet, ethertype=f.IPV4):
    """With the checksums of a packet that was sent."""
    return seal(f.ether(VM, PEER, ethertype, packet))[14:]


def error(source, destination, quoted, *, kind=3):
    return f.ipv4(source, destination, f.ICMP, f.icmp(kind, 1, 0, quoted))


def headers(data):
    """All but the checksum of the quoted transport header, which stays what it was."""
    return data[: 14 + 20 + 8 + 20 + 4]


@pytest.mark.parametrize("router", [PEER4, "192.0.2.1"])
def test_errors_are_about_what_their_receiver_knows(router):
    world = World(
        rule("egress", {**UDP, "ip_dst": VIP}, dnat={"address": PEER4, "port": 81}, snat=OUTER)
    )
    assert world.sent(udp(VM4, VIP, 4000, 80)) == outwards(udp(OUTER, PEER4, 4000, 81))
    was = sealed_ip(udp(OUTER, PEER4, 4000, 81))
    said = world.got(error(router, OUTER, quote(was)))
    shown = VIP if router == PEER4 else router
    about = sealed_ip(udp(VM4, VIP, 4000, 80))
    assert (
        headers(said)
        == headers(seal(inwards(error(shown, VM4, quote(about)))))[:36]
        + said[36:38]
        + headers(inwards(error(shown, VM4, quote(about))))[38:]
    )
    assert seal(said) == said


def test_errors_of_the_vm_are_about_what_others_know():
    world = World(rule("ingress", {**UDP, "ip_dst": OUTER}, dnat=VM4))
    world.got(udp(PEER4, OUTER, 4000, 53))
    was = sealed_ip(udp(PEER4, VM4, 4000, 53))
    said = world.sent(error(VM4, PEER4, quote(was)))
    about = sealed_ip(udp(PEER4, OUTER, 4000, 53))
    wanted = outwards(error(OUTER, PEER4, quote(about)))
    assert said[:36] == wanted[:36]
    assert headers(said)[38:] == headers(wanted)[38:]
    assert seal(said) == said


def test_echoes_keep_their_identifier():
    world = World(rule("egress", {"eth_type": "ipv4", "ip_proto": "icmp"}, snat=OUTER))
    ask = f.ipv4(VM4, PEER4, f.ICMP, f.icmp(8, 0, 77, b"x"))
    assert world.sent(ask) == outwards(f.ipv4(OUTER, PEER4, f.ICMP, f.icmp(8, 0, 77, b"x")))
    answer = f.ipv4(PEER4, OUTER, f.ICMP, f.icmp(0, 0, 77, b"x"))
    assert world.got(answer) == inwards(f.ipv4(PEER4, VM4, f.ICMP, f.icmp(0, 0, 77, b"x")))
    # An answer that nobody asked for.
    other = f.ipv4(PEER4, OUTER, f.ICMP, f.icmp(0, 0, 78))
    assert world.got(other) == inwards(other)


def test_fragments_follow_their_first():
    world = World(rule("egress", {**UDP, "ip_dst": VIP}, dnat=PEER4, snat=OUTER))
    whole = f.udp(4000, 80, b"x" * 56)
    first = f.ipv4(VM4, VIP, f.UDP, whole[:32], more=True, ident=9)
    later = f.ipv4(VM4, VIP, f.UDP, whole[32:], fragment=4, ident=9)
    said = world.sent(first)
    assert said[26:34] == f.address(OUTER) + f.address(PEER4)
    assert world.sent(later) == outwards(
        f.ipv4(OUTER, PEER4, f.UDP, whole[32:], fragment=4, ident=9)
    )
    assert world.sent(f.ipv4(VM4, VIP, f.UDP, whole[32:], fragment=4, ident=10)) == "fragment"


def test_ipv6_is_translated_too():
    match = {"eth_type": "ipv6", "ip_proto": "tcp"}
    world = World(
        rule("egress", {**match, "ip_dst": VIP6}, dnat={"address": PEER6, "port": 81}, snat=OUTER6)
    )

    def packet(source, destination, sport, dport, flags=f.SYN):
        return f.ipv6(source, destination, f.TCP, f.tcp(sport, dport, flags, b"x"))

    assert world.sent(packet(VM6, VIP6, 4000, 80)) == outwards(packet(OUTER6, PEER6, 4000, 81))
    assert world.got(packet(PEER6, OUTER6, 81, 4000, f.SYN | f.ACK)) == inwards(
        packet(VIP6, VM6, 80, 4000, f.SYN | f.ACK)
    )
    about = sealed_ip(packet(OUTER6, PEER6, 4000, 81), f.IPV6)
    said = world.got(f.ipv6(PEER6, OUTER6, f.ICMPV6, f.icmp(1, 4, 0, quote(about, 20))))
    assert said[22:54] == f.address(VIP6) + f.address(VM6)
    assert said[62 + 8 : 62 + 44] == sealed_ip(packet(VM6, VIP6, 4000, 80), f.IPV6)[8:44]
    assert seal(said) == said


def test_groups_and_discovery_are_nobodys_to_translate():
    world = World(rule("egress", {"eth_type": "ipv4"}, snat=OUTER))
    group = f.ether(VM, "01:00:5e:00:00:05", f.IPV4, udp(VM4, "224.0.0.5", 1, 2))
    _, _, outs = world.native.run(c.FROM_PORT, TAP, group)
    assert outs == [(UPLINK, group)]
    assert world.entries() == []
    # Nor is an error to everybody, about what is translated.
    world.sent(udp(VM4, PEER4, 4000, 53))
    about = error(VM4, PEER4, quote(sealed_ip(udp(PEER4, VM4, 53, 4000))))
    group = seal(f.ether(VM, "ff:ff:ff:ff:ff:ff", f.IPV4, about))
    _, _, outs = world.native.run(c.FROM_PORT, TAP, group)
    assert outs == [(UPLINK, group)]


# -- to another host


def test_translations_move_with_the_vm():
    a = World(rule("egress", snat={"address": OUTER, "port": "7000-7009"}))
    said = a.sent(tcp(VM4, PEER4, 4000, 80, f.SYN))
    (way,) = [item for item in a.entries() if item.translated and item.local == VM4]
    port = way.translated.local_port
    assert said == outwards(tcp(OUTER, PEER4, port, 80, f.SYN))
    a.got(tcp(PEER4, OUTER, 80, port, f.SYN | f.ACK))
    a.sent(tcp(VM4, PEER4, 4000, 80))
    b = World(rule("egress", snat={"address": OUTER, "port": "7000-7009"}))
    result = b.driver.import_records(PORT, a.records())
    assert (result.moved, result.refused) == (3, {})
    assert b.got(tcp(PEER4, OUTER, 80, port)) == inwards(tcp(PEER4, VM4, 80, 4000))
    assert b.sent(tcp(VM4, PEER4, 4000, 80)) == outwards(tcp(OUTER, PEER4, port, 80))
    # Without them its frames are nobody's.
    c_ = World(rule("egress", snat={"address": OUTER, "port": "7000-7009"}))
    c_.driver.import_records(PORT, without_translations(a.records()))
    assert c_.got(tcp(PEER4, OUTER, 80, port)) == "other-address"


def test_who_knows_connections_only_gets_those():
    world = World(rule("egress", UDP, snat=OUTER))
    world.sent(udp(VM4, PEER4, 4000, 53))
    records = world.records()
    kept = without_translations(records)
    assert len(records) == 3 * c.RECORD_SIZE
    assert len(kept) == c.RECORD_SIZE
    assert NAT not in kept[:: c.RECORD_SIZE]
    assert without_translations(kept) is kept


def test_a_translation_of_a_foreign_address_is_refused():
    a = World(rule("egress", UDP, snat=OUTER), addresses=("10.0.0.5",))
    a.sent(udp("10.0.0.5", PEER4, 4000, 53))
    b = World(rule("egress", UDP, snat=OUTER))
    assert b.driver.import_records(PORT, a.records()).refused == {"address": 3}
    assert b.entries() == []


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (40, 3, "no translation's"),  # state
        (43, 0, "no translation's"),  # way
        (43, 3, "no translation's"),
        (0, 1, "unknown state"),
        (0, 3, "unknown version"),
        (96, 1, "mapped form"),
        (112, 1, "mapped form"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(offset, value, says):
    world = World(rule("egress", UDP, snat=OUTER))
    world.sent(udp(VM4, PEER4, 4000, 53))
    size = c.RECORD_SIZE
    records = [world.records()[start : start + size] for start in range(0, 3 * size, size)]
    record = bytearray(next(item for item in records if item[0] == NAT))
    record[offset] = value
    with pytest.raises(RecordError, match=says):
        world.driver.import_records(PORT, bytes(record))


def test_a_trace_shows_the_connection_and_changes_nothing():
    world = World(rule("egress", snat=OUTER))
    open_tcp(world, (OUTER, 4000), (PEER4, 80))
    before = world.records()
    run = world.driver.trace(PORT, inwards(tcp(PEER4, OUTER, 80, 4000)), egress=False)
    assert (run.verdict, run.connection.local) == ("deliver", VM4)
    run = world.driver.trace(PORT, outwards(tcp(VM4, PEER4, 4001, 80, f.SYN)), egress=True)
    assert (run.verdict, run.then) == ("forward", "begins as syn-sent")
    assert world.records() == before


def test_the_flow_cache_shows_translations():
    world = World(rule("egress", UDP, snat=OUTER))
    world.sent(udp(VM4, PEER4, 4000, 53))
    page = world.driver.flows(PORT, match=FlowFilter(state="nat", fresh=True), limit=10)
    egress, ingress = sorted(page.flows, key=lambda item: item.translated.way)
    assert (egress.local, egress.remote, egress.mark, egress.fresh) == (VM4, PEER4, 0, True)
    assert egress.translated == Translated(
        way="egress", local=OUTER, local_port=4000, remote=PEER4, remote_port=53
    )
    assert (ingress.local, ingress.translated.local) == (OUTER, VM4)
    stale = world.driver.flows(PORT, match=FlowFilter(state="nat", fresh=False), limit=10)
    assert stale.flows == []


def test_rules_that_translate_are_what_was_given():
    world = World()
    rules = compiled(
        world.driver,
        rule("egress", snat={"address": OUTER, "port": "1024-2047"}, dnat=PEER4),
        rule("ingress", {"eth_type": "ipv6"}, dnat=VIP6),
    )
    ids = world.driver.replace_table(0, rules, Miss.CONTINUE)
    (state,) = world.driver.tables()
    assert [state.rules[item] for item in ids] == rules
