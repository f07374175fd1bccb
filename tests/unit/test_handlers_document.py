"""Documents of handlers: what is taken, and that what is refused says where and why."""

import json
import re
from pathlib import Path

import pytest
from handler_documents import rules
from hypothesis import given

from vnet_agent.exceptions import HandlerError
from vnet_agent.handlers import document
from vnet_agent.model.handler import Action, Kind, Match, Miss, show_handler

PORT = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

GOOD = f"""\
table: 3
miss: controller
rules:
  - priority: 200
    match: {{in_port: {PORT.upper()}, ip_proto: 6, tcp_dst: 0x1000/0xf000, tcp_flags: -ack+syn}}
    actions: [drop]
    cookie: 0x10
  - match: {{eth_type: 0x0800, ip_dst: 192.0.2.1, metadata: 16/255}}
    actions:
      - set: {{ip_dst: 10.0.0.7}}
      - controller
  - actions: [{{output: uplink}}]
"""


def test_reads_a_table():
    table = document.parse_table(GOOD, 3, name="t.yaml")
    first, second, third = table.rules
    assert table.miss is Miss.CONTROLLER
    assert first.priority == 200
    assert first.cookie == 16
    assert first.match == Match(
        in_port=PORT, ip_proto="tcp", tcp_dst="4096-8191", tcp_flags="+syn-ack"
    )
    assert second.match == Match(eth_type="ipv4", ip_dst="192.0.2.1/32", metadata="0x10/0xff")
    assert second.actions == (
        Action(kind=Kind.SET, field="ip_dst", value="10.0.0.7"),
        Action(kind=Kind.CONTROLLER, number=65535),
    )
    assert third.priority == 32768
    assert third.match == Match()


def test_json_is_read_too():
    table = document.parse_table(GOOD, 3, name="x")
    text = json.dumps({"miss": table.miss, "rules": [show_handler(rule) for rule in table.rules]})
    assert document.parse_table(text, 3, name="x") == table
    assert document.table_from_json(json.loads(text), 3) == table


def test_reads_translations():
    text = rule(
        "eth_type: ipv4, ip_proto: tcp",
        "[{dnat: 10.0.0.9}, {snat: {address: 203.0.113.7, port: 1024-2047}}, normal]",
    )
    (read,) = document.parse_table(text, 0, name="x").rules
    assert read.actions == (
        Action(kind=Kind.DNAT, value="10.0.0.9"),
        Action(kind=Kind.SNAT, value="203.0.113.7", number=1024 | 2047 << 16),
        Action(kind=Kind.NORMAL),
    )


