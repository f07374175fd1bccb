"""Structs of csrc/core/abi.h as bytes; where each field lies is asked of the extension."""

import ipaddress
import sys
import uuid
from typing import Any

from vnet_agent.datapath._flowcache import LAYOUT


def pack(kind: str, /, **fields: int | bytes) -> bytes:
    """The struct with these fields, the others 0."""
    places = LAYOUT[kind]
    result = bytearray(places[""][1])
    for name, value in fields.items():
        offset, size = places[name]
        data = value.to_bytes(size, sys.byteorder) if isinstance(value, int) else value
        if len(data) != size:
            raise ValueError(f"{kind}.{name} has {size} bytes, not {len(data)}")
        result[offset : offset + size] = data
    return bytes(result)


def number(kind: str, field: str, data: bytes, base: int = 0) -> int:
    offset, size = LAYOUT[kind][field]
    return int.from_bytes(data[base + offset : base + offset + size], sys.byteorder)


def raw(kind: str, field: str, data: bytes, base: int = 0) -> bytes:
    offset, size = LAYOUT[kind][field]
    return data[base + offset : base + offset + size]


def u32(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def pack_mac(mac: str) -> int:
    """As vnet_mac(): the first octet is the lowest byte."""
    return int.from_bytes(bytes.fromhex(mac.replace(":", "")), "little")


def unpack_mac(value: int) -> str:
    return value.to_bytes(6, "little").hex(":")


def pack_address(address: str) -> bytes:
    """16 bytes; IPv4 is mapped into IPv6. Raises ValueError."""
    parsed: Any = ipaddress.ip_address(address)
    if parsed.version == 4:
        return b"\0" * 10 + b"\xff\xff" + bytes(parsed.packed)
    return bytes(parsed.packed)


def unpack_address(data: bytes) -> str:
    parsed = ipaddress.IPv6Address(data)
    return str(parsed.ipv4_mapped or parsed)


def pack_uuid(text: str) -> bytes:
    return uuid.UUID(text).bytes


def normal_uuid(text: str) -> str:
    """The one spelling of a UUID; raises ValueError."""
    return str(uuid.UUID(text))


def unpack_uuid(data: bytes) -> str:
    return str(uuid.UUID(bytes=data))
