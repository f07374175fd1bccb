"""The forwarding of the C core once more, in plain Python: who gets a frame, and as what bytes.

Ports here are active, off any bridge, and allowed everything: what the datapath of one port
refuses is the matter of twin.py.
"""

from dataclasses import dataclass, field
from typing import Any

from twin_neighbour import answer

VLAN_TAG = b"\x81\x00"
TAGS = (VLAN_TAG, b"\x88\xa8")


@dataclass
class Port:
    mac: bytes
    network: int
    addresses: tuple[Any, ...] = ()


@dataclass
class Uplink:
    untagged: int | None
    vlans: dict[int, int] = field(default_factory=dict)

    def network(self, tag: bytes | None) -> int | None:
        """Of a frame that comes in with these 4 bytes of tag, or with none."""
        if tag is not None and tag[:2] != VLAN_TAG:
            return None
        vlan = 0 if tag is None else int.from_bytes(tag[2:], "big") & 0xFFF
        return self.vlans.get(vlan) if vlan else self.untagged


Out = tuple[int, bytes]


@dataclass
class Switch:
    """By interface. `from_port` and `from_uplink` give what leaves where. With `answers` a VM is
    told of neighbours that are known."""

    ports: dict[int, Port]
    uplinks: dict[int, Uplink]
    answers: bool = False

    def from_port(self, ifindex: int, frame: bytes) -> list[Out] | str:
        """What leaves, or why nothing does."""
        port = self.ports[ifindex]
        if frame[12:14] in TAGS:
            return "vlan"
        if frame[6:12] != port.mac:
            return "mac-spoof"
        told = self.answers and answer(frame, port.mac, lambda item: self._who(port.network, item))
        if told:
            return [(ifindex, told)]
        local = self._local(port.network, frame, ifindex)
        group = frame[0] & 1
        if local and not group:
            return local
        out = self._way_out(port.network, frame) if frame[:6] != port.mac else []
        return local + out if local or out or group else "no-destination"

    def from_uplink(self, ifindex: int, frame: bytes) -> list[Out]:
        tag = frame[12:16] if frame[12:14] in TAGS else None
        network = self.uplinks[ifindex].network(tag)
        bare = frame if tag is None else frame[:12] + frame[16:]
        return [] if network is None else self._local(network, bare, None)

    def _who(self, network: int, address: Any) -> tuple[bytes, bool] | None:
        """Of several ports with the address none is known to have it now."""
        has = [
            port.mac
            for port in self.ports.values()
            if port.network == network and address in port.addresses
        ]
        return (has[0], False) if len(has) == 1 else None

    def _local(self, network: int, frame: bytes, sender: int | None) -> list[Out]:
        """Ports of the network that the frame is for; never its sender, by tap or by MAC."""
        group = frame[0] & 1
        return [
            (ifindex, frame)
            for ifindex, port in self.ports.items()
            if port.network == network
            and ifindex != sender
            and (port.mac != frame[6:12] if group else port.mac == frame[:6])
        ]

    def _way_out(self, network: int, frame: bytes) -> list[Out]:
        for ifindex, uplink in self.uplinks.items():
            if uplink.untagged == network:
                return [(ifindex, frame)]
            for vlan, tagged in uplink.vlans.items():
                if tagged == network:
                    return [
                        (ifindex, frame[:12] + VLAN_TAG + vlan.to_bytes(2, "big") + frame[12:])
                    ]
        return []
