"""A VM's port, from the domain XML to the datapath."""

import enum
import re
import uuid

import msgspec

MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\Z")

#: Namespace of port UUIDs that are derived where no Neutron names the port.
_DERIVED = uuid.UUID("6d0a5c52-59a5-5c0c-9a55-6a1c3b6f0e6d")


class Role(enum.StrEnum):
    """What this host is to a port."""

    STANDBY = "standby"
    """Prepared for a VM that is coming; frames for it still go to the uplink."""

    ACTIVE = "active"
    """The VM's guest runs here (or is paused or rebooting here)."""

    MOVED = "moved"
    """The VM runs elsewhere; kept until the source's clean-up."""


class AddressPair(msgspec.Struct, frozen=True, kw_only=True):
    """What a port may use besides its own addresses, as OpenStack has it: a CIDR with one MAC."""

    ip_address: str
    mac_address: str


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of one VM.

    `uuid` is Neutron's port UUID or, without Neutron, one derived from instance and MAC, so that
    it is the same on every host. `mac` is lower case with colons. `addresses` are the fixed
    addresses, textual, without prefix; empty means that they are unknown, and source addresses
    are then not checked. `network` separates address spaces. `bridge` is set for `<interface
    type='bridge'>`, where the Linux bridge forwards and the datapath only guards. Without
    `port_security` it does not even guard.
    """

    uuid: str
    instance: str
    instance_name: str
    tap: str
    mac: str
    addresses: tuple[str, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    mtu: int | None = None
    queues: int = 1
    bridge: str | None = None
    network: int = 0
    project: str | None = None
    port_security: bool = True

    @property
    def alias(self) -> str:
        """The tag that `ip -d link` shows on the tap."""
        return f"vnet instance={self.instance} port={self.uuid}"


class PortState(msgspec.Struct, frozen=True, kw_only=True):
    """A port on this host. `ifindex` is the tap's, None while there is none.

    `tagged` says that the tap carries the port's alias and the datapath guards it. `local_id` is
    the datapath's id of the port.
    """

    port: Port
    role: Role
    generation: int
    ifindex: int | None
    tagged: bool
    local_id: int | None


def derive_port_uuid(instance: str, mac: str) -> str:
    """The UUID of a port that nobody named: the same on every host that sees the VM."""
    return str(uuid.uuid5(_DERIVED, f"{instance}/{mac}"))
