"""Who has an address in a network: what the datapath answers neighbours' questions from."""

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout

#: Network, and an address of 16 bytes.
Place = tuple[int, bytes]


class Bindings:
    """Over an open datapath. An address that several ports claim is nobody's: no answer tells
    who of them has it now. Raises what the extension raises."""

    def __init__(self, handle: c.Datapath) -> None:
        self._c = handle
        self._claims: dict[Place, dict[int, int]] = {}
        self._places: dict[int, set[Place]] = {}

    def adopt(self, claims: dict[int, tuple[int, int, list[bytes]]]) -> None:
        """By local id: MAC, network and addresses. Entries of ports that are not there go."""
        for local_id, (mac, network, addresses) in claims.items():
            self._places[local_id] = {(network, address) for address in addresses}
            for place in self._places[local_id]:
                self._claims.setdefault(place, {})[local_id] = mac
        for key, value in self._c.table_items(c.TABLE_BINDINGS):
            network = layout.number("binding_key", "network", key)
            place = network, layout.raw("binding_key", "address", key)
            if place not in self._claims and layout.number("binding", "local_id", value):
                self._c.table_remove(c.TABLE_BINDINGS, key)
        for place in self._claims:
            self._settle(place)

    def claim(self, local_id: int, mac: int, network: int, addresses: list[bytes]) -> None:
        """The port has these addresses, and no others."""
        places = {(network, address) for address in addresses}
        before = self._places.get(local_id, set())
        self._places[local_id] = places
        for place in before - places:
            self._claims[place].pop(local_id, None)
            self._settle(place)
        for place in places:
            self._claims.setdefault(place, {})[local_id] = mac
            self._settle(place)

    def forget(self, local_id: int) -> None:
        self.claim(local_id, 0, 0, [])
        self._places.pop(local_id)

    def _settle(self, place: Place) -> None:
        network, address = place
        key = layout.pack("binding_key", network=network, address=address)
        claims = self._claims[place]
        if len(claims) == 1:
            ((local_id, mac),) = claims.items()
            entry = layout.pack("binding", mac=mac, local_id=local_id)
            if self._c.table_get(c.TABLE_BINDINGS, key) != entry:
                self._c.table_put(c.TABLE_BINDINGS, key, entry)
            return
        self._c.table_remove(c.TABLE_BINDINGS, key)
        if not claims:
            del self._claims[place]
