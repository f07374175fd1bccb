"""An operator's tables of handlers: which frames, and what is done with them.

Fields have OpenFlow's names and one spelling each, which `vnet_agent.handlers` makes of what
people write; a field that is None may be anything.
"""

import enum
from typing import Any

import msgspec

TABLES = 16
#: In all tables together.
MAX_RULES = 100_000
#: As OpenFlow has it where nothing is said.
DEFAULT_PRIORITY = 0x8000
#: Bytes of a frame for the controller where nothing is said: all of it.
WHOLE_FRAME = 0xFFFF
#: The port of an `output` that is no VM's.
UPLINK = "uplink"

Value = str | int | None


class Miss(enum.StrEnum):
    """What becomes of a frame that no rule of a table matches."""

    CONTINUE = "continue"
    """The next table, and behind the last one policy and forwarding."""

    DROP = "drop"
    CONTROLLER = "controller"


class Origin(enum.StrEnum):
    """Who gave a rule."""

    OPERATOR = "operator"
    CONTROLLER = "controller"


class Match(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`in_port` is the UUID of the port whose frame it is, `instance` that of its VM, `group` the
    name of a group of the policy that applies to the port.

    `direction` is `ingress` (to the VM) or `egress`. MAC addresses may have a mask behind a
    slash, IP addresses are prefixes. Transport ports are a number, `LOW-HIGH` or, where no range
    says the same, `VALUE/MASK` in hexadecimal; so are `conn_mark` and `metadata`, but for the
    range. `tcp_flags` and `conn_state` are names with `+` (set) or `-` (not) before each.
    """

    in_port: str | None = None
    instance: str | None = None
    group: str | None = None
    direction: str | None = None
    network: int | None = None
    eth_src: str | None = None
    eth_dst: str | None = None
    eth_type: Value = None
    vlan_vid: Value = None
    vlan_pcp: int | None = None
    arp_op: Value = None
    arp_spa: str | None = None
    arp_tpa: str | None = None
    ip_src: str | None = None
    ip_dst: str | None = None
    ip_proto: Value = None
    ip_dscp: int | None = None
    fragment: str | None = None
    tcp_src: Value = None
    tcp_dst: Value = None
    tcp_flags: str | None = None
    udp_src: Value = None
    udp_dst: Value = None
    sctp_src: Value = None
    sctp_dst: Value = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    conn_state: str | None = None
    conn_mark: str | None = None
    metadata: str | None = None


class Kind(enum.StrEnum):
    """What an action does; those of ENDS end the frame's way."""

    NORMAL = "normal"
    DROP = "drop"
    OUTPUT = "output"
    GOTO = "goto"
    CONTROLLER = "controller"
    SET = "set"
    MIRROR = "mirror"
    COPY = "copy"
    METER = "meter"
    PUSH_VLAN = "push_vlan"
    POP_VLAN = "pop_vlan"
    SNAT = "snat"
    DNAT = "dnat"


ENDS = frozenset({Kind.NORMAL, Kind.DROP, Kind.OUTPUT, Kind.GOTO, Kind.CONTROLLER})


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """`port` is a UUID (output, copy, mirror) or UPLINK (output). `number` is the table of `goto`,
    the bytes of `controller`, the kbit/s of `meter` (`value`: the kbit of its burst), or the tag
    of `push_vlan` (priority << 13 | id). `field` is set to `value`: one of the names of Match, or
    `ip_ttl`. Of `snat` and `dnat`, `value` is the address and `number` the first port | the last
    << 16, 0 for none."""

    kind: Kind
    port: str | None = None
    number: int = 0
    field: str | None = None
    value: Value = None


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. The greatest priority wins; among equals that overlap it may be any of them.

    `cookie` (32 bits) means something to whoever gave the rule, and comes with its packet-ins.
    """

    priority: int = DEFAULT_PRIORITY
    match: Match = Match()
    actions: tuple[Action, ...]
    cookie: int = 0

    def ports(self) -> frozenset[str]:
        """UUIDs of the ports without which the rule is not in force."""
        named = {action.port for action in self.actions} | {self.match.in_port}
        return frozenset(port for port in named if port not in (None, UPLINK))


class TableDocument(msgspec.Struct, frozen=True, kw_only=True):
    """All of one table, as it is loaded."""

    rules: tuple[Handler, ...] = ()
    miss: Miss = Miss.CONTINUE


def show_handler(handler: Handler) -> dict[str, Any]:
    """As a document has it."""
    return {
        "priority": handler.priority,
        "match": msgspec.to_builtins(handler.match),
        "actions": [show_action(action) for action in handler.actions],
        "cookie": handler.cookie,
    }


def show_action(action: Action) -> Any:
    match action.kind:
        case Kind.OUTPUT | Kind.MIRROR | Kind.COPY:
            return {action.kind.value: action.port}
        case Kind.GOTO:
            return {"goto": action.number}
        case Kind.METER:
            return {"meter": {"kbps": action.number, "burst_kbits": action.value}}
        case Kind.CONTROLLER:
            return {"controller": {"max_len": action.number}}
        case Kind.SET:
            return {"set": {action.field: action.value}}
        case Kind.SNAT | Kind.DNAT if action.number:
            first, last = action.number & 0xFFFF, action.number >> 16
            port = first if first == last else f"{first}-{last}"
            return {action.kind.value: {"address": action.value, "port": port}}
        case Kind.SNAT | Kind.DNAT:
            return {action.kind.value: action.value}
        case Kind.PUSH_VLAN:
            return {"push_vlan": {"vid": action.number & 0xFFF, "pcp": action.number >> 13}}
        case _:
            return action.kind.value
