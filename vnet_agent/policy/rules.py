"""From a tree to groups and rules: every key, range and combination is checked here."""

import ipaddress
import re
from collections.abc import Sequence

from vnet_agent.model.policy import Direction, Established, Group, Rule
from vnet_agent.model.protocols import NAMES, SPELLINGS, WITH_PORTS
from vnet_agent.policy.fields import choice, items, mapping, read_name, show
from vnet_agent.policy.limits import read_limits
from vnet_agent.policy.tree import Node

MAX_GROUPS = 1000
MAX_RULES = 1000
MAX_SELECTORS = 10000
MAX_MEMBERS = 10000

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_SELECTOR = re.compile(rf"(?:\*|(?:port|instance):{_UUID}|project:[A-Za-z0-9._-]{{1,64}})\Z")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z")

#: IPv6's own spelling of IPv4 addresses.
_MAPPED = ipaddress.ip_network("::ffff:0:0/96")

_FAMILY = {"icmp": "ipv4", "icmpv6": "ipv6"}

_RULE_KEYS = frozenset(Rule.__struct_fields__)
_GROUP_KEYS = frozenset(Group.__struct_fields__)


def read_groups(node: Node) -> tuple[Group, ...]:
    """The groups of a list node; PolicyError for a name that occurs twice."""
    groups: list[Group] = []
    names: set[str] = set()
    for item in items(node, MAX_GROUPS, "groups"):
        group = read_group(item)
        if group.name in names:
            raise item.value["name"].refused(f"group {group.name!r} is defined twice")
        names.add(group.name)
        groups.append(group)
    return tuple(groups)


def check_references(groups: Sequence[Group], node: Node) -> None:
    """Every `remote_group` must be one of the groups, whose list is the node."""
    names = {group.name for group in groups}
    for group in groups:
        for number, rule in enumerate(group.rules, 1):
            if rule.remote_group is not None and rule.remote_group not in names:
                place = node.value[groups.index(group)].value["rules"].value[number - 1]
                raise place.value["remote_group"].refused(
                    f"there is no group {rule.remote_group!r} in this document"
                )


def read_group(node: Node, *, name: str | None = None) -> Group:
    """One group; `name`, if given, is what it must be called, and the node may leave it out."""
    fields = mapping(node, _GROUP_KEYS, "a group")
    given = fields.get("name")
    if given is None and name is None:
        raise node.refused("a group needs a name")
    read = read_name(given if given is not None else Node(name, node.where))
    if given is not None and name is not None and read != name:
        raise given.refused(f"the group is called {read!r} here and {name!r} in the request")
    rules = fields.get("rules")
    established = fields.get("established")
    return Group(
        name=read,
        rules=tuple(read_rule(item) for item in items(rules, MAX_RULES, "rules")),
        established=choice(established, Established) if established else Established.RECHECK,
        applies_to=_selectors(fields.get("applies_to")),
        members=_members(fields.get("members")),
        limits=read_limits(fields.get("limits")),
    )


def read_rule(node: Node) -> Rule:
    """One rule whose fields agree with one another."""
    fields = mapping(node, _RULE_KEYS, "a rule")
    direction = fields.get("direction")
    if direction is None:
        raise node.refused("a rule needs a direction: ingress or egress")
    ethertype, protocol = _ethertype(fields.get("ethertype")), _protocol(fields.get("protocol"))
    if (ethertype, protocol) == ("ipv6", "icmp"):
        protocol = "icmpv6"  # as Neutron reads it
    rule = Rule(
        direction=choice(direction, Direction),
        ethertype=ethertype,
        protocol=protocol,
        ports=_ports(fields.get("ports")),
        icmp_type=_octet(fields.get("icmp_type")),
        icmp_code=_octet(fields.get("icmp_code")),
        remote=_remote(fields.get("remote")),
        remote_group=_remote_group(fields.get("remote_group")),
    )
    if rule.remote is not None and rule.remote_group is not None:
        raise fields["remote_group"].refused("remote or remote_group, not both: make two rules")
    _check_protocol(rule, node, fields)
    _check_family(rule, node, fields)
    return rule


