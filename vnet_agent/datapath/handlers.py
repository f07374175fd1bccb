"""From a Handler to the bytes of csrc/core/handler_abi.h, and back."""

from typing import Protocol

from vnet_agent.datapath import layout
from vnet_agent.datapath.handler_match import compile_match, decompile_match
from vnet_agent.datapath.handling import TableRule
from vnet_agent.handlers import words
from vnet_agent.model.handler import UPLINK, Action, Handler, Kind, Match

_CODES = {
    Kind.NORMAL: 1,
    Kind.DROP: 2,
    Kind.OUTPUT: 3,
    Kind.GOTO: 4,
    Kind.CONTROLLER: 5,
    Kind.SET: 6,
    Kind.MIRROR: 7,
    Kind.PUSH_VLAN: 9,
    Kind.POP_VLAN: 10,
    Kind.METER: 8,
    Kind.COPY: 12,
    Kind.SNAT: 13,
    Kind.DNAT: 13,
}
_KINDS = {code: kind for kind, code in _CODES.items()}
#: enum vnet_nat_field
_NAT_FIELDS = {Kind.SNAT: 1, Kind.DNAT: 2}
_NAT_KINDS = {field: kind for kind, field in _NAT_FIELDS.items()}
#: enum vnet_set_field
_SET_FIELDS = {
    "eth_src": 1,
    "eth_dst": 2,
    "ip_src": 3,
    "ip_dst": 4,
    "src": 7,
    "dst": 8,
    "ip_dscp": 9,
    "ip_ttl": 10,
    "metadata": 11,
    "conn_mark": 12,
}
_SET_NAMES = {code: name for name, code in _SET_FIELDS.items()}
#: From the code of an address to that of its first eight octets.
_HIGH = 2

_OP_SIZE = len(layout.pack("op"))
_ROOM = len(layout.pack("actions"))


class Places(Protocol):
    """Local ids of what is on this host."""

    def local_id(self, port: str) -> int | None: ...

    def ids_of(self, instance: str) -> list[int]:
        """Of the VM's ports."""

    def ids_in(self, group: str) -> list[int]:
        """Of the ports that the policy's group applies to."""


def compile_handler(handler: Handler, places: Places) -> list[TableRule]:
    """Rules that together say the same; [] while something that it names is not here.

    One is several where it names a VM of several ports or a group, or transport ports by a mask.
    """
    ids = {port: places.local_id(port) for port in handler.ports()}
    if any(local_id is None for local_id in ids.values()):
        return []
    match = handler.match
    wanted: list[int] | None = None
    if match.in_port is not None:
        wanted = [ids[match.in_port] or 0]
    for name, find in ((match.instance, places.ids_of), (match.group, places.ids_in)):
        if name is not None:
            found = find(name)
            wanted = found if wanted is None else [item for item in wanted if item in found]
    known = {port: local_id for port, local_id in ids.items() if local_id is not None}
    actions = _compile_actions(handler, known)
    return [
        TableRule(match=data, actions=actions, cookie=handler.cookie)
        for data in compile_match(match, handler.priority, wanted)
    ]


def decompile_rule(rule: TableRule, ports: dict[int, str]) -> Handler:
    """What a compiled rule says; `ports` are UUIDs by local id. Raises ValueError."""
    priority, match = decompile_match(rule.match, ports)
    return Handler(
        priority=priority,
        match=match,
        actions=tuple(_decompile_actions(rule.actions, match, ports)),
        cookie=rule.cookie,
    )


def _compile_actions(handler: Handler, ids: dict[str, int]) -> bytes:
    ops = b"".join(_compile_action(action, ids, handler.cookie) for action in handler.actions)
    return ops.ljust(_ROOM, b"\0")


