"""The short way does of a frame what the long way would, or leaves it alone."""

import random

import frames as f
import pytest
from datapath_bench import INSTANCE, SECOND, TAP, TAP2, VM, VM4, VM6

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.flags import set_flag
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL, Direction, Policy, Rule
from vnet_agent.model.port import Role

A, B = "11111111-0000-4000-8000-00000000000a", "11111111-0000-4000-8000-00000000000b"
PEER, PEER4, PEER6 = "52:54:00:00:00:02", "10.0.0.2", "2001:db8::2"
ENDS = {A: (TAP, VM, VM4, VM6), B: (TAP2, PEER, PEER4, PEER6)}
#: What each of them may change while the other's frames are under way.
POLICIES = (
    ALLOW_ALL,
    ALLOW_ALL,
    Policy(rules=(Rule(direction=Direction.EGRESS), Rule(direction=Direction.INGRESS))),
    DENY_ALL,
)
FRAMES = 4000


class Host:
    """Two VMs on one; `shortcut` runs the short way before the long one, as the kernel does."""

    def __init__(self, *, shortcut: bool) -> None:
        self.shortcut = shortcut
        self.taken = 0
        self.driver = MemoryDriver(max_ports=4)
        self.driver.open()
        self.native = self.driver.native
        for port, (tap, mac, *addresses) in ENDS.items():
            self.driver.set_port(
                port,
                instance=INSTANCE,
                mac=mac,
                addresses=tuple(addresses),
                network=0,
                bridged=False,
                role=Role.ACTIVE,
                generation=1,
                quota=100,
            )
            self.driver.set_policy(port, ALLOW_ALL)
            self.driver.attach(port, tap)
            self.set_flag(port, c.PORT_SHORT, wanted=True)

    def set_flag(self, port: str, flag: int, *, wanted: bool) -> None:
        (local_id,) = (entry.local_id for entry in self.driver.ports() if entry.port == port)
        set_flag(self.native, local_id, flag, wanted=wanted)

    def send(self, port: str, frame: bytes) -> tuple[int, ...]:
        """Where it goes, once the receiver's program has let it in."""
        tap = ENDS[port][0]
        if self.shortcut:
            action, _, out = self.native.process(c.SHORTCUT, tap, frame)
            if action == c.REDIRECT:
                self.taken += 1
                return out
            assert (action, out) == (c.PASS, ())
        _, _, out = self.native.process(c.FROM_PORT, tap, frame)
        return tuple(to for to in out if self._delivers(to, frame))

    def _delivers(self, tap: int, frame: bytes) -> bool:
        return self.native.process(c.TO_PORT, tap, frame)[0] == c.PASS

    def state(self) -> object:
        """All that frames leave behind."""
        return [(self.driver.counters(port), sorted(self.driver.export(port))) for port in (A, B)]


class Talk:
    """What two VMs say to each other, mostly as their protocols have it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.seq: dict[tuple[str, int, int], int] = {}

    def frame(self, port: str, family: int, pair: int, *, syn: bool = False) -> bytes:
        chance = self.chance
        other = B if port == A else A
        _, source, source4, source6 = ENDS[port]
        _, target, target4, target6 = ENDS[other]
        sport, dport = (1000 + pair, 80) if port == A else (80, 1000 + pair)
        if pair % 2:
            proto, body = f.UDP, f.udp(sport, dport, bytes(chance.randrange(40)))
        else:
            proto, body = f.TCP, self._segment(port, other, family, (pair, sport, dport), syn=syn)
        if chance.random() < 0.02:
            source = "52:54:00:00:00:99"
        if chance.random() < 0.02:
            source4 = source6 = "10.0.0.77" if family == 4 else "2001:db8::77"
        if family == 4:
            fragment = {"more": True} if chance.random() < 0.02 else {}
            packet = f.ipv4(source4, target4, proto, body, **fragment)
        else:
            packet = f.ipv6(source6, target6, proto, body)
        frame = f.ether(source, target, f.IPV4 if family == 4 else f.IPV6, packet)
        return frame[: chance.randrange(len(frame))] if chance.random() < 0.02 else frame

    def _segment(
        self, port: str, other: str, family: int, ends: tuple[int, int, int], *, syn: bool
    ) -> bytes:
        pair, sport, dport = ends
        chance = self.chance
        own, peer = (port, family, pair), (other, family, pair)
        seq, ack = self.seq.get(own, 1), self.seq.get(peer, 1)
        flags = f.SYN | (f.ACK if port == B else 0) if syn else f.ACK
        if not syn and chance.random() < 0.02:
            flags = chance.choice((f.SYN, f.ACK | f.FIN, f.RST, f.RST | f.ACK, 0))
        if chance.random() < 0.03:
            seq += chance.choice((-200_000, -5, 70_000))
        body = b"" if flags & f.SYN else bytes(chance.randrange(30))
        self.seq[own] = max(seq + len(body) + bool(flags & f.SYN), self.seq.get(own, 1))
        return f.tcp(sport, dport, flags, body, seq=seq % 2**32, ack=ack, window=5000)

    def opening(self) -> list[tuple[str, bytes]]:
        """Each pair's handshake, or a question and an answer."""
        return [
            (port, self.frame(port, family, pair, syn=pair % 2 == 0 and number < 2))
            for family in (4, 6)
            for pair in range(4)
            for number, port in enumerate((A, B, A))
        ]