def _check_protocol(rule: Rule, node: Node, fields: dict[str, Node]) -> None:
    if rule.ports is not None and rule.protocol not in WITH_PORTS:
        raise fields["ports"].refused(f"ports need protocol {', '.join(WITH_PORTS)}")
    if rule.icmp_type is not None and rule.protocol not in _FAMILY:
        raise fields["icmp_type"].refused("icmp_type needs protocol icmp or icmpv6")
    if rule.icmp_code is not None and rule.icmp_type is None:
        raise fields["icmp_code"].refused("icmp_code needs icmp_type")


def _check_family(rule: Rule, node: Node, fields: dict[str, Node]) -> None:
    families = {}
    if rule.ethertype is not None:
        families["ethertype"] = rule.ethertype
    if rule.protocol in _FAMILY:
        families["protocol"] = _FAMILY[rule.protocol]
    if rule.remote is not None:
        families["remote"] = "ipv6" if ":" in rule.remote else "ipv4"
    if len(set(families.values())) > 1:
        said = ", ".join(f"{key} says {family}" for key, family in families.items())
        raise fields[list(families)[-1]].refused(f"IPv4 and IPv6 in one rule: {said}")


def _selectors(node: Node | None) -> tuple[str, ...]:
    selectors: list[str] = []
    for item in items(node, MAX_SELECTORS, "selectors"):
        if not isinstance(item.value, str) or not _SELECTOR.match(item.value):
            raise item.refused(
                f"{show(item)} is no selector: '*', port:UUID, instance:UUID or project:ID"
            )
        kind, colon, rest = item.value.partition(":")
        selectors.append(item.value if kind == "project" else kind + colon + rest.lower())
    return tuple(dict.fromkeys(selectors))


def _members(node: Node | None) -> tuple[str, ...]:
    """Addresses, and CIDRs of more than one; none that reaches over IPv4 from IPv6."""
    members: list[str] = []
    for item in items(node, MAX_MEMBERS, "members"):
        network = ipaddress.ip_network(_cidr(item))
        if network.overlaps(_MAPPED):
            raise item.refused(f"{network} takes in IPv4; name IPv4 members as such")
        host = network.prefixlen == network.max_prefixlen
        members.append(str(network.network_address if host else network))
    return tuple(dict.fromkeys(members))


def _ethertype(node: Node | None) -> str | None:
    if node is None:
        return None
    value = node.value.lower() if isinstance(node.value, str) else None
    if value not in ("ipv4", "ipv6"):
        raise node.refused(f"{show(node)} is no ethertype: ipv4 or ipv6")
    return str(value)


def _protocol(node: Node | None) -> str | None:
    if node is None:
        return None
    value = node.value
    if isinstance(value, str):
        if value == "any":
            return None
        digits = re.fullmatch(r"[0-9]{1,3}", value)
        value = int(value) if digits else SPELLINGS.get(value.lower())
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise node.refused(
            f"{show(node)} is no protocol: {', '.join(SPELLINGS)}, any or a number 0-255"
        )
    return NAMES.get(value, str(value))


def _ports(node: Node | None) -> tuple[int, int] | None:
    """`80`, `"80"`, `"80-443"`, or `[80, 443]` as a stored rule has it."""
    if node is None:
        return None
    value = node.value
    pair: list[object] = []
    if isinstance(value, list):
        pair = [item.value for item in value]
    elif isinstance(value, str) and (match := _RANGE.match(value)):
        pair = [int(match[1]), int(match[2] or match[1])]
    elif isinstance(value, int):
        pair = [value, value]
    match pair:
        case [int() as low, int() as high] if 1 <= low <= high <= 65535:
            if not any(isinstance(end, bool) for end in pair):
                return low, high
    raise node.refused(f'{show(node)} are no ports: a number 1-65535, or a range such as "80-443"')


def _octet(node: Node | None) -> int | None:
    if node is None:
        return None
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise node.refused(f"{show(node)} is no number 0-255")
    return value


def _remote(node: Node | None) -> str | None:
    return None if node is None else _cidr(node)


def _remote_group(node: Node | None) -> str | None:
    return None if node is None else read_name(node)


def _cidr(node: Node) -> str:
    text = node.value
    if not isinstance(text, str) or not re.fullmatch(r"[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?", text):
        raise node.refused(f"{show(node)} is no CIDR such as 10.0.0.0/8 or 2001:db8::/32")
    try:
        return str(ipaddress.ip_network(text, strict="/" in text))
    except ValueError as error:
        raise node.refused(f"this is no CIDR: {error}") from None
