"""The policy document: what is taken, and that what is refused says where and why."""

import json

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vnet_agent.exceptions import PolicyError
from vnet_agent.model.policy import Direction, Established, Group, Rule
from vnet_agent.policy import document, tree

INSTANCE = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"

GOOD = f"""\
groups:
  - name: web
    established: keep
    applies_to: ["instance:{INSTANCE.upper()}", "project:a1"]
    rules:
      - {{direction: ingress, protocol: tcp, ports: 80-443, remote: 10.0.0.0/8}}
      - {{direction: ingress, protocol: icmpv6, icmp_type: 128, icmp_code: 0}}
      - {{direction: egress, protocol: 17, ports: 53}}
      - direction: egress
        protocol: 47
        remote: 2001:DB8::1
  - name: "2"
    applies_to: ["*"]
"""


def test_reads_every_field():
    web, two = document.parse(GOOD, name="p.yaml")
    assert web.established is Established.KEEP
    assert web.applies_to == (f"instance:{INSTANCE}", "project:a1")
    assert web.rules == (
        Rule(direction=Direction.INGRESS, protocol="tcp", ports=(80, 443), remote="10.0.0.0/8"),
        Rule(direction=Direction.INGRESS, protocol="icmpv6", icmp_type=128, icmp_code=0),
        Rule(direction=Direction.EGRESS, protocol="udp", ports=(53, 53)),
        Rule(direction=Direction.EGRESS, protocol="47", remote="2001:db8::1/128"),
    )
    assert two == Group(name="2", applies_to=("*",))


def test_json_is_read_too_and_with_tabs():
    groups = document.parse(GOOD, name="x")
    text = json.dumps({"groups": msgspec.to_builtins(groups)}, indent="\t")
    assert "\t" in text
    assert document.parse(text, name="x") == groups


def test_what_is_stored_is_read_back():
    groups = document.parse(GOOD, name="x")
    assert document.groups_from_json(msgspec.to_builtins(groups)) == groups
    assert document.group_from_json(msgspec.to_builtins(groups[0])) == groups[0]


def test_no_groups_is_a_document():
    assert document.parse("groups: []\n", name="x") == ()


