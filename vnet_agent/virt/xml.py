"""From a domain XML to the VM's ports: one pure function, safe on hostile input.

The format is libvirt's (https://libvirt.org/formatdomain.html#network-interfaces), the metadata
Nova's (nova/virt/libvirt/config.py: LibvirtConfigGuestMetaNova*) or, where there is no Nova,
this project's own:

    <vnet:ports xmlns:vnet="urn:vnet-agent:domain:1">
      <vnet:port mac="52:54:00:00:00:01" uuid="..." network="7">
        <vnet:ip address="192.0.2.1"/>
      </vnet:port>
    </vnet:ports>

`uuid` and `network` may be left out; `port_security="false"` takes all checks off the port.
"""

from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element

from vnet_agent.exceptions import DomainXmlError
from vnet_agent.model.port import Port, derive_port_uuid
from vnet_agent.virt import fields, metadata, safe_xml
from vnet_agent.virt.metadata import Metadata, PortFacts

MAX_PORTS = 256
_NOTHING = PortFacts()


def parse_ports(xml: str, *, domain: str = "(unnamed)") -> tuple[Port, ...]:
    """The ports of a domain, in its order; `domain` is its name for messages until it is read.

    Interfaces of the types `ethernet` and `bridge` count, once they have a target device: an
    inactive domain may have none. Raises DomainXmlError when anything that is used is wrong; the
    domain is then refused as a whole.
    """
    try:
        root = safe_xml.parse(xml)
        if root.tag != "domain":
            raise ValueError(f"the root is {fields.quote(root.tag)}, not domain")
        name = _text(root, "name", fields.name)
        domain = name
        instance = _text(root, "uuid", fields.identifier)
        facts = metadata.read(root)
        ports = tuple(_ports(root, instance, name, facts))
        _refuse_twice(ports)
    except ValueError as error:
        raise DomainXmlError(domain=fields.quote(domain)[1:-1], detail=str(error)) from None
    return ports


def _ports(root: Element, instance: str, name: str, facts: Metadata) -> Iterator[Port]:
    interfaces = root.findall("devices/interface")
    if len(interfaces) > MAX_PORTS:
        raise ValueError(f"more than {MAX_PORTS} interfaces")
    named = _match_nova(interfaces, facts.nova)
    for index, interface in enumerate(interfaces):
        target = interface.find("target")
        if interface.get("type") not in ("ethernet", "bridge") or target is None:
            continue
        if target.get("dev") is None:
            continue
        try:
            yield _port(interface, target, instance, name, facts, named.get(index, _NOTHING))
        except ValueError as error:
            raise ValueError(f"interface {index + 1}: {error}") from None


def _port(
    interface: Element, target: Element, instance: str, name: str, facts: Metadata, nova: PortFacts
) -> Port:
    element = interface.find("mac")
    if element is None:
        raise ValueError("it has no MAC address")
    mac = fields.attribute(element, "address", fields.mac, "mac")
    own = facts.own.get(mac, _NOTHING)
    return Port(
        uuid=own.uuid or nova.uuid or derive_port_uuid(instance, mac),
        instance=instance,
        instance_name=name,
        tap=fields.attribute(target, "dev", fields.interface, "target"),
        mac=mac,
        addresses=own.addresses or nova.addresses,
        allowed_address_pairs=own.allowed_address_pairs,
        mtu=_number(interface, "mtu", "size", fields.MAX_MTU),
        queues=_number(interface, "driver", "queues", fields.MAX_QUEUES) or 1,
        bridge=_bridge(interface),
        network=own.network or 0,
        project=facts.project,
        port_security=own.port_security is not False,
    )


def _bridge(interface: Element) -> str | None:
    if interface.get("type") != "bridge":
        return None
    source = interface.find("source")
    if source is None:
        raise ValueError("type bridge, but no source")
    return fields.attribute(source, "bridge", fields.interface, "source")


def _number(interface: Element, child: str, key: str, high: int) -> int | None:
    element = interface.find(child)
    if element is None:
        return None
    return fields.optional(element, key, lambda text: fields.number(text, 1, high), child)


def _match_nova(interfaces: list[Element], nova: tuple[PortFacts, ...]) -> dict[int, PortFacts]:
    """Nova's ports by the index of their interface.

    Nova names a tap `tap` and the first 11 characters of the port's id. Interfaces of other
    names are matched by order, but only if that leaves nothing over on either side: a port that
    is a passed-through device has no interface, and a wrong match would be worse than none.
    """
    matched: dict[int, PortFacts] = {}
    by_tap = {f"tap{port.uuid[:11]}": port for port in nova if port.uuid}
    for index, interface in enumerate(interfaces):
        target = interface.find("target")
        port = None if target is None else by_tap.pop(target.get("dev", ""), None)
        if port is not None:
            matched[index] = port
    rest = [index for index in range(len(interfaces)) if index not in matched]
    if len(rest) == len(by_tap):
        matched.update(zip(rest, by_tap.values(), strict=True))
    return matched


def _refuse_twice(ports: tuple[Port, ...]) -> None:
    for what in ("uuid", "tap", "mac"):
        values = [getattr(port, what) for port in ports]
        if len(set(values)) != len(values):
            raise ValueError(f"two interfaces have the same {what}")


def _text(root: Element, tag: str, check: Callable[[str], str]) -> str:
    element = root.find(tag)
    if element is None:
        raise ValueError(f"{tag} is missing")
    try:
        return check((element.text or "").strip())
    except ValueError as error:
        raise ValueError(f"{tag}: {error}") from None
