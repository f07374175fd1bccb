"""What [datapath] uplinks says: the networks of each interface, untagged or with an 802.1Q id."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from vnet_agent.exceptions import ConfigError
from vnet_agent.virt.fields import MAX_NETWORK

_VALUE = re.compile(r"([^\s:/]{1,15})(?::([0-9]{1,8})(?::vlan=([0-9]{1,4}))?)?\Z")
_MAX_VLAN = 4094


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    """`network` is the untagged one, None: there is none; `vlans` are networks by their tag."""

    network: int | None
    vlans: Mapping[int, int]


def read_uplinks(values: Sequence[str]) -> dict[str, Uplink]:
    """By interface. Raises ConfigError for what no frame could follow, such as a network twice."""
    untagged: dict[str, int] = {}
    tagged: dict[str, dict[int, int]] = {}
    networks: set[int] = set()
    for value in values:
        name, network, vlan = _read(value)
        if network in networks:
            raise _wrong(value, f"network {network} has an uplink already")
        networks.add(network)
        vlans = tagged.setdefault(name, {})
        if vlan is None and name in untagged:
            raise _wrong(value, f"network {untagged[name]} leaves {name} untagged already")
        if vlan in vlans:
            raise _wrong(value, f"VLAN {vlan} of {name} is network {vlans[vlan]} already")
        if vlan is None:
            untagged[name] = network
        else:
            vlans[vlan] = network
    return {
        name: Uplink(network=untagged.get(name), vlans=vlans) for name, vlans in tagged.items()
    }


def _read(value: str) -> tuple[str, int, int | None]:
    match = _VALUE.match(value)
    if match is None:
        raise _wrong(value, "it is not NAME, NAME:NETWORK or NAME:NETWORK:vlan=ID")
    network = int(match[2] or 0)
    if network > MAX_NETWORK:
        raise _wrong(value, f"a network number is at most {MAX_NETWORK}")
    if match[3] is None:
        return match[1], network, None
    vlan = int(match[3])
    if not 1 <= vlan <= _MAX_VLAN:
        raise _wrong(value, f"an 802.1Q id is 1 to {_MAX_VLAN}")
    return match[1], network, vlan


def _wrong(value: str, detail: str) -> ConfigError:
    return ConfigError(detail=f"[datapath] uplinks: {value!r}: {detail}")