def _compile_action(action: Action, ids: dict[str, int], cookie: int) -> bytes:
    code = _CODES[action.kind]
    match action.kind:
        case Kind.OUTPUT | Kind.MIRROR | Kind.COPY:
            local_id = 0 if action.port == UPLINK else ids[action.port or ""]
            return layout.pack("op", code=code, value=local_id)
        case Kind.METER:
            burst = int(action.value or 0)
            return layout.pack("op", code=code, value=action.number, wide=burst)
        case Kind.CONTROLLER:
            return layout.pack("op", code=code, arg=action.number, value=cookie)
        case Kind.SET:
            return _compile_set(code, action)
        case Kind.SNAT | Kind.DNAT:
            family = 6 if ":" in str(action.value) else 4
            return _pack_address(
                code,
                _NAT_FIELDS[action.kind],
                str(action.value),
                arg=family,
                value=action.number,
            )
        case _:
            return layout.pack("op", code=code, arg=action.number)


def _compile_set(code: int, action: Action) -> bytes:
    name, value = action.field or "", action.value
    if name in ("ip_src", "ip_dst"):
        return _pack_address(code, _SET_FIELDS[name], str(value))
    wide = layout.pack_mac(str(value)) if name.startswith("eth_") else words.parse_number(value)
    return layout.pack("op", code=code, field=_SET_FIELDS[_short(name)], wide=wide or 0)


def _pack_address(code: int, field: int, address: str, **rest: int) -> bytes:
    """One op, or of IPv6 two, of which the first has the first eight octets."""
    data = layout.pack_address(address)
    low = int.from_bytes(data[8:], "little")
    if ":" not in address:
        return layout.pack("op", code=code, field=field, wide=low >> 32, **rest)
    high = int.from_bytes(data[:8], "little")
    return layout.pack("op", code=code, field=field + _HIGH, wide=high) + layout.pack(
        "op", code=code, field=field, wide=low, **rest
    )


def _short(name: str) -> str:
    """Ports are set by the same code, whatever the protocol."""
    return name[4:] if name[:4] in ("tcp_", "udp_") else name


def _decompile_actions(data: bytes, match: Match, ports: dict[int, str]) -> list[Action]:
    actions: list[Action] = []
    high = b""
    for base in range(0, len(data), _OP_SIZE):
        op = {name: layout.number("op", name, data, base) for name in _OP_FIELDS}
        if op["code"] == 0:
            break
        if op["code"] not in _KINDS:
            raise ValueError(f"there is no action {op['code']}")
        kind = _KINDS[op["code"]]
        first = (3, 4) if kind is Kind.SET else (1, 2) if kind in _NAT_FIELDS else ()
        if op["field"] - _HIGH in first:
            high = op["wide"].to_bytes(8, "little")
        elif kind in _NAT_FIELDS:
            actions.append(
                Action(
                    kind=_NAT_KINDS[op["field"]],
                    number=op["value"],
                    value=_spell_address(high, op["wide"]),
                )
            )
            high = b""
        elif kind is Kind.SET:
            actions.append(_decompile_set(op, match, high))
            high = b""
        elif kind is Kind.METER:
            actions.append(Action(kind=kind, number=op["value"], value=op["wide"]))
        elif kind in (Kind.OUTPUT, Kind.MIRROR, Kind.COPY):
            port = ports[op["value"]] if op["value"] else UPLINK
            actions.append(Action(kind=kind, port=port))
        else:
            actions.append(Action(kind=kind, number=op["arg"]))
    return actions


def _spell_address(high: bytes, low: int) -> str:
    # Not unpack_address: a mapped IPv4 address is one of IPv6 here.
    return words.spell_address(high + low.to_bytes(8 if high else 4, "little"))


_OP_FIELDS = ("code", "field", "arg", "value", "wide")


def _decompile_set(op: dict[str, int], match: Match, high: bytes) -> Action:
    if op["field"] not in _SET_NAMES:
        raise ValueError(f"there is no field {op['field']} to set")
    name, wide = _SET_NAMES[op["field"]], op["wide"]
    value: str | int = wide
    if name in ("ip_src", "ip_dst"):
        value = _spell_address(high, wide)
    elif name.startswith("eth_"):
        value = layout.unpack_mac(wide)
    elif name in ("metadata", "conn_mark"):
        value = hex(wide)
    elif name in ("src", "dst"):
        name = f"{match.ip_proto}_{name}"
    return Action(kind=Kind.SET, field=name, value=value)