def rule(match="", actions="[drop]", more=""):
    return f"rules:\n- match: {{{match}}}\n  actions: {actions}\n{more}"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "empty"),
        ("{}", 1, "no `rules`"),
        ("rules: 3", 1, "must be a list"),
        ("table: 4\nrules: []", 1, "table 4, and the request table 3"),
        ("table: 16\nrules: []", 1, "16 is no number from 0 to 15"),
        ("miss: pass\nrules: []", 1, "'pass' is not one of continue, drop, controller"),
        ("rules:\n- {}", 2, "needs actions"),
        ("rules:\n- {actions: drop}", 2, "must be a list"),
        ("rules:\n- {actions: []}", 2, "the last action must say where"),
        (rule("vlan_vid: 1") + "- match: {vlan_vid: 0x1}\n  actions: [normal]", 4, "at f:2 has"),
        (rule("colour: red"), 2, "unknown key 'colour' in a match"),
        (rule(more="  priority: 65536\n"), 4, "no number from 0 to 65535"),
        (rule(more="  cookie: 0x100000000\n"), 4, "no number from 0 to 4294967295"),
        (rule("in_port: tap1"), 2, "'tap1' is no UUID"),
        (rule("direction: in"), 2, "not one of ingress, egress"),
        (rule("eth_src: 1:2"), 2, "no MAC address"),
        (rule("eth_src: 52:54:00:00:00:01/00:00:00:00:00:00"), 2, "its mask is 0"),
        (rule("eth_src: 52:54:00:00:00:01/ff:ff:ff:00:00:00"), 2, "bits outside of its mask"),
        (rule("eth_type: ip"), 2, "not one of ipv4, ipv6, arp, nor a number"),
        (rule("eth_type: 5"), 2, "nor a number 1536-65535"),
        (rule("vlan_vid: 4096"), 2, "4096 is no VLAN"),
        (rule("vlan_vid: true"), 2, "True is no VLAN"),
        (rule("vlan_pcp: 3"), 2, "vlan_pcp needs a vlan_vid"),
        (rule("vlan_pcp: 3, vlan_vid: none"), 2, "vlan_pcp needs a vlan_vid"),
        (rule("arp_op: request"), 2, "arp_op needs eth_type: arp"),
        (rule("arp_spa: 10.0.0.1, eth_type: ipv4"), 2, "arp_spa needs eth_type: arp"),
        (rule("arp_tpa: '::1', eth_type: arp"), 2, "no IPv4 address"),
        (rule("ip_src: 10.0.0.1/8"), 2, "has host bits set"),
        (rule("ip_src: 10.0.0.1/33"), 2, "no CIDR"),
        (rule("ip_src: 10.0.0.1, ip_dst: '::1'"), 2, "ip_dst says ipv6"),
        (rule("ip_src: 10.0.0.1, eth_type: arp"), 2, "ip_src says ipv4"),
        (rule("ip_proto: icmp, eth_type: ipv6"), 2, "ip_proto says ipv4"),
        (rule("ip_proto: tcp, eth_type: arp"), 2, "ip_proto needs eth_type ipv4 or ipv6"),
        (rule("ip_proto: tpc"), 2, "'tpc' is not one of"),
        (rule("ip_dscp: 64"), 2, "no number from 0 to 63"),
        (rule("ip_dscp: 6"), 2, "ip_dscp needs eth_type"),
        (rule("fragment: first"), 2, "fragment needs eth_type"),
        (rule("fragment: maybe, ip_proto: tcp"), 2, "not one of no, first"),
        (rule("tcp_dst: 80"), 2, "tcp_dst needs ip_proto: tcp"),
        (rule("tcp_dst: 80, ip_proto: udp"), 2, "tcp_dst needs ip_proto: tcp"),
        (rule("tcp_flags: +syn, ip_proto: udp"), 2, "tcp_flags needs ip_proto: tcp"),
        (rule("tcp_flags: syn, ip_proto: tcp"), 2, "not such as +fin"),
        (rule("tcp_flags: +sin, ip_proto: tcp"), 2, "'sin' is not one of"),
        (rule("tcp_flags: +syn-syn, ip_proto: tcp"), 2, "set and clear at once"),
        (rule("tcp_dst: 65536, ip_proto: tcp"), 2, "65536 is no port"),
        (rule("tcp_dst: 9-8, ip_proto: tcp"), 2, "no range within"),
        (rule("tcp_dst: 5/4, ip_proto: tcp"), 2, "outside of its mask"),
        (rule("tcp_dst: 0x1/0x1, ip_proto: tcp"), 2, "makes 32768 ranges"),
        (rule("icmp_type: 8"), 2, "icmp_type needs ip_proto"),
        (rule("icmp_code: 8, ip_proto: icmp"), 2, "icmp_code needs an icmp_type"),
        (rule("conn_state: +open"), 2, "'open' is not one of trk, new"),
        (rule("conn_mark: 0x100000000"), 2, "no number up to 0xffffffff"),
        (rule("metadata: 0x1/0x0"), 2, "its mask is 0"),
        (rule(actions="[drop, drop]"), 3, "nothing can follow drop"),
        (rule(actions="[pop_vlan]"), 3, "the last action must say where"),
        (rule(actions="[jump]"), 3, "'jump' is no action"),
        (rule(actions="[7]"), 3, "7 is no action"),
        (rule(actions="[{drop: 1}]"), 3, "drop takes no value"),
        (rule(actions="[output]"), 3, "output needs a value"),
        (rule(actions="[{output: 1, drop: 2}]"), 3, "one name and its value"),
        (rule(actions="[{output: eth0}]"), 3, "no UUID"),
        (rule(actions="[{mirror: uplink}]"), 3, "no UUID"),
        (rule(actions="[{output: []}]"), 3, "output needs a port"),
        (rule(actions="[{output: [uplink, uplink]}]"), 3, "no UUID"),
        (rule(actions="[{group: 1}]"), 3, "a group of ports is written as a list"),
        (rule(actions="[{goto: 3}]"), 3, "no table behind this one: 4 to 15"),
        (rule(actions="[{goto: 16}]"), 3, "no table behind this one: 4 to 15"),
        (rule(actions="[{controller: {max_len: 65536}}]"), 3, "from 0 to 65535"),
        (rule(actions="[{meter: 0}, drop]"), 3, "1 to 4294967295"),
        (rule(actions="[{meter: {burst_kbits: 1}}, drop]"), 3, "meter needs kbps"),
        (rule(actions="[{meter: 1}, {meter: 2}, drop]"), 3, "a rule has one meter"),
        (rule(actions="[{track: {}}, drop]"), 3, "`normal` tracks"),
        (rule(actions="[{snat: 10.0.0.1}, normal]"), 3, "needs a match on eth_type ipv4"),
        (rule("eth_type: ipv6", "[{snat: 10.0.0.1}, normal]"), 3, "a match on eth_type ipv4"),
        (rule("eth_type: ipv4", "[{snat: 10.0.0.1}, drop]"), 3, "must be normal or goto"),
        (rule("eth_type: ipv4", "[{dnat: 10.0.0.1}, controller]"), 3, "must be normal or goto"),
        (rule("eth_type: ipv4", "[{snat: 224.0.0.1}, normal]"), 3, "no host's address"),
        (rule("eth_type: ipv4", "[{snat: 0.0.0.0}, normal]"), 3, "no host's address"),
        (rule("eth_type: ipv4", "[{snat: ten}, normal]"), 3, "no IP address"),
        (rule("eth_type: ipv4", "[{snat: {port: 1}}, normal]"), 3, "snat needs an address"),
        (rule("eth_type: ipv4", "[{dnat: {to: 1}}, normal]"), 3, "unknown key 'to' in dnat"),
        (
            rule("eth_type: ipv4", "[{dnat: {address: 10.0.0.1, port: 1}}, normal]"),
            3,
            "a match on ip_proto tcp or udp",
        ),
        (
            rule(
                "ip_proto: tcp, eth_type: ipv4", "[{dnat: {address: 10.0.0.1, port: 1-2}}, normal]"
            ),
            3,
            "dnat takes one port",
        ),
        *(
            (
                rule(
                    "ip_proto: tcp, eth_type: ipv4",
                    f"[{{snat: {{address: 10.0.0.1, port: {port}}}}}, normal]",
                ),
                3,
                "nor ports such as",
            )
            for port in ("0", "65536", "2-1", "1-", "-", "x", "{}", "true", "1-2-3")
        ),
        (
            rule("eth_type: ipv4", "[{snat: 10.0.0.1}, {snat: 10.0.0.1}, normal]"),
            3,
            "a rule has one snat",
        ),
        (rule(actions="[{push_vlan: 4096}, normal]"), 3, "from 0 to 4095"),
        (rule(actions="[{push_vlan: {pcp: 3}}, normal]"), 3, "needs a vid"),
        (rule(actions="[{set: {}}, normal]"), 3, "set needs a field"),
        (rule(actions="[{set: {ip_src: 10.0.0.1}}, normal]"), 3, "needs a match on eth_type ipv4"),
        (rule(actions="[{set: {ip_ttl: 3}}, normal]"), 3, "needs a match on eth_type"),
        (rule(actions="[{set: {tcp_dst: 3}}, normal]"), 3, "needs a match on ip_proto tcp"),
        (rule(actions="[{set: {eth_src: 02:00:00:00:00:00/ff:00:00:00:00:00}}]"), 3, "as a whole"),
        (rule(actions="[" + "pop_vlan, " * 8 + "drop]"), 3, "room for 8 actions"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(text, line, says):
    with pytest.raises(HandlerError) as caught:
        document.parse_table(text, 3, name="f")
    assert caught.value.where == f"f:{line}"
    assert says in caught.value.detail
    assert "nothing has changed" in str(caught.value)


def test_a_json_path_names_the_place():
    value = {"rules": [{"actions": ["drop"]}, {"match": {"tcp_dst": 1}, "actions": ["drop"]}]}
    with pytest.raises(HandlerError) as caught:
        document.table_from_json(value, 0)
    assert caught.value.where == "$.rules[1].match.tcp_dst"


def test_the_last_table_leads_nowhere():
    with pytest.raises(HandlerError, match="the last one"):
        document.rule_from_json({"table": 15, "actions": [{"goto": 15}]}, None)


def test_a_rule_needs_a_table_from_somewhere():
    with pytest.raises(HandlerError, match="needs a table"):
        document.rule_from_json({"actions": ["drop"]}, None)
    assert document.rule_from_json({"table": 4, "actions": ["drop"]}, None)[0] == 4


@given(rules())
def test_one_spelling_is_read_as_itself(value):
    read = document.rule_from_json(value, 3)[1]
    text = json.dumps({"rules": [show_handler(read)]})
    assert document.parse_table(text, 3, name="x").rules == (read,)


def test_the_documentation_shows_a_document():
    page = Path(__file__).parents[2] / "doc" / "handlers-api.md"
    (text,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(document.parse_table(text, 0, name="doc").rules) == 3