def rule(text: str) -> str:
    return f"groups:\n- name: a\n  rules:\n  - {{{text}}}\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("[]", 1, "must be a mapping"),
        ("{}", 1, "no `groups`"),
        ("groups:\n", 1, "no `groups`"),
        ("groups: 3\n", 1, "must be a list"),
        ("groups: []\nrules: []\n", 2, "unknown key 'rules'"),
        ("groups: []\ngroups: []\n", 2, "given twice"),
        ("groups: []\n---\ngroups: []\n", 2, "second document"),
        ("groups:\n- name: a\n- name: b\n- name: a\n", 4, "defined twice"),
        ("groups:\n- rules: []\n", 2, "needs a name"),
        ("groups:\n- name: 7\n", 2, "7 is no group name"),
        ("groups:\n- name: a/b\n", 2, "'a/b' is no group name"),
        ("groups:\n- name: [a]\n", 2, "a list is no group name"),
        ("groups:\n- name: a\n  established: yes\n", 3, "'yes' is not one of recheck, keep"),
        ("groups:\n- name: a\n  applies_to: '*'\n", 3, "must be a list"),
        ("groups:\n- name: a\n  applies_to:\n  - '*'\n  - port:1\n", 5, "no selector"),
        ("groups:\n- name: a\n  colour: red\n", 3, "unknown key 'colour'"),
        ("groups:\n- name: a\n  ? [x]\n  : 1\n", 3, "a key must be a word"),
        ("groups:\n- &a\n  name: a\n- *a\n", 2, "anchors and aliases"),
        ("groups: *a\n", 1, "anchors and aliases"),
        ("groups: !!python/object/apply:os.system ['x']\n", 1, "tags"),
        ("groups:\n - - - - - - - - - a\n", 2, "nested too deeply"),
        ("groups:\n- name: 'a\n", 3, "end of stream"),
        ("groups:\n\t- name: a\n", 2, "cannot start any token"),
        ("a: b: c\n", 1, "mapping values"),
        ("groups: []\n\x00", 2, "not allow"),
        ("groups: [\ud800]", 1, "no Unicode text"),
        (rule("protocol: tcp"), 4, "needs a direction"),
        (rule("direction: in"), 4, "'in' is not one of ingress, egress"),
        (rule("direction: [ingress]"), 4, "a list is not one of"),
        (rule("direction: ingress, protocol: tpc"), 4, "'tpc' is no protocol"),
        (rule("direction: ingress, protocol: 256"), 4, "256 is no protocol"),
        (rule("direction: ingress, protocol: -1"), 4, "-1 is no protocol"),
        (rule("direction: ingress, protocol: true"), 4, "True is no protocol"),
        (rule("direction: ingress, ports: 80"), 4, "ports need protocol"),
        (rule("direction: ingress, protocol: icmp, ports: 80"), 4, "ports need protocol"),
        (rule("direction: ingress, protocol: tcp, ports: 0"), 4, "1-65535"),
        (rule("direction: ingress, protocol: tcp, ports: 65536"), 4, "1-65535"),
        (rule("direction: ingress, protocol: tcp, ports: 443-80"), 4, "1-65535"),
        (rule("direction: ingress, protocol: tcp, ports: true"), 4, "1-65535"),
        (rule("direction: ingress, protocol: tcp, ports: [true, 5]"), 4, "1-65535"),
        (rule("direction: ingress, protocol: tcp, ports: [1, 2, 3]"), 4, "1-65535"),
        (rule("direction: ingress, protocol: tcp, ports: 22:80"), 4, "1-65535"),
        (rule("direction: ingress, icmp_type: 8"), 4, "needs protocol icmp"),
        (rule("direction: ingress, protocol: tcp, icmp_type: 8"), 4, "needs protocol icmp"),
        (rule("direction: ingress, protocol: icmp, icmp_code: 0"), 4, "needs icmp_type"),
        (rule("direction: ingress, protocol: icmp, icmp_type: 256"), 4, "0-255"),
        (rule("direction: ingress, protocol: icmp, icmp_type: false"), 4, "0-255"),
        (rule("direction: ingress, ethertype: arp"), 4, "'arp' is no ethertype"),
        (rule("direction: ingress, remote: 10.0.0.1/8"), 4, "host bits"),
        (rule("direction: ingress, remote: 10.0.0.0/33"), 4, "no CIDR"),
        (rule("direction: ingress, remote: 10.0.0.0/255.0.0.0"), 4, "no CIDR"),
        (rule("direction: ingress, remote: 'fe80::1%eth0'"), 4, "no CIDR"),
        (rule("direction: ingress, remote: web"), 4, "no CIDR"),
        (rule("direction: ingress, remote: 167772160"), 4, "no CIDR"),
        (rule("direction: ingress, ethertype: ipv4, remote: '::/0'"), 4, "remote says ipv6"),
        (rule("direction: ingress, protocol: icmp, remote: '::/0'"), 4, "protocol says ipv4"),
        (rule("direction: ingress, protocol: icmpv6, ethertype: ipv4"), 4, "says ipv6"),
        (rule("direction: ingress, protocol: 58, remote: 10.0.0.0/8"), 4, "says ipv6"),
    ],
)
def test_refusal_names_line_and_reason(text, line, says):
    with pytest.raises(PolicyError) as caught:
        document.parse(text, name="/etc/vnet/p.yaml")
    assert caught.value.where == f"/etc/vnet/p.yaml:{line}"
    assert says in caught.value.detail
    assert "\n" not in str(caught.value)


def test_the_line_is_the_one_of_the_wrong_value():
    text = (
        "groups:\n- name: a\n  rules:\n  - direction: ingress\n    protocol: tcp\n    ports: 0\n"
    )
    with pytest.raises(PolicyError) as caught:
        document.parse(text, name="f")
    assert caught.value.where == "f:6"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#" * (document.MAX_TEXT + 1), "characters"),
        ("groups: [" + "{name: a}, " * 1001 + "]", "at most 1000"),
        ("groups: [{name: a, rules: [" + "{direction: egress}, " * 1001 + "]}]", "at most 1000"),
        ("[" * 100_000, "nest"),
        ("groups: " + "{a: " * 100_000, "nest"),
    ],
    ids=["text", "groups", "rules", "sequences", "mappings"],
)
def test_size_is_bounded(text, says):
    with pytest.raises(PolicyError, match=says):
        document.parse(text, name="f")


@pytest.mark.parametrize(
    ("value", "where", "says"),
    [
        ([], "$", "must be a mapping"),
        ({"name": "a", "rules": [{"direction": "up"}]}, "$.rules[0].direction", "'up'"),
        ({"name": "a", "rules": [{}]}, "$.rules[0]", "direction"),
        ({"name": "a", "applies_to": ["*", 1]}, "$.applies_to[1]", "selector"),
        ({"name": "b"}, "$.name", "called 'b' here and 'a'"),
        ({"name": "a", "rules": [[[[[[[]]]]]]]}, "$.rules[0][0][0][0][0][0]", "deep"),
        ({"name": b"a"}, "$.name", "no JSON value"),
    ],
)
def test_json_refusal_names_the_path(value, where, says):
    with pytest.raises(PolicyError) as caught:
        document.group_from_json(value, name="a")
    assert caught.value.where == where
    assert says in caught.value.detail


def test_the_name_may_come_from_the_address():
    assert document.group_from_json({"rules": []}, name="a") == Group(name="a")
    with pytest.raises(PolicyError):
        document.group_from_json({"rules": []})
    with pytest.raises(PolicyError):
        document.group_from_json({}, name="../x")


