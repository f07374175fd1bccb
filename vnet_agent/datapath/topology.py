"""Who is where: addresses, MACs, members of networks and interfaces, in the tables."""

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.bindings import Bindings


class Topology:
    """Over an open datapath; `data` is a struct vnet_port. Raises what the extension raises."""

    def __init__(self, handle: c.Datapath, local_ids: set[int]) -> None:
        """Adopts what is in the tables, but nothing of ports that are not (or half) there."""
        self._c = handle
        self._addresses = self._adopt_addresses(local_ids)
        self._members = self._adopt_members(local_ids)
        self._bindings = Bindings(handle)
        self._bindings.adopt(
            {
                layout.number("port", "local_id", data): self._claim(data)
                for data in handle.ports()
                if not self._is_bridged(data)
            }
        )
        for key, value in handle.table_items(c.TABLE_FDB):
            if int.from_bytes(value, "little") not in local_ids:
                handle.table_remove(c.TABLE_FDB, key)

    def _adopt_addresses(self, local_ids: set[int]) -> dict[int, list[bytes]]:
        found: dict[int, dict[int, bytes]] = {}
        for key, value in self._c.table_items(c.TABLE_ADDRESSES):
            local_id = layout.number("address_key", "local_id", key)
            if local_id in local_ids:
                address = layout.raw("address_key", "address", key)
                found.setdefault(local_id, {})[int.from_bytes(value, "little")] = address
            else:
                self._c.table_remove(c.TABLE_ADDRESSES, key)
        return {
            local_id: [order[index] for index in sorted(order)]
            for local_id, order in found.items()
        }

    def _adopt_members(self, local_ids: set[int]) -> dict[int, list[int]]:
        found: dict[int, dict[int, int]] = {}
        for key, value in self._c.table_items(c.TABLE_MEMBERS):
            network = layout.number("member_key", "network", key)
            index = layout.number("member_key", "index", key)
            found.setdefault(network, {})[index] = int.from_bytes(value, "little")
        members: dict[int, list[int]] = {}
        for network, order in found.items():
            have = [order[index] for index in sorted(order)]
            keep = [item for item in dict.fromkeys(have) if item in local_ids]
            if keep != have:
                for index, local_id in enumerate(keep):
                    self._put_member(network, index, local_id)
                for index in range(len(keep), max(order) + 1):
                    self._remove_member(network, index)
            members[network] = keep
        return members

    # -- addresses

    def addresses(self, local_id: int) -> tuple[str, ...]:
        return tuple(layout.unpack_address(item) for item in self._addresses.get(local_id, []))

    def set_addresses(self, local_id: int, wanted: list[bytes]) -> bool:
        """Whether anything changed."""
        wanted = list(dict.fromkeys(wanted))
        have = self._addresses.get(local_id, [])
        if have == wanted:
            return False
        for order, address in enumerate(wanted):
            self._c.table_put(
                c.TABLE_ADDRESSES, self._address_key(local_id, address), layout.u32(order)
            )
        for address in have:
            if address not in wanted:
                self._c.table_remove(c.TABLE_ADDRESSES, self._address_key(local_id, address))
        self._addresses[local_id] = wanted
        return True

    @staticmethod
    def _address_key(local_id: int, address: bytes) -> bytes:
        return layout.pack("address_key", local_id=local_id, address=address)

    # -- MACs and members

    def check_mac(self, data: bytes) -> None:
        """Raises ValueError when another port of the network has the MAC."""
        if self._is_bridged(data):
            return
        held = self._c.table_get(c.TABLE_FDB, self._mac_key(data))
        local_id = layout.number("port", "local_id", data)
        if held is not None and int.from_bytes(held, "little") != local_id:
            mac = layout.unpack_mac(layout.number("port", "mac", data))
            network = layout.number("port", "network", data)
            raise ValueError(f"another port of network {network} has the MAC {mac}")

    def add(self, data: bytes) -> None:
        """Frames for the port's MAC, and its network's broadcasts, find it from now on."""
        if self._is_bridged(data):
            return
        self._bindings.claim(layout.number("port", "local_id", data), *self._claim(data))
        local_id = layout.number("port", "local_id", data)
        members = self._members.setdefault(layout.number("port", "network", data), [])
        if local_id not in members:
            self._put_member(layout.number("port", "network", data), len(members), local_id)
            members.append(local_id)
        self._c.table_put(c.TABLE_FDB, self._mac_key(data), layout.u32(local_id))

    def remove(self, data: bytes) -> None:
        local_id = layout.number("port", "local_id", data)
        self._remove_places(data)
        self.set_addresses(local_id, [])
        self._addresses.pop(local_id, None)

    def move(self, old: bytes, new: bytes) -> None:
        if self._is_bridged(new) or self._places(old) != self._places(new):
            self._remove_places(old)
        self.add(new)

    def _remove_places(self, data: bytes) -> None:
        local_id = layout.number("port", "local_id", data)
        self._bindings.forget(local_id)
        held = self._c.table_get(c.TABLE_FDB, self._mac_key(data))
        if held is not None and int.from_bytes(held, "little") == local_id:
            self._c.table_remove(c.TABLE_FDB, self._mac_key(data))
        network = layout.number("port", "network", data)
        members = self._members.get(network, [])
        if local_id not in members:
            return
        # The last one fills the hole first: for a moment it is there twice, never not at all.
        last = len(members) - 1
        index = members.index(local_id)
        self._put_member(network, index, members[last])
        self._remove_member(network, last)
        members[index] = members[last]
        members.pop()

    def _put_member(self, network: int, index: int, local_id: int) -> None:
        key = layout.pack("member_key", network=network, index=index)
        self._c.table_put(c.TABLE_MEMBERS, key, layout.u32(local_id))

    def _remove_member(self, network: int, index: int) -> None:
        key = layout.pack("member_key", network=network, index=index)
        self._c.table_remove(c.TABLE_MEMBERS, key)

    def _claim(self, data: bytes) -> tuple[int, int, list[bytes]]:
        """MAC, network and addresses: what the port is asked for by its neighbours."""
        local_id = layout.number("port", "local_id", data)
        return *self._places(data), self._addresses.get(local_id, [])

    @staticmethod
    def _places(data: bytes) -> tuple[int, int]:
        return layout.number("port", "mac", data), layout.number("port", "network", data)

    @staticmethod
    def _mac_key(data: bytes) -> bytes:
        return layout.pack(
            "mac_key",
            mac=layout.number("port", "mac", data),
            network=layout.number("port", "network", data),
        )

    @staticmethod
    def _is_bridged(data: bytes) -> bool:
        return bool(layout.number("port", "flags", data) & c.PORT_BRIDGED)

    # -- interfaces

    def set_iface(self, ifindex: int, *, kind: int, local_id: int) -> None:
        self._c.table_put(
            c.TABLE_IFACES,
            layout.u32(ifindex),
            layout.pack("iface", kind=kind, local_id=local_id),
        )

    def remove_iface(self, ifindex: int) -> None:
        self._c.table_remove(c.TABLE_IFACES, layout.u32(ifindex))

    def port_of(self, ifindex: int) -> int | None:
        """Local id of the port that the interface is guarded for."""
        data = self._c.table_get(c.TABLE_IFACES, layout.u32(ifindex))
        if data is None or layout.number("iface", "kind", data) != c.IFACE_PORT:
            return None
        return layout.number("iface", "local_id", data)

    def ifaces(self) -> list[tuple[int, bool]]:
        """(ifindex, whether it is an uplink) of everything attached."""
        return [
            (
                int.from_bytes(key, "little"),
                layout.number("iface", "kind", value) == c.IFACE_UPLINK,
            )
            for key, value in self._c.table_items(c.TABLE_IFACES)
        ]
