"""What Nova or an operator wrote about a domain's ports into its metadata."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import msgspec

from vnet_agent.model.port import AddressPair
from vnet_agent.virt import fields

NOVA = (
    "http://openstack.org/xmlns/libvirt/nova/1.1",
    "http://openstack.org/xmlns/libvirt/nova/1.0",
)
OWN = "urn:vnet-agent:domain:1"
MAX_ADDRESSES = 64
MAX_PAIRS = 64


class PortFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one port. Nova names no MAC: then `mac` is None and `uuid` is not."""

    mac: str | None = None
    uuid: str | None = None
    addresses: tuple[str, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    network: int | None = None
    port_security: bool | None = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """`nova` is in the order of the domain's interfaces; `own` is by MAC."""

    project: str | None = None
    nova: tuple[PortFacts, ...] = ()
    own: dict[str, PortFacts] = {}


def read(domain: Element) -> Metadata:
    """The domain's metadata; ValueError names the element that is wrong."""
    element = domain.find("metadata")
    if element is None:
        return Metadata()
    project: str | None = None
    nova: tuple[PortFacts, ...] = ()
    for namespace in NOVA:
        instance = element.find(f"{{{namespace}}}instance")
        if instance is not None:
            project, nova = _read_nova(instance, f"{{{namespace}}}")
            break
    return Metadata(project=project, nova=nova, own=_read_own(element))


def _read_nova(instance: Element, prefix: str) -> tuple[str | None, tuple[PortFacts, ...]]:
    owner = instance.find(f"{prefix}owner/{prefix}project")
    project = (
        None if owner is None else fields.attribute(owner, "uuid", fields.project, "nova:project")
    )
    ports = tuple(
        PortFacts(
            uuid=fields.attribute(port, "uuid", fields.identifier, "nova:port"),
            addresses=_addresses(
                [ip for ip in port.findall(f"{prefix}ip") if ip.get("type") == "fixed"], "nova:ip"
            ),
        )
        for port in instance.findall(f"{prefix}ports/{prefix}port")
    )
    _refuse_twice("nova:port", [port.uuid for port in ports])
    return project, ports


def _read_own(metadata: Element) -> dict[str, PortFacts]:
    ports: dict[str, PortFacts] = {}
    for port in metadata.iter(f"{{{OWN}}}port"):
        mac = fields.attribute(port, "mac", fields.mac, "vnet:port")
        if mac in ports:
            raise ValueError(f"vnet:port: {mac} stands twice")
        ports[mac] = PortFacts(
            mac=mac,
            uuid=fields.optional(port, "uuid", fields.identifier, "vnet:port"),
            network=fields.optional(port, "network", _network, "vnet:port"),
            addresses=_addresses(port.findall(f"{{{OWN}}}ip"), "vnet:ip"),
            allowed_address_pairs=_pairs(port.findall(f"{{{OWN}}}pair"), mac),
            port_security=fields.optional(port, "port_security", _truth, "vnet:port"),
        )
    _refuse_twice("vnet:port", [port.uuid for port in ports.values() if port.uuid])
    return ports


def _network(value: str) -> int:
    return fields.number(value, 0, fields.MAX_NETWORK)


def _truth(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(f"{fields.quote(value)} is neither true nor false")
    return value == "true"


def _addresses(elements: Sequence[Element], what: str) -> tuple[str, ...]:
    if len(elements) > MAX_ADDRESSES:
        raise ValueError(f"{what}: more than {MAX_ADDRESSES} addresses on a port")
    found = (fields.attribute(element, "address", fields.address, what) for element in elements)
    return tuple(dict.fromkeys(found))


def _pairs(elements: Sequence[Element], own: str) -> tuple[AddressPair, ...]:
    """Without a MAC it is the port's own."""
    if len(elements) > MAX_PAIRS:
        raise ValueError(f"vnet:pair: more than {MAX_PAIRS} allowed address pairs on {own}")
    found = (
        AddressPair(
            ip_address=fields.attribute(element, "address", fields.prefix, f"vnet:pair of {own}"),
            mac_address=fields.optional(element, "mac", fields.mac, f"vnet:pair of {own}") or own,
        )
        for element in elements
    )
    return tuple(dict.fromkeys(found))


def _refuse_twice(what: str, values: Sequence[object]) -> None:
    if len(set(values)) != len(values):
        raise ValueError(f"{what}: a uuid stands twice")