def change(chance: random.Random, hosts: tuple[Host, ...]) -> None:
    port, kind = chance.choice((A, B)), chance.random()
    if kind < 0.3:
        for policy in (chance.choice(POLICIES), ALLOW_ALL):
            for host in hosts:
                host.driver.set_policy(port, policy)
            if chance.random() < 0.5:
                break
    elif kind < 0.5:
        wanted = chance.random() < 0.8
        for host in hosts:
            host.set_flag(port, c.PORT_SHORT, wanted=wanted)
    elif kind < 0.6:
        role = chance.choice((Role.MOVED, Role.ACTIVE, Role.STANDBY))
        for host in hosts:
            entry = next(item for item in host.driver.ports() if item.port == port)
            host.driver.set_port(
                port,
                instance=INSTANCE,
                mac=entry.mac,
                addresses=entry.addresses,
                network=0,
                bridged=False,
                role=role,
                generation=entry.generation,
                quota=100,
            )


@pytest.mark.parametrize("seed", range(6))
def test_shortcut_leaves_behind_what_the_long_way_would(seed: int) -> None:
    chance = random.Random(seed)
    hosts = Host(shortcut=True), Host(shortcut=False)
    now = 1000 * SECOND
    said: list[tuple[str, bytes]] = []
    talk = Talk(chance)
    for _ in range(FRAMES):
        if not said:
            said = talk.opening() if chance.random() < 0.2 else []
            said += [
                (port, talk.frame(port, chance.choice((4, 6)), chance.randrange(4)))
                for port in chance.choices((A, B), k=100)
            ]
        port, frame = said.pop(0)
        now += chance.randrange(SECOND // 100)
        for host in hosts:
            host.native.set_clock(now)
        assert hosts[0].send(port, frame) == hosts[1].send(port, frame), frame.hex()
        assert hosts[0].state() == hosts[1].state(), frame.hex()
        if chance.random() < 0.01:
            change(chance, hosts)
    assert hosts[0].taken > FRAMES // 10


def steady() -> tuple[Host, bytes]:
    """A host with a connection of datagrams that takes the short way, and its next frame."""
    host = Host(shortcut=True)
    packet = f.ipv4(VM4, PEER4, f.UDP, f.udp(1001, 80))
    ask = f.ether(VM, PEER, f.IPV4, packet)
    answer = f.ether(PEER, VM, f.IPV4, f.ipv4(PEER4, VM4, f.UDP, f.udp(80, 1001)))
    for port, frame in ((A, ask), (B, answer)):
        assert host.send(port, frame)
    assert host.taken == 0
    assert host.send(A, ask) == (TAP2,)
    assert host.taken == 1
    return host, ask


@pytest.mark.parametrize("port", [A, B])
@pytest.mark.parametrize("flag", [c.PORT_CAPTURED, c.PORT_METERED, c.PORT_TABLES, c.PORT_OPEN])
def test_shortcut_is_not_for_ports_that_somebody_looks_at(port: str, flag: int) -> None:
    host, ask = steady()
    host.set_flag(port, flag, wanted=True)
    assert host.native.process(c.SHORTCUT, TAP, ask) == (c.PASS, 0, ())
    host.set_flag(port, flag, wanted=False)
    assert host.native.process(c.SHORTCUT, TAP, ask)[0] == c.REDIRECT
    host.set_flag(port, c.PORT_SHORT, wanted=False)
    assert host.native.process(c.SHORTCUT, TAP, ask)[0] == c.PASS


@pytest.mark.parametrize("port", [A, B])
def test_shortcut_ends_with_the_policy(port: str) -> None:
    host, ask = steady()
    host.driver.set_policy(port, DENY_ALL)
    assert host.send(A, ask) == ()
    assert host.taken == 1
