"""What the datapath holds and would do, decoded for people: flows, and the run of a frame."""

import ipaddress
import re
import socket
import struct
from typing import Any

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.base import Exit, Flow, FlowFilter, FlowPage, Run
from vnet_agent.datapath.handling import MISSES, TableStep
from vnet_agent.datapath.records import decode_translated
from vnet_agent.exceptions import FilterError
from vnet_agent.model.port import Role
from vnet_agent.model.protocols import NAMES, PROTOCOLS, WITH_PORTS

_CURSOR = re.compile(r"([0-9]{1,10})\.([0-9]{1,5})\Z")
_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg")
_FRAGMENTS = ("", "first", "later")
_FLOW_SIZE = c.LAYOUT["flow"][""][1]

#: local remote local_port remote_port proto way; expires generation state flags packets(in, out)
#: bytes(in, out)
_KEY = struct.Struct("=16s16sHHBxH")
_CONN = struct.Struct("=QIBB2x2Q2Q")
_CONN_AT = c.LAYOUT["flow"]["conn"][0]

if c.LAYOUT["conn_key"]["proto"] != (36, 1) or c.LAYOUT["conn"]["bytes"] != (32, 16):
    raise ImportError("sight.py and csrc/core/abi.h disagree; rebuild the extension")


# -- flows


def read_cursor(text: str | None) -> tuple[int, int]:
    """Position and entries to skip; FilterError for what no page gave."""
    if text is None:
        return 0, 0
    match = _CURSOR.match(text)
    if match is None or int(match[1]) >= 1 << 32:
        raise FilterError(detail=f"{text[:60]!r} is no cursor; take one that a listing gave.")
    return int(match[1]), int(match[2])


def pack_filter(wanted: FlowFilter) -> bytes:
    """A struct flow_match; FilterError says which part means nothing."""
    family, remote, mask = read_network(wanted.remote)
    verdict = {None: 0, True: c.FLOW_FRESH, False: c.FLOW_STALE}[wanted.fresh]
    return layout.pack(
        "flow_match",
        remote=remote,
        mask=mask,
        proto=read_protocol(wanted.protocol) if wanted.protocol is not None else 0,
        state=_read_state(wanted.state) if wanted.state is not None else 0,
        verdict=verdict,
        family=family,
    )


def read_network(text: str | None) -> tuple[int, bytes, bytes]:
    """Family, address and mask of a CIDR, as the C core takes them; zeros for any."""
    if text is None:
        return 0, bytes(16), bytes(16)
    network = _read_remote(text)
    length = network.prefixlen + (96 if network.version == 4 else 0)
    mask = ((1 << 128) - (1 << (128 - length))).to_bytes(16, "big")
    remote = layout.pack_address(str(network.network_address))
    return (
        network.version,
        bytes(one & other for one, other in zip(remote, mask, strict=True)),
        mask,
    )


