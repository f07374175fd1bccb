"""A port that floods takes no connection from another one, nor an answered one from its target."""

import os
import random
import socket

import frames as f
from datapath_world import ip, private
from test_datapath_kernel import INSTANCE

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import Direction, Policy, Rule
from vnet_agent.model.port import Role

NAMES = ("quiet", "attacker", "target")
PORTS = {name: f"11111111-0000-4000-8000-00000000000{n}" for n, name in enumerate(NAMES, 1)}
MACS = {name: f"52:54:00:00:00:0{n}" for n, name in enumerate(NAMES, 1)}
ADDRESSES = {name: f"10.0.0.{n}" for n, name in enumerate(NAMES, 1)}
PEER, PEER4 = "52:54:00:00:00:99", "10.0.0.99"
ESTABLISHED, QUOTA, FLOOD = 1000, 1500, 20_000
POLICY = Policy(
    rules=(
        Rule(direction=Direction.EGRESS),
        Rule(direction=Direction.INGRESS, protocol="tcp", ports=(80, 80)),
        Rule(direction=Direction.INGRESS, protocol="tcp", ports=(443, 443), remote="10.8.0.0/16"),
    )
)


class Victims:
    """The attacker's addresses are unknown, so that it may send from any."""

    def __init__(self, bpffs: str) -> None:
        self.driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=8)
        self.driver.open()
        self.taps: dict[str, int] = {}
        for name in (*NAMES, "uplink"):
            ip(f"link add {name} type veth peer name {name}-far")
            for end in (name, f"{name}-far"):
                with open(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6", "w") as switch:
                    switch.write("1")
                ip(f"link set {end} up")
            self.taps[name] = socket.if_nametoindex(name)
        for name, port in PORTS.items():
            self.driver.set_port(
                port,
                instance=INSTANCE,
                mac=MACS[name],
                addresses=() if name == "attacker" else (ADDRESSES[name],),
                network=0,
                bridged=False,
                role=Role.ACTIVE,
                generation=1,
                quota=QUOTA,
            )
            self.driver.set_policy(port, POLICY)
            self.driver.attach(port, self.taps[name])
        self.driver.attach_uplink(self.taps["uplink"], network=0)

    def establish(self, name: str) -> None:
        """Connections from outside to the VM's port 80, by whole handshakes."""
        for port in range(2000, 2000 + ESTABLISHED):
            for flags, inwards in ((f.SYN, True), (f.SYN | f.ACK, False), (f.ACK, True)):
                self.segment(name, port, flags, inwards=inwards)

    def segment(self, name: str, port: int, flags: int, *, inwards: bool) -> None:
        if inwards:
            packet = f.ipv4(PEER4, ADDRESSES[name], f.TCP, f.tcp(port, 80, flags))
            frame = f.ether(PEER, MACS[name], f.IPV4, packet)
        else:
            packet = f.ipv4(ADDRESSES[name], PEER4, f.TCP, f.tcp(80, port, flags))
            frame = f.ether(MACS[name], PEER, f.IPV4, packet)
        hook = c.TO_PORT if inwards else c.FROM_PORT
        self.driver.kernel.test_run(hook, self.taps[name], frame)

    def living(self, name: str) -> int:
        """Established connections from outside."""
        return sum(
            item.state == "established" and item.remote == PEER4
            for item in self.driver.connections(PORTS[name])
        )

    def flood(self, rng: random.Random, *, port: int | None) -> None:
        """SYNs from the attacker to the target: any source, and any port unless it is given."""
        for _ in range(FLOOD):
            source = f"10.{rng.randrange(8, 250)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
            ports = rng.randrange(65536), rng.randrange(65536) if port is None else port
            packet = f.ipv4(source, ADDRESSES["target"], f.TCP, f.tcp(*ports, f.SYN))
            frame = f.ether(MACS["attacker"], MACS["target"], f.IPV4, packet)
            self.driver.kernel.test_run(c.FROM_PORT, self.taps["attacker"], frame)


@private
def test_datapath_flood_evicts_no_established_connection(bpffs: str) -> None:
    victims = Victims(bpffs)
    for name in ("quiet", "target"):
        victims.establish(name)
        assert victims.living(name) == ESTABLISHED
    rng = random.Random(1)
    victims.flood(rng, port=80)
    victims.driver.flush(PORTS["attacker"], generation=1)
    victims.flood(rng, port=None)
    drops = {name: victims.driver.counters(port).drops for name, port in PORTS.items()}
    # The flood came as far as it could: it met a full table, and the rules of its target.
    assert drops["attacker"]["quota"] > FLOOD // 4, drops
    assert drops["target"]["policy"] > 0, drops
    assert drops["target"]["quota"] > 0, drops
    assert drops["quiet"] == {}
    for name in ("quiet", "target"):
        assert victims.living(name) == ESTABLISHED, name
        # And they are in use: their segments pass, and open nothing.
        before = victims.driver.counters(PORTS[name])
        for port in range(2000, 2000 + ESTABLISHED):
            victims.segment(name, port, f.ACK, inwards=True)
        after = victims.driver.counters(PORTS[name])
        assert after.rx_frames - before.rx_frames == ESTABLISHED
        assert after.connections <= before.connections
    victims.driver.destroy()
