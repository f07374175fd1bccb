"""Allowed address pairs of ports, in the tables; see csrc/core/spoof.h."""

import ipaddress
from collections.abc import Sequence

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.model.port import AddressPair

_MAPPED_BITS = 96


class PairTable:
    """Over an open datapath. Raises what the extension raises."""

    def __init__(self, handle: c.Datapath, local_ids: set[int]) -> None:
        """Adopts what is in the tables, but nothing of ports that are not there."""
        self._c = handle
        self._pairs: dict[int, tuple[AddressPair, ...]] = {}
        found: dict[int, dict[int, AddressPair]] = {}
        for key, value in handle.table_items(c.TABLE_PAIRS):
            local_id = layout.number("pair_key", "local_id", key)
            if local_id not in local_ids:
                handle.table_remove(c.TABLE_PAIRS, key)
            elif layout.number("pair_key", "mac", key):
                order = int.from_bytes(value, "little")
                found.setdefault(local_id, {})[order] = _unpack(key)
        for local_id, ordered in found.items():
            self._pairs[local_id] = tuple(ordered[order] for order in sorted(ordered))

    def of(self, local_id: int) -> tuple[AddressPair, ...]:
        return self._pairs.get(local_id, ())

    def add(self, local_id: int, wanted: Sequence[AddressPair]) -> bool:
        """First: what is new may be used. Whether anything is new or will go."""
        places = [(order, _keys(local_id, pair)) for order, pair in enumerate(wanted)]
        for order, keys in places:
            for key in keys:
                self._c.table_put(c.TABLE_PAIRS, key, layout.u32(order))
        return tuple(wanted) != self.of(local_id)

    def keep(self, local_id: int, wanted: Sequence[AddressPair], network: int, mac: int) -> None:
        """Then: nothing else may, and MACs that were the port's by pairs alone are nobody's."""
        before = self.of(local_id)
        kept = {key for pair in wanted for key in _keys(local_id, pair)}
        for pair in before:
            for key in _keys(local_id, pair):
                if key not in kept:
                    self._c.table_remove(c.TABLE_PAIRS, key)
        gone = {pair.mac_address for pair in before} - {pair.mac_address for pair in wanted}
        for number in {layout.pack_mac(text) for text in gone} - {mac}:
            place = layout.pack("mac_key", mac=number, network=network)
            self._c.table_remove(c.TABLE_FDB, place)
        if wanted:
            self._pairs[local_id] = tuple(wanted)
        else:
            self._pairs.pop(local_id, None)


def _keys(local_id: int, pair: AddressPair) -> tuple[bytes, bytes]:
    network = ipaddress.ip_network(pair.ip_address)
    bits = network.prefixlen + (_MAPPED_BITS if network.version == 4 else 0)
    address = layout.pack_address(str(network.network_address))
    one, other = (
        layout.pack(
            "pair_key",
            prefix=c.PAIR_WHOLE_BITS + bits,
            local_id=local_id,
            mac=mac,
            address=address,
        )
        for mac in (layout.pack_mac(pair.mac_address), 0)
    )
    return one, other


def _unpack(key: bytes) -> AddressPair:
    bits = layout.number("pair_key", "prefix", key) - c.PAIR_WHOLE_BITS
    text = layout.unpack_address(layout.raw("pair_key", "address", key))
    if ipaddress.ip_address(text).version == 4:
        bits -= _MAPPED_BITS
    return AddressPair(
        ip_address=f"{text}/{bits}",
        mac_address=layout.unpack_mac(layout.number("pair_key", "mac", key)),
    )
