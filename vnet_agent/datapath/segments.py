"""The ways out of the host: which networks an uplink carries, untagged or by 802.1Q tag."""

import sys
from collections.abc import Mapping

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout

#: Ids that a tag can name; 0 is priority alone, 4095 is reserved.
VLANS = range(1, 4095)


class Segments:
    """Over an open datapath, whose tables are the truth. Raises what the extension raises."""

    def __init__(self, handle: c.Datapath) -> None:
        self._c = handle

    @staticmethod
    def check(network: int | None, vlans: Mapping[int, int]) -> None:
        """Raises ValueError for what no uplink can be."""
        networks = [*([] if network is None else [network]), *vlans.values()]
        if not networks:
            raise ValueError("an uplink of no network")
        if len(set(networks)) != len(networks):
            raise ValueError("a network stands twice")
        for vlan in vlans:
            if vlan not in VLANS:
                raise ValueError(f"{vlan} is no VLAN: {VLANS[0]} to {VLANS[-1]}")

    def carry(self, ifindex: int, network: int | None, vlans: Mapping[int, int]) -> list[int]:
        """The interface carries `network` untagged, {VLAN: network} tagged, and nothing else.

        One uplink a network: another one loses it. Saying again what holds changes nothing, not
        even for a moment. Returns the interfaces that are no uplinks any more.
        """
        self.check(network, vlans)
        try:
            self._put_iface(ifindex, network)
            for vlan, tagged in vlans.items():
                self._put_vlan(ifindex, vlan, tagged)
            if network is not None:
                self._c.table_put(c.TABLE_UPLINKS, layout.u32(network), layout.u32(ifindex))
                self._c.table_remove(c.TABLE_SEGMENTS, layout.u32(network))
        except OSError:
            self.remove(ifindex)
            raise
        self._forget(ifindex, network, vlans)
        return self._take_from_others(ifindex, {network, *vlans.values()})

    def remove(self, ifindex: int) -> None:
        """The interface carries nothing, unless it is a port's by now."""
        self._forget(ifindex, None, {})
        if self._is_uplink(ifindex):
            self._c.table_remove(c.TABLE_IFACES, layout.u32(ifindex))

    def vlan_of(self, network: int) -> int | None:
        """The tag with which frames of the network leave; None for no tag, or no way out."""
        data = self._c.table_get(c.TABLE_SEGMENTS, layout.u32(network))
        return None if data is None else layout.number("segment", "vlan", data)

    # -- the tables

    def _put_iface(self, ifindex: int, network: int | None) -> None:
        flags = c.IFACE_TAGGED if network is None else 0
        data = layout.pack("iface", kind=c.IFACE_UPLINK, network=network or 0, flags=flags)
        self._c.table_put(c.TABLE_IFACES, layout.u32(ifindex), data)

    def _put_vlan(self, ifindex: int, vlan: int, network: int) -> None:
        """In, then out: the untagged way out, which is looked at first, goes last."""
        key = layout.pack("vlan_key", ifindex=ifindex, vlan=vlan)
        self._c.table_put(c.TABLE_VLANS, key, layout.u32(network))
        segment = layout.pack("segment", ifindex=ifindex, vlan=vlan)
        self._c.table_put(c.TABLE_SEGMENTS, layout.u32(network), segment)
        self._c.table_remove(c.TABLE_UPLINKS, layout.u32(network))

    def _forget(self, ifindex: int, network: int | None, vlans: Mapping[int, int]) -> None:
        """Remove what leads out or in by this interface, except for these."""
        for key, value in self._c.table_items(c.TABLE_UPLINKS):
            if _number(value) == ifindex and _number(key) != network:
                self._c.table_remove(c.TABLE_UPLINKS, key)
        for key, value in self._c.table_items(c.TABLE_SEGMENTS):
            here = layout.number("segment", "ifindex", value) == ifindex
            if here and vlans.get(layout.number("segment", "vlan", value)) != _number(key):
                self._c.table_remove(c.TABLE_SEGMENTS, key)
        for key, owner, vlan, _ in self._vlans():
            if owner == ifindex and vlan not in vlans:
                self._c.table_remove(c.TABLE_VLANS, key)

    def _take_from_others(self, ifindex: int, networks: set[int | None]) -> list[int]:
        """Nothing of these networks comes in elsewhere any more."""
        for key, owner, _, network in self._vlans():
            if owner != ifindex and network in networks:
                self._c.table_remove(c.TABLE_VLANS, key)
        tagged = {owner for _, owner, _, _ in self._vlans()}
        replaced = []
        for key, value in self._c.table_items(c.TABLE_IFACES):
            other = _number(key)
            if other == ifindex or layout.number("iface", "kind", value) != c.IFACE_UPLINK:
                continue
            untagged = not layout.number("iface", "flags", value) & c.IFACE_TAGGED
            if untagged and layout.number("iface", "network", value) not in networks:
                continue
            if other in tagged:
                self._put_iface(other, None)
            else:
                self._c.table_remove(c.TABLE_IFACES, key)
                replaced.append(other)
        return replaced

    def _vlans(self) -> list[tuple[bytes, int, int, int]]:
        """(key, interface, VLAN, network) of every tag that is known."""
        return [
            (
                key,
                layout.number("vlan_key", "ifindex", key),
                layout.number("vlan_key", "vlan", key),
                _number(value),
            )
            for key, value in self._c.table_items(c.TABLE_VLANS)
        ]

    def _is_uplink(self, ifindex: int) -> bool:
        data = self._c.table_get(c.TABLE_IFACES, layout.u32(ifindex))
        return data is not None and layout.number("iface", "kind", data) == c.IFACE_UPLINK


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)
