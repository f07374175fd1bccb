"""From one node of a document to a field's value in its one spelling."""

import ipaddress
import re
import uuid
from collections.abc import Mapping

from vnet_agent.policy.tree import Node

_MAC = r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}"
_MASKED_MAC = re.compile(rf"({_MAC})(?:/({_MAC}))?\Z")
_NUMBER = r"0x[0-9A-Fa-f]{1,16}|[0-9]{1,20}"
_MASKED = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?\Z")
_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})\Z")
_FLAG = re.compile(r"([+-])([a-z]+)")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:/[0-9]{1,3})?\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")

TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
#: enum vnet_conn_bit
CONN_STATES = {"trk": 1, "new": 2, "est": 4, "rel": 8, "rpl": 16, "inv": 32}


def show(node: Node) -> str:
    """What a message calls the node's value."""
    if isinstance(node.value, list | dict):
        return "a list" if isinstance(node.value, list) else "a mapping"
    return repr(node.value)[:60]


def read_number(node: Node, low: int, high: int) -> int:
    """A number, or text of one in decimal or hexadecimal."""
    value = parse_number(node.value)
    if value is None or not low <= value <= high:
        raise node.refused(f"{show(node)} is no number from {low} to {high}")
    return value


def parse_number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(_NUMBER, value):
        return int(value, 16 if value.startswith("0x") else 10)
    return None


def read_choice(node: Node, *names: str) -> str:
    if not isinstance(node.value, str) or node.value not in names:
        raise node.refused(f"{show(node)} is not one of {', '.join(names)}")
    return node.value


def read_named(node: Node, names: Mapping[str, int], low: int, high: int) -> str | int:
    """A name or a number; a number that has a name becomes the name."""
    if isinstance(node.value, str) and node.value in names:
        return node.value
    number = parse_number(node.value)
    if number is None or not low <= number <= high:
        known = ", ".join(names)
        raise node.refused(f"{show(node)} is not one of {known}, nor a number {low}-{high}")
    return next((name for name, value in names.items() if value == number), number)


def read_uuid(node: Node) -> str:
    if not isinstance(node.value, str) or not _UUID.match(node.value):
        raise node.refused(f"{show(node)} is no UUID")
    return str(uuid.UUID(node.value))


def read_mac(node: Node) -> str:
    """`MAC` or `MAC/MASK`; a mask of all bits is left out."""
    found = _MASKED_MAC.match(node.value) if isinstance(node.value, str) else None
    if found is None:
        raise node.refused(f"{show(node)} is no MAC address such as 52:54:00:12:34:56")
    mac, mask = found[1].lower(), (found[2] or "ff:ff:ff:ff:ff:ff").lower()
    value, bits = (int(text.replace(":", ""), 16) for text in (mac, mask))
    check_mask(node, value, bits)
    return mac if bits == (1 << 48) - 1 else f"{mac}/{mask}"


def check_mask(node: Node, value: int, mask: int) -> None:
    if mask == 0:
        raise node.refused("its mask is 0, so that it says nothing; leave it out")
    if value & ~mask:
        raise node.refused(f"{show(node)} has bits outside of its mask")


def read_masked(node: Node, bits: int) -> tuple[int, int]:
    """Value and mask of a number of so many bits."""
    most = (1 << bits) - 1
    text = str(node.value) if parse_number(node.value) is not None else node.value
    found = _MASKED.match(text) if isinstance(text, str) else None
    value = parse_number(found[1]) if found else None
    mask = parse_number(found[2] or most) if found else None
    if value is None or mask is None or max(value, mask) > most:
        raise node.refused(f"{show(node)} is no number up to {most:#x}, nor VALUE/MASK")
    check_mask(node, value, mask)
    return value, mask


def spell_masked(value: int, mask: int, bits: int) -> str:
    return f"{value:#x}" if mask == (1 << bits) - 1 else f"{value:#x}/{mask:#x}"


def parse_masked(text: str, bits: int) -> tuple[int, int]:
    """Of what `spell_masked` wrote."""
    value, _, mask = text.partition("/")
    return int(value, 16), int(mask, 16) if mask else (1 << bits) - 1


