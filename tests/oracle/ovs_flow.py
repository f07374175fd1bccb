"""A table of handlers as flows of Open vSwitch (ovs-fields(7), ovs-actions(7), OpenFlow 1.5).

Left out is what it cannot say: networks and instances, ports by direction, mirrors. Priorities
must be above 0 and differ within a table, since among equals either switch may choose.
"""

from collections.abc import Iterator, Mapping, Sequence

from vnet_agent.handlers import words
from vnet_agent.model.handler import (
    TABLES,
    UPLINK,
    Action,
    Kind,
    Match,
    Miss,
    TableDocument,
)

#: OpenFlow ports that stand for ways out that are no ports.
NORMAL, TO_CONTROLLER, TO_UPLINK = 100, 101, 102

_ETHERTYPES = {"ipv4": 0x0800, "ipv6": 0x86DD, "arp": 0x0806}
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_FRAGMENTS = {"no": "no", "first": "first", "later": "later", "not_later": "not_later"}


def show_tables(tables: Mapping[int, TableDocument], ports: Mapping[str, int]) -> Iterator[str]:
    """Flows of all tables; `ports` are OpenFlow ports by UUID."""
    for number in range(TABLES):
        document = tables.get(number, TableDocument())
        yield f"table={number},priority=0,actions={_show_miss(number, document.miss)}"
        for rule in document.rules:
            actions = ",".join(_show_actions(rule.actions, ports))
            for match in _show_match(rule.match, ports):
                yield f"table={number},priority={rule.priority}{match},actions={actions}"


def _show_miss(table: int, miss: Miss) -> str:
    if miss is Miss.DROP:
        return "drop"
    if miss is Miss.CONTROLLER:
        return f"output:{TO_CONTROLLER}"
    return f"goto_table:{table + 1}" if table + 1 < TABLES else f"output:{NORMAL}"


def _show_actions(actions: Sequence[Action], ports: Mapping[str, int]) -> list[str]:
    """OVS says drop by nothing that follows, and by the word only where it stands alone."""
    if len(actions) > 1 and actions[-1].kind is Kind.DROP:
        actions = actions[:-1]
    return [_show_action(action, ports) for action in actions]


def _show_action(action: Action, ports: Mapping[str, int]) -> str:
    match action.kind:
        case Kind.NORMAL:
            return f"output:{NORMAL}"
        case Kind.DROP:
            return "drop"
        case Kind.CONTROLLER:
            return f"output:{TO_CONTROLLER}"
        case Kind.OUTPUT:
            return f"output:{TO_UPLINK if action.port == UPLINK else ports[action.port or '']}"
        case Kind.GOTO:
            return f"goto_table:{action.number}"
        case Kind.SET:
            return _show_set(action)
        case _:
            raise ValueError(f"{action.kind} is not said here")


def _show_set(action: Action) -> str:
    name, value = action.field or "", action.value
    if name in ("ip_src", "ip_dst") and ":" in str(value):
        name = name.replace("ip_", "ipv6_")
    return f"set_field:{value}->{_SET_NAMES.get(name, name)}"


_SET_NAMES = {"ip_ttl": "nw_ttl"}


def _show_match(match: Match, ports: Mapping[str, int]) -> Iterator[str]:
    """One flow, or one for each family where the protocol leaves that open, and for each of the
    masks that make up a range of ports."""
    families = [match.eth_type]
    if match.eth_type is None and match.ip_proto is not None:
        families = ["ipv4", "ipv6"]
    for family in families:
        fixed = "".join(f",{word}" for word in _show_fixed(match, family, ports))
        for source in _port_words(match, "src"):
            for destination in _port_words(match, "dst"):
                yield fixed + source + destination


def _show_fixed(match: Match, family: object, ports: Mapping[str, int]) -> Iterator[str]:
    if match.in_port is not None:
        yield f"in_port={ports[match.in_port]}"
    if match.eth_src is not None:
        yield f"eth_src={match.eth_src}"
    if match.eth_dst is not None:
        yield f"eth_dst={match.eth_dst}"
    if family is not None:
        yield f"eth_type={_ETHERTYPES.get(str(family), family)}"
    if match.ip_proto is not None:
        yield f"ip_proto={_PROTOCOLS.get(str(match.ip_proto), match.ip_proto)}"
    for name in ("arp_op", "arp_spa", "arp_tpa"):
        if (value := getattr(match, name)) is not None:
            yield f"{name}={ {'request': 1, 'reply': 2}.get(value, value) }"
    for name in ("ip_src", "ip_dst"):
        if (value := getattr(match, name)) is not None:
            yield f"{name if family == 'ipv4' else name.replace('ip_', 'ipv6_')}={value}"
    if match.ip_dscp is not None:
        yield f"ip_dscp={match.ip_dscp}"
    if match.fragment is not None:
        yield f"nw_frag={_FRAGMENTS[match.fragment]}"
    if match.tcp_flags is not None:
        yield f"tcp_flags={match.tcp_flags}"
    if match.icmp_type is not None:
        yield f"{'icmp' if family == 'ipv4' else 'icmpv6'}_type={match.icmp_type}"
    if match.icmp_code is not None:
        yield f"{'icmp' if family == 'ipv4' else 'icmpv6'}_code={match.icmp_code}"
    if match.conn_state is not None:
        yield f"ct_state={match.conn_state}"
    if match.conn_mark is not None:
        yield f"ct_mark={match.conn_mark}"
    if match.metadata is not None:
        yield f"metadata={match.metadata}"


def _port_words(match: Match, end: str) -> list[str]:
    for proto in ("tcp", "udp", "sctp"):
        if (value := getattr(match, f"{proto}_{end}")) is not None:
            if isinstance(value, str) and "/" in value:
                return [f",{proto}_{end}={value}"]
            masks = (
                mask for low, high in words.port_ranges(value) for mask in masks_of(low, high)
            )
            return [f",{proto}_{end}={value:#x}/{mask:#x}" for value, mask in masks]
    return [""]


def masks_of(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The fewest (value, mask) pairs of 16 bits that make up low..high."""
    while low <= high:
        size = low & -low or 0x10000
        while size > high - low + 1:
            size >>= 1
        yield low, 0x10000 - size & 0xFFFF
        low += size
