"""Ports out of domain XML: what Nova, plain libvirt and an attacker write."""

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnet_agent.exceptions import DomainXmlError
from vnet_agent.model.port import AddressPair, Port, derive_port_uuid
from vnet_agent.virt import safe_xml
from vnet_agent.virt.xml import parse_ports

INSTANCE = "5f6c1f6e-3f0b-4a57-9a3e-6d2f1d5f7a01"
PORT_A = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
PORT_B = "1a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
MAC_A = "fa:16:3e:00:00:0a"
MAC_B = "fa:16:3e:00:00:0b"


def interface(
    tap: str | None = "tap0a1b2c3d-4e", mac: str = MAC_A, kind: str = "ethernet", extra: str = ""
) -> str:
    target = "" if tap is None else f"<target dev='{tap}' managed='no'/>"
    return f"<interface type='{kind}'><mac address='{mac}'/>{target}{extra}</interface>"


def domain(
    *interfaces: str, metadata: str = "", name: str = "vm1", instance: str = INSTANCE
) -> str:
    return (
        f"<domain type='qemu' id='3'><name>{name}</name><uuid>{instance}</uuid>"
        f"<metadata>{metadata}</metadata><devices>{''.join(interfaces)}</devices></domain>"
    )


def nova(
    *ports: str, version: str = "1.1", project: str = "4f3e2d1c0b9a48778695a4b3c2d1e0f0"
) -> str:
    return (
        f"<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/{version}'>"
        f"<nova:name>web</nova:name><nova:owner><nova:user uuid='u'>admin</nova:user>"
        f"<nova:project uuid='{project}'>demo</nova:project></nova:owner>"
        f"<nova:ports>{''.join(ports)}</nova:ports></nova:instance>"
    )


def nova_port(port: str, *addresses: str) -> str:
    ips = "".join(f"<nova:ip type='fixed' address='{a}' ipVersion='4'/>" for a in addresses)
    return f"<nova:port uuid='{port}'>{ips}</nova:port>"


def own(ports: str) -> str:
    return f"<v:ports xmlns:v='urn:vnet-agent:domain:1'>{ports}</v:ports>"


def test_a_nova_port_with_everything() -> None:
    xml = domain(
        interface(extra="<driver name='qemu' queues='4'/><mtu size='1450'/><alias name='net0'/>"),
        metadata=nova(nova_port(PORT_A, "192.0.2.5", "2001:DB8::5")),
    )
    assert parse_ports(xml) == (
        Port(
            uuid=PORT_A,
            instance=INSTANCE,
            instance_name="vm1",
            tap="tap0a1b2c3d-4e",
            mac=MAC_A,
            addresses=("192.0.2.5", "2001:db8::5"),
            mtu=1450,
            queues=4,
            project="4f3e2d1c0b9a48778695a4b3c2d1e0f0",
        ),
    )


def test_nova_1_0() -> None:
    xml = domain(interface(), metadata=nova(nova_port(PORT_A), version="1.0"))
    assert parse_ports(xml)[0].uuid == PORT_A


def test_only_fixed_addresses_belong_to_the_port() -> None:
    port = (
        f"<nova:port uuid='{PORT_A}'><nova:ip type='floating' address='198.51.100.1'/>"
        "<nova:ip type='fixed' address='192.0.2.5'/></nova:port>"
    )
    assert parse_ports(domain(interface(), metadata=nova(port)))[0].addresses == ("192.0.2.5",)


def test_ports_are_matched_by_tap_not_by_order() -> None:
    xml = domain(
        interface("tap1a1b2c3d-4e", MAC_B),
        interface(),
        metadata=nova(nova_port(PORT_A), nova_port(PORT_B)),
    )
    assert [(port.uuid, port.mac) for port in parse_ports(xml)] == [
        (PORT_B, MAC_B),
        (PORT_A, MAC_A),
    ]