def read_ports(node: Node) -> str | int:
    """`80`, `"1000-2000"`, or VALUE/MASK; what is a range in fact becomes one."""
    found = _RANGE.match(node.value) if isinstance(node.value, str) else None
    if found is not None:
        low, high = int(found[1]), int(found[2])
        if not low <= high <= 0xFFFF:
            raise node.refused(f"{show(node)} is no range within 0-65535, the smaller first")
        return spell_range(low, high)
    number = parse_number(node.value)
    is_port = number is not None and 0 <= number <= 0xFFFF
    if not is_port and not (isinstance(node.value, str) and "/" in node.value):
        raise node.refused(
            f"{show(node)} is no port: a number 0-65535, a range such as 1000-2000, or VALUE/MASK"
        )
    value, mask = read_masked(node, 16)
    rest = ~mask & 0xFFFF
    if rest & (rest + 1) == 0:
        return spell_range(value, value | rest)
    return spell_masked(value, mask, 16)


def port_ranges(value: str | int) -> list[tuple[int, int]]:
    """The ranges that what `read_ports` made stands for: several for some masks."""
    if isinstance(value, int):
        return [(value, value)]
    if "-" in value:
        low, _, high = value.partition("-")
        return [(int(low), int(high))]
    base, mask = parse_masked(value, 16)
    rest = ~mask & 0xFFFF
    # The bits below the lowest one of the mask are a range, each other one doubles their number.
    size = mask & -mask
    found = [base]
    for bit in (1 << index for index in range(16)):
        if bit >= size and rest & bit:
            found += [start | bit for start in found]
    return [(start, start + size - 1) for start in sorted(found)]


def spell_address(data: bytes) -> str:
    return str(ipaddress.ip_address(data))


def spell_prefix(value: bytes, mask: bytes) -> str:
    """Raises ValueError for a mask that is no prefix."""
    length = int.from_bytes(mask, "big").bit_count()
    return str(ipaddress.ip_network((value, length)))


def spell_range(low: int, high: int) -> str | int:
    return low if low == high else f"{low}-{high}"


def read_prefix(node: Node, *versions: int) -> str:
    """An address or a CIDR; /32 and /128 are written out."""
    text = node.value
    if not isinstance(text, str) or not _ADDRESS.match(text):
        raise node.refused(f"{show(node)} is no address or CIDR such as 10.0.0.0/8")
    try:
        network = ipaddress.ip_network(text, strict="/" in text)
    except ValueError as error:
        raise node.refused(f"this is no CIDR: {error}") from None
    if network.version not in versions:
        raise node.refused(f"{show(node)} is no IPv{versions[0]} address")
    return str(network)


def read_address(node: Node) -> str:
    """One address."""
    try:
        return str(ipaddress.ip_address(node.value if isinstance(node.value, str) else ""))
    except ValueError:
        raise node.refused(f"{show(node)} is no IP address") from None


def read_flags(node: Node, names: Mapping[str, int]) -> str:
    """`+syn-ack`: in the order of the bits."""
    text = node.value if isinstance(node.value, str) else ""
    found = _FLAG.findall(text)
    known = ", ".join(names)
    if not found or "".join(sign + name for sign, name in found) != text:
        raise node.refused(f"{show(node)} is not such as +{next(iter(names))}; known are {known}")
    signs: dict[str, str] = {}
    for sign, name in found:
        if name not in names:
            raise node.refused(f"{name!r} is not one of {known}")
        if signs.setdefault(name, sign) != sign:
            raise node.refused(f"{name!r} can not be set and clear at once")
    return "".join(signs[name] + name for name in names if name in signs)


def parse_flags(text: str, names: Mapping[str, int]) -> tuple[int, int]:
    """Value and mask of what `read_flags` wrote."""
    value = mask = 0
    for sign, name in _FLAG.findall(text):
        mask |= names[name]
        value |= names[name] * (sign == "+")
    return value, mask


def spell_flags(value: int, mask: int, names: Mapping[str, int]) -> str:
    return "".join(
        ("+" if value & bit else "-") + name for name, bit in names.items() if mask & bit
    )
