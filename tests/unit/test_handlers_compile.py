"""Handlers as bytes of the datapath: what is compiled says the same when it is read back."""

import ipaddress
import struct

import msgspec
import pytest
from handler_documents import PORTS, VMS, Places, rules
from hypothesis import given

from vnet_agent.datapath import layout
from vnet_agent.datapath.handlers import compile_handler, decompile_rule
from vnet_agent.handlers import document, words
from vnet_agent.model.handler import show_handler

PORT, VM = PORTS[3], next(iter(VMS))


def handler(match, *actions, **fields):
    rule = {"match": match, "actions": list(actions) or ["normal"]} | fields
    return document.rule_from_json(rule, 0)[1]


def compiled(match, *actions, **fields):
    return compile_handler(handler(match, *actions, **fields), Places())


def field(data, name, part="value"):
    return layout.number("fields", name, layout.raw("match", part, data))


@given(rules())
def test_what_is_compiled_is_read_back(rule):
    read = document.rule_from_json(rule, 3)[1]
    found = compile_handler(read, Places())
    if len(found) != 1:
        return
    assert len(found[0].match) == 192
    assert len(found[0].actions) == 128
    assert decompile_rule(found[0], PORTS) == read


@given(rules())
def test_what_is_shown_is_read_back(rule):
    read = document.rule_from_json(rule, 3)[1]
    shown = show_handler(read)
    assert document.rule_from_json(shown, 3)[1] == read
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown


@given(rules())
def test_the_ranges_are_the_mask(rule):
    read = document.rule_from_json(rule, 3)[1]
    for name in ("tcp_dst", "udp_src"):
        spelt = getattr(read.match, name)
        given = rule["match"].get(name)
        if isinstance(given, str) and "/" in given:
            value, mask = (int(part, 16) for part in given.split("/"))
            covered = [
                port for low, high in words.port_ranges(spelt) for port in range(low, high + 1)
            ]
            assert covered == [port for port in range(65536) if port & mask == value]


def test_a_match_lies_where_the_programs_look():
    (rule,) = compiled(
        {
            "in_port": PORT, "direction": "egress", "eth_src": "52:54:00:00:00:01",
            "ip_src": "10.1.0.0/16", "ip_proto": "tcp", "tcp_dst": "1000-2000",
            "vlan_vid": 5, "vlan_pcp": 3, "metadata": "0x10/0xf0",
        },
        priority=7,
    )  # fmt: skip
    assert field(rule.match, "in_port") == 3
    assert field(rule.match, "in_port", "mask") == 0xFFFFFFFF
    assert field(rule.match, "kind") == field(rule.match, "kind", "mask") == 0x10
    assert field(rule.match, "source_mac") == layout.pack_mac("52:54:00:00:00:01")
    assert field(rule.match, "family") == 4
    assert field(rule.match, "ethertype", "mask") == 0
    assert field(rule.match, "proto") == 6
    assert field(rule.match, "vlan") == 3 << 13 | 0x1000 | 5
    assert field(rule.match, "vlan", "mask") == 0xFFFF
    assert (field(rule.match, "metadata"), field(rule.match, "metadata", "mask")) == (0x10, 0xF0)
    source = layout.raw("fields", "source", layout.raw("match", "value", rule.match))
    mask = layout.raw("fields", "source", layout.raw("match", "mask", rule.match))
    assert source == layout.pack_address("10.1.0.0")
    assert mask == bytes(8) + b"\xff" * 6 + bytes(2)
    assert struct.unpack("<HHHHII", rule.match[176:]) == (0, 65535, 1000, 2000, 7, 0)


def test_actions_lie_where_the_programs_look():
    (rule,) = compiled(
        {"eth_type": "ipv4", "ip_proto": "udp"},
        {"set": {"eth_dst": "52:54:00:00:00:01", "ip_dst": "10.0.0.7", "udp_dst": 53}},
        {"mirror": PORT},
        {"push_vlan": {"vid": 5, "pcp": 3}},
        {"controller": {"max_len": 128}},
        cookie=99,
    )
    ops = list(struct.iter_unpack("<BBHIQ", rule.actions))
    assert ops[:7] == [
        (6, 2, 0, 0, layout.pack_mac("52:54:00:00:00:01")),
        (6, 4, 0, 0, int.from_bytes(ipaddress.ip_address("10.0.0.7").packed, "little")),
        (6, 8, 0, 0, 53),
        (7, 0, 0, 3, 0),
        (9, 0, 3 << 13 | 5, 0, 0),
        (5, 0, 128, 99, 0),
        (0, 0, 0, 0, 0),
    ]
    assert rule.cookie == 99


def test_an_ipv6_address_is_set_in_two_halves():
    (rule,) = compiled({"eth_type": "ipv6"}, {"set": {"ip_src": "2001:db8::7"}}, "drop")
    ops = list(struct.iter_unpack("<BBHIQ", rule.actions))
    packed = ipaddress.ip_address("2001:db8::7").packed
    assert ops[:3] == [
        (6, 5, 0, 0, int.from_bytes(packed[:8], "little")),
        (6, 3, 0, 0, int.from_bytes(packed[8:], "little")),
        (2, 0, 0, 0, 0),
    ]


def test_a_protocol_alone_is_of_both_families():
    (rule,) = compiled({"ip_proto": "tcp"})
    assert (field(rule.match, "family"), field(rule.match, "family", "mask")) == (4, 4)


@pytest.mark.parametrize(
    ("match", "ports"),
    [
        ({"instance": VM}, [3, 4]),
        ({"instance": VM, "in_port": PORT}, [3]),
        ({"instance": "00000000-0000-0000-0000-000000000001", "in_port": PORT}, []),
        ({"instance": "00000000-0000-0000-0000-000000000001"}, []),
        ({"group": "web"}, [3, 4]),
        ({"group": "db", "instance": VM}, [4]),
        ({"group": "db", "in_port": PORT}, []),
        ({"group": "nobody"}, []),
    ],
)
def test_an_instance_or_a_group_is_its_ports(match, ports):
    assert [field(rule.match, "in_port") for rule in compiled(match)] == ports


@pytest.mark.parametrize(
    ("match", "action"),
    [
        ({"in_port": "00000000-0000-0000-0000-000000000001"}, "drop"),
        ({}, {"output": "00000000-0000-0000-0000-000000000001"}),
    ],
)
def test_what_names_a_port_that_is_not_here_waits(match, action):
    assert compiled(match, action) == []
    assert len(compiled({}, {"output": "uplink"})) == 1


def test_a_mask_of_ports_becomes_ranges():
    found = compiled({"ip_proto": "udp", "udp_dst": "0x0004/0xfff5"})
    assert [struct.unpack("<HH", rule.match[180:184]) for rule in found] == [
        (4, 4),
        (6, 6),
        (12, 12),
        (14, 14),
    ]


@pytest.mark.parametrize("at", [0, 1])
def test_bytes_that_no_document_makes_are_refused(at):
    (rule,) = compiled({}, {"set": {"metadata": 1}}, "normal")
    broken = rule.actions[:at] + b"\x63" + rule.actions[at + 1 :]
    with pytest.raises(ValueError, match="there is no"):
        decompile_rule(rule._replace(actions=broken), PORTS)
