"""VMs a and b of one network and their uplink, on real taps, with tables from documents."""

import os
from typing import Any

import network_bench as n
from datapath_taps import Tap
from network_bench import FLAT, A, B

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.datapath.handlers import compile_handler
from vnet_agent.datapath.handling import PacketIn
from vnet_agent.handlers.document import table_from_json

PORT_A, PORT_B = n.port_name(FLAT, A), n.port_name(FLAT, B)


class Tables:
    def __init__(self, bpffs: str, *, rate: int = 1000, quota: int = 64) -> None:
        self.pin_dir = os.path.join(bpffs, "vnet")
        self.rate = rate
        self.open()
        self.a, self.b, self.far = Tap("tap-a"), Tap("tap-b"), Tap("far")
        for mac, tap in ((A, self.a), (B, self.b)):
            n.set_port(self.driver, FLAT, mac, quota=quota)
            self.driver.attach(n.port_name(FLAT, mac), tap.ifindex)
        self.driver.attach_uplink(self.far.ifindex, network=FLAT)

    def open(self) -> None:
        self.driver = EbpfDriver(pin_dir=self.pin_dir, max_ports=16, packet_rate=self.rate)
        self.driver.open()

    # Places of compile_handler

    def local_id(self, port: str) -> int | None:
        ids = {entry.port: entry.local_id for entry in self.driver.ports()}
        return ids.get(port)

    def ids_of(self, instance: str) -> list[int]:
        return [item.local_id for item in self.driver.ports() if item.instance == instance]

    def ids_in(self, group: str) -> list[int]:
        return []

    def load(self, table: int, *rules: dict[str, Any], miss: str = "continue") -> list[int]:
        document = table_from_json({"miss": miss, "rules": list(rules)}, table)
        flat = [item for rule in document.rules for item in compile_handler(rule, self)]
        return self.driver.replace_table(table, flat, document.miss)

    def arrived(self) -> dict[str, list[bytes]]:
        """What has come to whom since; nothing where nothing came."""
        taps = {"a": self.a, "b": self.b, "far": self.far}
        received = {name: tap.drain(0.05) for name, tap in taps.items()}
        return {name: frames for name, frames in received.items() if frames}

    def packet_ins(self) -> list[PacketIn]:
        return list(self.driver.read_packet_ins())

    def drops(self, port: str = PORT_A) -> dict[str, int]:
        return self.driver.counters(port).drops
