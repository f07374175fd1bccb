"""What a rule does with a frame: a list of actions whose last one ends the frame's way."""

import ipaddress

from vnet_agent.handlers import words
from vnet_agent.handlers.match import is_ip
from vnet_agent.model.handler import ENDS, TABLES, UPLINK, WHOLE_FRAME, Action, Kind, Match, Value
from vnet_agent.policy.fields import mapping
from vnet_agent.policy.tree import Node

#: VNET_MAX_OPS
MAX_OPS = 8

SETTABLE = (
    *("eth_src", "eth_dst", "ip_src", "ip_dst", "ip_dscp", "ip_ttl"),
    *("tcp_src", "tcp_dst", "udp_src", "udp_dst", "metadata", "conn_mark"),
)
#: What others call an action, and what to write here.
_ELSEWHERE = {
    "group": "a group of ports is written as a list, {output: [PORT, PORT]}",
    "track": "`normal` tracks, {set: {conn_mark: N}} marks, snat and dnat translate",
}
#: kbit/s, or kbit.
_MOST_RATE = (1 << 32) - 1
_WITHOUT_VALUE = (Kind.NORMAL, Kind.DROP, Kind.POP_VLAN, Kind.CONTROLLER)


def read_actions(node: Node | None, rule: Node, match: Match, table: int) -> tuple[Action, ...]:
    """The actions of a rule of `table` for frames of `match`."""
    if node is None:
        raise rule.refused("a rule needs actions, such as [drop] or [normal]")
    if not isinstance(node.value, list):
        raise node.refused("actions must be a list, such as [drop]")
    actions: list[Action] = []
    for item in node.value:
        if actions and actions[-1].kind in ENDS:
            raise item.refused(
                f"nothing can follow {actions[-1].kind}, which ends the frame's way"
            )
        actions.extend(_read_action(item, match, table))
        for kind in (Kind.METER, Kind.SNAT, Kind.DNAT):
            if sum(action.kind is kind for action in actions) > 1:
                raise item.refused(f"a rule has one {kind}")
        if sum(count_ops(action) for action in actions) > MAX_OPS:
            raise item.refused(
                f"a rule has room for {MAX_OPS} actions (an IPv6 address counts for two); go on "
                "in another table"
            )
    if not actions or actions[-1].kind not in ENDS:
        ends = ", ".join(kind for kind in Kind if kind in ENDS)
        raise node.refused(f"the last action must say where the frame goes: {ends}")
    if actions[-1].kind not in (Kind.NORMAL, Kind.GOTO):
        for action in actions:
            if action.kind in (Kind.SNAT, Kind.DNAT):
                raise node.refused(
                    f"{action.kind} is done where connections are tracked: the last action must "
                    "be normal or goto"
                )
    return tuple(actions)


def count_ops(action: Action) -> int:
    """Places in struct vnet_actions."""
    is_address = action.field in ("ip_src", "ip_dst") or action.kind in (Kind.SNAT, Kind.DNAT)
    return 2 if is_address and ":" in str(action.value) else 1


def _read_action(node: Node, match: Match, table: int) -> list[Action]:
    kind, value = _read_kind(node)
    if value is None and kind not in _WITHOUT_VALUE:
        raise node.refused(f"{kind} needs a value, as in {{{kind}: ...}}")
    if value is None:
        return [Action(kind=kind, number=WHOLE_FRAME if kind is Kind.CONTROLLER else 0)]
    match kind:
        case Kind.OUTPUT if value.value == UPLINK:
            return [Action(kind=kind, port=UPLINK)]
        case Kind.OUTPUT if isinstance(value.value, list):
            return _read_group(value)
        case Kind.OUTPUT | Kind.MIRROR | Kind.COPY:
            return [Action(kind=kind, port=words.read_uuid(value))]
        case Kind.GOTO:
            return [Action(kind=kind, number=_read_goto(value, table))]
        case Kind.CONTROLLER:
            length = mapping(value, frozenset({"max_len"}), "controller").get("max_len")
            number = WHOLE_FRAME if length is None else words.read_number(length, 0, WHOLE_FRAME)
            return [Action(kind=kind, number=number)]
        case Kind.METER:
            return [_read_meter(value)]
        case Kind.PUSH_VLAN:
            return [Action(kind=kind, number=_read_tag(value))]
        case Kind.SET:
            return _read_set(value, match)
        case Kind.SNAT | Kind.DNAT:
            return [_read_nat(kind, value, match)]
        case _:
            raise value.refused(f"{kind} takes no value")