def test_ports_are_matched_by_order_where_names_say_nothing() -> None:
    xml = domain(
        interface("vnet0"),
        interface("vnet1", MAC_B),
        metadata=nova(nova_port(PORT_A), nova_port(PORT_B)),
    )
    assert [port.uuid for port in parse_ports(xml)] == [PORT_A, PORT_B]


def test_no_match_by_order_when_something_is_left_over() -> None:
    xml = domain(interface("vnet0"), metadata=nova(nova_port(PORT_A), nova_port(PORT_B)))
    assert parse_ports(xml)[0].uuid == derive_port_uuid(INSTANCE, MAC_A)


def test_plain_libvirt_with_own_metadata() -> None:
    xml = domain(
        interface("vnet0", MAC_A.upper()),
        metadata=own(
            f"<v:port mac='{MAC_A}' uuid='{PORT_A}' network='7'>"
            "<v:ip address='192.0.2.9'/></v:port>"
        ),
    )
    (port,) = parse_ports(xml)
    assert (port.uuid, port.network, port.addresses, port.mac) == (
        PORT_A,
        7,
        ("192.0.2.9",),
        MAC_A,
    )


def test_allowed_address_pairs_have_the_ports_mac_unless_they_say_another() -> None:
    pairs = (
        "<v:pair address='10.0.0.1'/><v:pair address='2001:DB8::/64'/>"
        "<v:pair address='10.0.0.1/32' mac='00:00:5E:00:01:07'/><v:pair address='10.0.0.1'/>"
    )
    metadata = own(f"<v:port mac='{MAC_A}'>{pairs}</v:port>")
    (port,) = parse_ports(domain(interface("vnet0"), metadata=metadata))
    assert port.allowed_address_pairs == (
        AddressPair(ip_address="10.0.0.1/32", mac_address=MAC_A),
        AddressPair(ip_address="2001:db8::/64", mac_address=MAC_A),
        AddressPair(ip_address="10.0.0.1/32", mac_address="00:00:5e:00:01:07"),
    )


@pytest.mark.parametrize(
    ("attribute", "secured"),
    [("", True), ("port_security='true'", True), ("port_security='false'", False)],
)
def test_port_security_is_on_unless_said(attribute, secured) -> None:
    metadata = own(f"<v:port mac='{MAC_A}' {attribute}/>")
    (port,) = parse_ports(domain(interface("vnet0"), metadata=metadata))
    assert port.port_security is secured


def test_plain_libvirt_without_metadata_derives_the_port() -> None:
    (port,) = parse_ports(domain(interface("vnet0")))
    assert port.uuid == derive_port_uuid(INSTANCE, MAC_A)
    assert (port.addresses, port.network, port.mtu, port.queues) == ((), 0, None, 1)


def test_a_bridge() -> None:
    (port,) = parse_ports(domain(interface(kind="bridge", extra="<source bridge='br0'/>")))
    assert port.bridge == "br0"


@pytest.mark.parametrize("kind", ["user", "hostdev", "vhostuser", "network", ""])
def test_other_interfaces_are_no_ports(kind: str) -> None:
    assert parse_ports(domain(interface(kind=kind))) == ()


def test_an_interface_without_a_tap_yet_is_no_port() -> None:
    assert parse_ports(domain(interface(tap=None))) == ()


PREFIX = "Domain XML of vm1 refused: "