def test_the_pure_loader_says_the_same(monkeypatch):
    monkeypatch.setattr(tree, "_LOADER", yaml.SafeLoader)
    assert len(document.parse(GOOD, name="x")) == 2
    with pytest.raises(PolicyError) as caught:
        document.parse("groups: []\n\x00", name="x")
    assert caught.value.where == "x:2"


WORDS = st.sampled_from(
    [*Rule.__struct_fields__, *Group.__struct_fields__, "groups", "ingress", "tcp", "80-443", "*",
     "10.0.0.0/8", "::/0", "&a", "*a", "!!str", "%YAML 1.1", "---", "...", "<<", "~", "|", ">"]
)  # fmt: skip
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=25,
)
TEXTS = st.one_of(
    st.text(st.characters(), max_size=200),
    st.lists(WORDS | st.sampled_from(list(":-{}[],'\"\n \t#?\\")), max_size=60).map("".join),
    JSONISH.map(lambda value: json.dumps({"groups": value})),
    st.integers(0, len(GOOD)).flatmap(
        lambda at: st.text(max_size=6).map(lambda put: GOOD[:at] + put + GOOD[at + 1 :])
    ),
)


def where_refused(read, *arguments, **keywords):
    """The place that the PolicyError names; None for what was taken, and can be read back."""
    try:
        read_value = read(*arguments, **keywords)
    except PolicyError as error:
        return error.where
    stored = msgspec.to_builtins(read_value)
    again = document.groups_from_json if isinstance(stored, list | tuple) else read
    assert again(stored) == read_value
    return None


@given(TEXTS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_text_is_groups_or_a_policy_error(text):
    where = where_refused(document.parse, text, name="f")
    if where is not None:
        name, _, line = where.partition(":")
        assert name == "f"
        assert 1 <= int(line) <= len(text) + 1


@given(JSONISH)
@settings(deadline=None)
def test_any_json_is_a_group_or_a_policy_error(value):
    where = where_refused(document.group_from_json, value)
    assert where is None or where.startswith("$")


def test_groups_name_groups_and_members() -> None:
    text = """
groups:
  - name: web
    members: [192.0.2.1, 192.0.2.7/32, 2001:db8::/64, 192.0.2.1]
  - name: db
    rules: [{direction: ingress, protocol: tcp, ports: 3306, remote_group: web}]
"""
    web, db = document.parse(text, name="f")
    assert web.members == ("192.0.2.1", "192.0.2.7", "2001:db8::/64")
    assert db.rules[0].remote_group == "web"


@pytest.mark.parametrize(
    ("fields", "line", "detail"),
    [
        ("rules: [{direction: ingress,\n      remote_group: wbe}]", 4, "no group 'wbe'"),
        ("rules: [{direction: ingress,\n      remote_group: -a}]", 4, "no group name"),
        (
            "rules: [{direction: ingress, remote: 10.0.0.0/8,\n      remote_group: web}]",
            4,
            "not both",
        ),
        ("members: [\n      10.0.0.1/8]", 4, "host bits"),
        ("members: [\n      '::/0']", 4, "takes in IPv4"),
        ("members: [\n      web]", 4, "no CIDR"),
        ("members: 10.0.0.1", 3, "must be a list"),
    ],
)
def test_wrong_groups_are_refused_where_they_are_wrong(fields, line, detail) -> None:
    with pytest.raises(PolicyError, match=detail) as caught:
        document.parse(f"groups:\n  - name: web\n    {fields}", name="f")
    assert caught.value.where == f"f:{line}"


@pytest.mark.parametrize(
    ("said", "protocol"),
    [
        ("any", None),
        ("TCP", "tcp"),
        ("ipv6-icmp", "icmpv6"),
        ("icmp6", "icmpv6"),
        ("58", "icmpv6"),
        ("dccp", "dccp"),
        ("136", "udplite"),
        ("gre", "47"),
        ("vrrp", "112"),
        ("0", "0"),
    ],
)
def test_protocols_are_named_as_neutron_names_them(said, protocol) -> None:
    rule = {"direction": "ingress", "protocol": said}
    (read,) = document.group_from_json({"name": "g", "rules": [rule]}).rules
    assert read.protocol == protocol
    again = {"name": "g", "rules": [msgspec.to_builtins(read)]}
    assert document.group_from_json(again).rules == (read,)


def test_icmp_of_ipv6_is_its_own_protocol() -> None:
    rule = {"direction": "ingress", "protocol": "icmp", "ethertype": "IPv6", "icmp_type": 128}
    (read,) = document.group_from_json({"name": "g", "rules": [rule]}).rules
    assert (read.ethertype, read.protocol) == ("ipv6", "icmpv6")
