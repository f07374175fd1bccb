"""A memory driver with one VM port and an uplink, for the tests of the datapath."""

import frames as f

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.model.policy import ALLOW_ALL, Direction, Established, Policy, Rule
from vnet_agent.model.port import AddressPair, Role

PORT = "11111111-0000-4000-8000-000000000001"
OTHER = "11111111-0000-4000-8000-000000000002"
INSTANCE = "22222222-0000-4000-8000-000000000001"
VM, PEER, GATEWAY = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:fe"
VM4, PEER4 = "10.0.0.1", "10.0.0.2"
VM6, PEER6 = "2001:db8::1", "2001:db8::2"
TAP, TAP2, UPLINK = 5, 6, 9
SECOND = 1_000_000_000

IN_TCP_80 = Rule(direction=Direction.INGRESS, protocol="tcp", ports=(80, 80))
OUT_ALL = Rule(direction=Direction.EGRESS)


class Bench:
    """`out` sends a frame from the VM, `into` to it; both return why it was dropped, or ""."""

    def __init__(
        self,
        policy: Policy | None = ALLOW_ALL,
        *,
        addresses: tuple[str, ...] = (VM4, VM6),
        quota: int = 100,
        role: Role = Role.ACTIVE,
        driver: MemoryDriver | None = None,
        pairs: tuple[AddressPair, ...] = (),
    ) -> None:
        self.pairs = pairs
        self.driver = driver or MemoryDriver(max_ports=8)
        self.driver.open()
        self.native = self.driver.native
        self.now = 1000 * SECOND
        self.native.set_clock(self.now)
        self.addresses = addresses
        self.set_port(role=role, quota=quota)
        if policy is not None:
            self.driver.set_policy(PORT, policy)
        self.driver.attach(PORT, TAP)
        self.driver.attach_uplink(UPLINK, network=0)

    def set_port(
        self,
        port: str = PORT,
        *,
        mac: str = VM,
        role: Role = Role.ACTIVE,
        generation: int = 1,
        quota: int = 100,
        network: int = 0,
        bridged: bool = False,
        port_security: bool = True,
    ) -> None:
        self.driver.set_port(
            port,
            instance=INSTANCE,
            mac=mac,
            addresses=self.addresses if port == PORT else (),
            network=network,
            bridged=bridged,
            role=role,
            generation=generation,
            quota=quota,
            port_security=port_security,
            pairs=self.pairs if port == PORT else (),
        )

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        self.native.set_clock(self.now)

    def process(self, hook: int, ifindex: int, frame: bytes) -> tuple[int, str, tuple[int, ...]]:
        action, reason, outs = self.native.process(hook, ifindex, frame)
        return action, c.REASONS[reason], outs

    def _judge(self, hook: int, frame: bytes) -> str:
        action, reason, _ = self.process(hook, TAP, frame)
        assert (action == c.DROP) == (reason != "none")
        return "" if reason == "none" else reason

    def out(self, packet: bytes, *, source: str = VM, target: str = PEER) -> str:
        return self._judge(c.FROM_PORT, f.ether(source, target, ethertype(packet), packet))

    def into(self, packet: bytes, *, source: str = PEER, target: str = VM) -> str:
        return self._judge(c.TO_PORT, f.ether(source, target, ethertype(packet), packet))

    def tcp_out(self, sport: int, dport: int, flags: int) -> str:
        return self.out(f.ipv4(VM4, PEER4, f.TCP, f.tcp(sport, dport, flags)))

    def tcp_in(self, sport: int, dport: int, flags: int) -> str:
        return self.into(f.ipv4(PEER4, VM4, f.TCP, f.tcp(sport, dport, flags)))

    def handshake_in(self, sport: int = 4000, dport: int = 80) -> None:
        assert self.tcp_in(sport, dport, f.SYN) == ""
        assert self.tcp_out(dport, sport, f.SYN | f.ACK) == ""
        assert self.tcp_in(sport, dport, f.ACK) == ""

    def handshake_out(self, sport: int = 5000, dport: int = 443) -> None:
        assert self.tcp_out(sport, dport, f.SYN) == ""
        assert self.tcp_in(dport, sport, f.SYN | f.ACK) == ""
        assert self.tcp_out(sport, dport, f.ACK) == ""

    def states(self) -> list[str]:
        return sorted(item.state for item in self.driver.connections(PORT))

    def records(self) -> bytes:
        return b"".join(self.driver.export(PORT))


def ethertype(packet: bytes) -> int:
    return f.IPV6 if packet[0] >> 4 == 6 else f.IPV4


def policy(*rules: Rule, keep: bool = False) -> Policy:
    return Policy(rules=rules, established=Established.KEEP if keep else Established.RECHECK)