BAD = {
    "multicast MAC": (
        domain(interface(mac="01:00:5e:00:00:01")),
        "interface 1: mac address: 01:00:5e:00:00:01 is a multicast address",
    ),
    "no MAC": (
        domain(interface(), "<interface type='ethernet'><target dev='a'/></interface>"),
        "interface 2: it has no MAC address",
    ),
    "short MAC": (domain(interface(mac="fa:16")), "'fa:16' is not a MAC address"),
    "long tap": (domain(interface("t" * 16)), f"target dev: '{'t' * 16}' is not the name"),
    "tap with a slash": (domain(interface("../x")), "'../x' is not the name of an interface"),
    "tap with a line break": (domain(interface("a&#10;b")), r"'a\nb' is not the name"),
    "tap beyond ASCII": (domain(interface("täp")), "is not the name of an interface"),
    "no queues": (domain(interface(extra="<driver queues='0'/>")), "driver queues: '0' is not"),
    "MTU": (domain(interface(extra="<mtu size='9e9'/>")), "mtu size: '9e9' is not a number"),
    "bridge without a name": (domain(interface(kind="bridge")), "type bridge, but no source"),
    "nova port": (domain(metadata=nova(nova_port("x"))), "nova:port uuid: 'x' is not a UUID"),
    "nova address": (
        domain(metadata=nova(nova_port(PORT_A, "192.0.2.256"))),
        "nova:ip address: '192.0.2.256' is not an IP address",
    ),
    "zone": (domain(metadata=nova(nova_port(PORT_A, "fe80::1%eth0"))), "has a zone"),
    "multicast address": (domain(metadata=nova(nova_port(PORT_A, "ff02::1"))), "one host"),
    "project": (domain(metadata=nova(project="a b")), "nova:project uuid: 'a b' is not the id"),
    "own without a MAC": (
        domain(metadata=own("<v:port/>")),
        "vnet:port: attribute mac is missing",
    ),
    "network": (
        domain(metadata=own(f"<v:port mac='{MAC_A}' network='-1'/>")),
        "vnet:port network: '-1' is not a number from 0",
    ),
    "port security": (
        domain(metadata=own(f"<v:port mac='{MAC_A}' port_security='off'/>")),
        "vnet:port port_security: 'off' is neither true nor false",
    ),
    "pair": (
        domain(metadata=own(f"<v:port mac='{MAC_A}'><v:pair address='10.0.0.1/8'/></v:port>")),
        f"vnet:pair of {MAC_A} address: '10.0.0.1/8' is not a CIDR",
    ),
    "pair of a group": (
        domain(metadata=own(f"<v:port mac='{MAC_A}'><v:pair address='ff02::/16'/></v:port>")),
        "ff02::/16 is not the address of one host",
    ),
    "pair's MAC": (
        domain(
            metadata=own(
                f"<v:port mac='{MAC_A}'>"
                "<v:pair address='10.0.0.1' mac='01:00:5e:00:00:01'/></v:port>"
            )
        ),
        f"vnet:pair of {MAC_A} mac: 01:00:5e:00:00:01 is a multicast address",
    ),
    "pairs": (
        domain(
            metadata=own(
                f"<v:port mac='{MAC_A}'>" + "<v:pair address='10.0.0.1'/>" * 65 + "</v:port>"
            )
        ),
        f"vnet:pair: more than 64 allowed address pairs on {MAC_A}",
    ),
    "own twice": (domain(metadata=own(f"<v:port mac='{MAC_A}'/>" * 2)), "stands twice"),
    "nova twice": (domain(metadata=nova(nova_port(PORT_A) * 2)), "a uuid stands twice"),
    "tap twice": (domain(interface(), interface(mac=MAC_B)), "two interfaces have the same tap"),
    "MAC twice": (domain(interface(), interface("t2")), "two interfaces have the same uuid"),
    "instance": (domain(instance="nobody"), "uuid: 'nobody' is not a UUID"),
    "nil instance": (domain(instance=str(uuid.UUID(int=0))), "is not a UUID"),
    "braces": (domain(instance="{" + INSTANCE + "}"), "is not a UUID"),
    "interfaces": (domain(interface() * 300), "more than 256 interfaces"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_fields_are_named(case: str) -> None:
    xml, reason = BAD[case]
    with pytest.raises(DomainXmlError) as caught:
        parse_ports(xml)
    assert str(caught.value).startswith(PREFIX)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


HOSTILE = {
    "empty": ("", "line 1: no element found"),
    "no XML": ("hello", "line 1: syntax error"),
    "other root": ("<network/>", "the root is 'network', not domain"),
    "no name": ("<domain/>", "name is missing"),
    "empty name": (domain(name=" "), "name: '' is not a name"),
    "laughs": (
        "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><domain><name>&b;</name></domain>",
        "document types and entities are not accepted",
    ),
    "external entity": (
        "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>",
        "document types and entities are not accepted",
    ),
    "external document type": ("<!DOCTYPE d SYSTEM 'http://h/d'><domain/>", "not accepted"),
    "undefined entity": ("<domain><name>&x;</name></domain>", "undefined entity"),
    "depth": ("<domain>" + "<a>" * 100 + "</a>" * 100 + "</domain>", "nested deeper than 64"),
    "width": ("<domain>" + "<a/>" * 60_000 + "</domain>", "more than 50000 elements"),
    "size": ("<domain>" + "x" * safe_xml.MAX_BYTES + "</domain>", "bytes are more than"),
    "attributes": (
        "<domain " + " ".join(f"a{i}='1'" for i in range(100)) + "/>", "more than 64 attributes"
    ),
    "surrogate": ("<domain>\ud800</domain>", "not text"),
    "NUL": ("<domain>\x00</domain>", "line 1: "),
    "declared as something else": ("<?xml version='1.0' encoding='utf-16'?><domain/>", "missing"),
    "unbound prefix": ("<domain><a:b/></domain>", "unbound prefix"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_documents_are_refused(case: str) -> None:
    xml, reason = HOSTILE[case]
    with pytest.raises(DomainXmlError, match=reason.replace("(", r"\(")):
        parse_ports(xml, domain="vm1")


def test_long_values_are_cut_in_the_message() -> None:
    with pytest.raises(DomainXmlError) as caught:
        parse_ports(domain(interface(mac="x" * 100_000)))
    assert len(str(caught.value)) < 300


PIECES = st.sampled_from(
    [
        domain(), interface(), nova(), own(""), nova_port(PORT_A, "192.0.2.1"), "<", ">", "&", "'",
        "<!DOCTYPE", "]]>", "<![CDATA[", "&#0;", "&#x10ffff;", "\x00", "uuid=''", "dev='a'",
        f"<v:port mac='{MAC_A}'/>", "<metadata>", "</metadata>", "<domain>", "</domain>",
        "<devices>", "</devices>", f"<name>n</name><uuid>{INSTANCE}</uuid>", "\ud800", "ä",
    ]
)  # fmt: skip


def check_port(port: Port) -> None:
    """What the rest of the agent relies on."""
    assert str(uuid.UUID(port.uuid)) == port.uuid
    assert str(uuid.UUID(port.instance)) == port.instance
    assert 1 <= len(port.tap.encode()) <= 15
    assert len(port.alias) < 256
    assert port.instance_name.isprintable()
    assert 1 <= port.queues <= 256


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.text(max_size=8), max_size=12))
def test_any_mixture_gives_ports_or_one_clear_error(pieces: list[str]) -> None:
    refusal = ""
    try:
        for port in parse_ports("".join(pieces)):
            check_port(port)
    except DomainXmlError as error:
        refusal = str(error)
    assert "\n" not in refusal


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_gives_ports_or_one_clear_error(data: st.DataObject) -> None:
    whole = domain(
        interface(extra="<driver queues='4'/><mtu size='1450'/>"),
        metadata=nova(nova_port(PORT_A, "192.0.2.5")) + own(f"<v:port mac='{MAC_A}'/>"),
    )
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    damaged = whole[:start] + data.draw(st.text(max_size=20) | PIECES) + whole[end:]
    try:
        ports = parse_ports(damaged)
    except DomainXmlError:
        return
    for port in ports:
        check_port(port)