def _read_meter(node: Node) -> Action:
    """`1000`, or `{kbps: 1000, burst_kbits: 200}`; the burst is a tenth of a second's, at least
    a large frame."""
    if not isinstance(node.value, dict):
        kbps, burst = words.read_number(node, 1, _MOST_RATE), None
    else:
        fields = mapping(node, frozenset({"kbps", "burst_kbits"}), "meter")
        if "kbps" not in fields:
            raise node.refused("meter needs kbps")
        kbps, burst = words.read_number(fields["kbps"], 1, _MOST_RATE), fields.get("burst_kbits")
    held = max(kbps // 10, 12) if burst is None else words.read_number(burst, 1, _MOST_RATE)
    return Action(kind=Kind.METER, number=kbps, value=held)


def _read_nat(kind: Kind, node: Node, match: Match) -> Action:
    """`203.0.113.7`, or `{address: 203.0.113.7, port: 1024-2047}`; of `dnat` it is one port."""
    fields = {"address": node}
    if isinstance(node.value, dict):
        fields = mapping(node, frozenset({"address", "port"}), kind)
    if "address" not in fields:
        raise node.refused(f"{kind} needs an address")
    address = _read_ip(str(kind), fields["address"], match)
    if ipaddress.ip_address(address).is_multicast or ipaddress.ip_address(address).is_unspecified:
        raise fields["address"].refused(f"{address} is no host's address")
    port = fields.get("port")
    if port is None:
        return Action(kind=kind, value=address)
    if match.ip_proto not in ("tcp", "udp"):
        raise port.refused(f"{kind} to a port needs a match on ip_proto tcp or udp")
    first, last = _read_ports(port)
    if kind is Kind.DNAT and first != last:
        raise port.refused("dnat takes one port")
    return Action(kind=kind, value=address, number=first | last << 16)


def _read_ports(node: Node) -> tuple[int, int]:
    """`80`, or `1024-2047`."""
    text = str(node.value) if isinstance(node.value, str | int) else ""
    low, dash, high = text.partition("-")
    first = words.parse_number(low)
    last = words.parse_number(high) if dash else first
    if first is None or last is None or not 0 < first <= last <= 0xFFFF:
        raise node.refused(
            f"{words.show(node)} is no port such as 80, nor ports such as 1024-2047"
        )
    return first, last


def _read_ip(what: str, node: Node, match: Match) -> str:
    address = words.read_address(node)
    family = f"ipv{ipaddress.ip_address(address).version}"
    if match.eth_type != family:
        raise node.refused(f"{what} to {address} needs a match on eth_type {family}")
    return address


def _read_group(node: Node) -> list[Action]:
    """To each of several ports: a copy to all but the last one."""
    ports = node.value if isinstance(node.value, list) else []
    if not ports:
        raise node.refused("output needs a port, or several of them")
    found = [Action(kind=Kind.COPY, port=words.read_uuid(item)) for item in ports[:-1]]
    if ports[-1].value == UPLINK:
        return [*found, Action(kind=Kind.OUTPUT, port=UPLINK)]
    return [*found, Action(kind=Kind.OUTPUT, port=words.read_uuid(ports[-1]))]


def _read_kind(node: Node) -> tuple[Kind, Node | None]:
    """`name`, or a mapping of the one name to its value."""
    name, value = node.value, None
    if isinstance(name, dict):
        if len(name) != 1:
            raise node.refused("an action is one name, or one name and its value")
        ((name, value),) = name.items()
    if isinstance(name, str) and name in _ELSEWHERE:
        raise node.refused(f"{name}: {_ELSEWHERE[name]}")
    if not isinstance(name, str) or name not in Kind.__members__.values():
        said = repr(name)[:60] if isinstance(name, str) else words.show(node)
        raise node.refused(f"{said} is no action; known are {', '.join(Kind)}")
    return Kind(name), value if value is not None and value.value is not None else None


def _read_goto(node: Node, table: int) -> int:
    if table == TABLES - 1:
        raise node.refused(f"table {table} is the last one: there is none to go to")
    number = words.parse_number(node.value)
    if number is None or not table < number < TABLES:
        raise node.refused(
            f"{words.show(node)} is no table behind this one: {table + 1} to {TABLES - 1}"
        )
    return number


def _read_tag(node: Node) -> int:
    """`100`, or `{vid: 100, pcp: 3}`."""
    if not isinstance(node.value, dict):
        return words.read_number(node, 0, 4095)
    fields = mapping(node, frozenset({"vid", "pcp"}), "push_vlan")
    if "vid" not in fields:
        raise node.refused("push_vlan needs a vid")
    priority = words.read_number(fields["pcp"], 0, 7) if "pcp" in fields else 0
    return priority << 13 | words.read_number(fields["vid"], 0, 4095)


def _read_set(node: Node, match: Match) -> list[Action]:
    fields = mapping(node, frozenset(SETTABLE), "set")
    if not fields:
        raise node.refused("set needs a field and its value, as in {set: {ip_dscp: 10}}")
    return [
        Action(kind=Kind.SET, field=name, value=_read_value(name, child, match))
        for name, child in fields.items()
    ]


def _read_value(name: str, node: Node, match: Match) -> Value:
    match name:
        case "eth_src" | "eth_dst":
            mac = words.read_mac(node)
            if "/" in mac:
                raise node.refused("a MAC address is set as a whole, without a mask")
            return mac
        case "ip_src" | "ip_dst":
            return _read_ip(f"setting {name}", node, match)
        case "ip_dscp" | "ip_ttl":
            if not is_ip(match):
                raise node.refused(f"setting {name} needs a match on eth_type ipv4 or ipv6")
            return words.read_number(node, 0, 63 if name == "ip_dscp" else 255)
        case "metadata":
            return hex(words.read_number(node, 0, (1 << 64) - 1))
        case "conn_mark":
            return hex(words.read_number(node, 0, (1 << 32) - 1))
        case _:
            protocol = name.partition("_")[0]
            if match.ip_proto != protocol:
                raise node.refused(f"setting {name} needs a match on ip_proto {protocol}")
            return words.read_number(node, 0, 0xFFFF)