def _read_remote(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        detail = f"{text[:60]!r} is no address or CIDR such as 10.0.0.0/8."
        raise FilterError(detail=detail) from None


def read_protocol(text: str) -> int:
    """The number of a protocol by name or number, 1 to 255."""
    number = PROTOCOLS.get(text.lower())
    if number is None and re.fullmatch(r"[0-9]{1,3}", text):
        number = int(text)
    if number is None or not 0 < number < 256:
        known = ", ".join(PROTOCOLS)
        detail = f"{text[:60]!r} is no protocol: {known} or a number up to 255."
        raise FilterError(detail=detail)
    return number


def _read_state(text: str) -> int:
    try:
        return c.STATES.index(text, 1)
    except ValueError:
        known = ", ".join(c.STATES[1:])
        raise FilterError(detail=f"{text[:60]!r} is no state: {known}.") from None


def decode_page(
    port: str,
    entries: bytes,
    position: int,
    skip: int,
    generation: int,
    now: int,
    *,
    lives: tuple[int, ...],
) -> FlowPage:
    flows = [
        decode_flow(
            port,
            entries[start : start + _CONN_AT],
            entries[start + _CONN_AT : start + _FLOW_SIZE],
            generation=generation,
            now=now,
            lives=lives,
        )
        for start in range(0, len(entries), _FLOW_SIZE)
    ]
    return FlowPage(flows=flows, cursor=None if position < 0 else f"{position}.{skip}")


def decode_flow(
    port: str, key: bytes, conn: bytes, *, generation: int, now: int, lives: tuple[int, ...]
) -> Flow:
    """From a struct conn_key and a struct conn; `generation` is the port's, `lives` the seconds
    that each state lasts."""
    local, remote, local_port, remote_port, proto, way = _KEY.unpack_from(key)
    expires, made, state, flags, packets_in, packets_out, bytes_in, bytes_out = _CONN.unpack_from(
        conn
    )
    remaining = max(expires - now, 0)
    mark, translated = layout.number("conn", "mark", conn), None
    if way:
        translated = decode_translated(way, mark, layout.raw("conn", "window", conn))
    return Flow(
        port=port,
        protocol=NAMES.get(proto, str(proto)),
        local=layout.unpack_address(local),
        local_port=local_port,
        remote=layout.unpack_address(remote),
        remote_port=remote_port,
        state=c.STATES[state],
        origin="egress" if flags & c.CONN_EGRESS else "ingress",
        assured=bool(flags & c.CONN_ASSURED),
        remaining_ms=-(-remaining // 1_000_000),
        mark=0 if translated else mark,
        egress_packets=packets_out,
        egress_bytes=bytes_out,
        ingress_packets=packets_in,
        ingress_bytes=bytes_in,
        translated=translated,
        verdict="allow",
        generation=generation if translated else made,
        fresh=translated is not None or made == generation,
        idle_ms=max(lives[state] * 1000 - remaining // 1_000_000, 0),
    )


# -- a frame


def interface_name(ifindex: int) -> str | None:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return None


def decode_run(
    port: str,
    raw: dict[str, Any],
    *,
    lives: tuple[int, ...],
    egress: bool,
    role: Role,
    exits: tuple[Exit, ...],
    digest: bytes | None,
    connections: int,
) -> Run:
    """From what the extension's `trace` gives."""
    generation = layout.number("port", "policy", raw["port"]) & 0xFFFFFFFF
    entry = None
    if (
        raw["before"] is not None
        and layout.number("conn", "expires_ns", raw["before"]) > raw["now"]
    ):
        entry = decode_flow(
            port,
            raw["key"],
            raw["before"],
            generation=generation,
            now=raw["now"],
            lives=lives,
        )
    reason = None if raw["action"] != c.DROP else c.REASONS[raw["reason"]]
    return Run(
        verdict=name_verdict(raw["action"], egress=egress),
        reason=reason,
        parsed=c.REASONS[raw["parsed"]] if raw["parsed"] else None,
        packet=_decode_packet(raw["packet"]),
        cache=_cache(raw, entry, reason),
        connection=entry,
        then=_then(entry, raw["after"] if _is_alive(raw["after"], raw["now"]) else None),
        tables=tuple(_step(*step) for step in raw["steps"]),
        rules=raw["rules"],
        digest=digest,
        out=exits,
        role=role,
        port_security=not layout.number("port", "flags", raw["port"]) & c.PORT_OPEN,
        addresses_known=bool(layout.number("port", "flags", raw["port"]) & c.PORT_ADDRESSES),
        connections=connections,
        quota=layout.number("port", "quota", raw["port"]),
    )


def _step(table: int, entry: int, action: int) -> TableStep:
    miss = None if entry else MISSES[action]
    return TableStep(table=table, rule=entry or None, miss=miss)


def _is_alive(conn: bytes | None, now: int) -> bool:
    return conn is not None and layout.number("conn", "expires_ns", conn) > now


_VERDICTS = {
    c.DROP: "drop",
    c.REDIRECT: "forward",
    c.CONSUMED: "flood",
    c.ANSWERED: "answer",
    c.HANDED: "controller",
}


def name_verdict(action: int, *, egress: bool) -> str:
    """What becomes of a frame that a VM sends (`egress`) or that comes to it."""
    if action == c.PASS:
        return "bridge" if egress else "deliver"
    return _VERDICTS[action]


def _cache(raw: dict[str, Any], entry: Flow | None, reason: str | None) -> str:
    if raw["key"] is None:
        return "none"
    if entry is None:
        return "miss"
    if not entry.fresh:
        return "stale"
    # A fresh entry lets its frames pass unseen by the rules: what they were asked of is another's.
    return "hit" if not raw["rules"] and reason in (None, "no-destination") else "anew"


def _then(entry: Flow | None, after: bytes | None) -> str:
    if after is None:
        return "none" if entry is None else "ends"
    state = c.STATES[layout.number("conn", "state", after)]
    if entry is None:
        return f"begins as {state}"
    return f"stays {state}" if state == entry.state else f"becomes {state}"


def _decode_packet(data: bytes) -> dict[str, str | int]:
    """The fields that mean something for this packet."""

    def field(name: str) -> int:
        return layout.number("packet", name, data)

    shown: dict[str, str | int] = {
        "source_mac": layout.unpack_mac(field("source_mac")),
        "target_mac": layout.unpack_mac(field("target_mac")),
        "ethertype": f"0x{field('ethertype'):04x}",
    }
    if not field("family"):
        return shown
    proto = NAMES.get(field("proto"), str(field("proto")))
    shown["source"] = layout.unpack_address(layout.raw("packet", "source", data))
    shown["destination"] = layout.unpack_address(layout.raw("packet", "destination", data))
    shown["protocol"] = proto
    if field("fragment"):
        shown["fragment"] = _FRAGMENTS[field("fragment")]
        shown["fragment_id"] = field("fragment_id")
    if _FRAGMENTS[field("fragment")] == "later":
        return shown
    if proto in WITH_PORTS:
        shown["source_port"] = field("source_port")
        shown["destination_port"] = field("destination_port")
    elif proto in ("icmp", "icmpv6"):
        shown |= {"type": field("type"), "code": field("code"), "id": field("source_port")}
    if proto == "tcp":
        flags = field("tcp_flags")
        names = [name for bit, name in enumerate(_FLAGS) if flags >> bit & 1]
        shown["tcp_flags"] = ",".join(names) or "none"
    return shown
