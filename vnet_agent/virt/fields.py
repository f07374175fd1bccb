"""Validation of single fields of a domain XML; each raises ValueError that shows the value."""

import ipaddress
import re
import uuid
from collections.abc import Callable
from typing import TypeVar
from xml.etree.ElementTree import Element

T = TypeVar("T")

MAX_MTU = 65535
MAX_QUEUES = 256
MAX_NETWORK = 0xFFFFFF
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\Z")
_INTERFACE = re.compile(r"[!-~]{1,15}\Z")
_PROJECT = re.compile(r"[0-9A-Za-z_.-]{1,64}\Z")
_NUMBER = re.compile(r"[0-9]{1,10}\Z")


def quote(value: str) -> str:
    """The value for a message: escaped, and not longer than a line takes."""
    return repr(value if len(value) <= 64 else value[:61] + "...")


def mac(value: str) -> str:
    """A unicast MAC address in lower case with colons."""
    lower = value.lower()
    if not _MAC.match(lower):
        raise ValueError(f"{quote(value)} is not a MAC address")
    if int(lower[:2], 16) & 1:
        raise ValueError(f"{lower} is a multicast address")
    if lower == "00:00:00:00:00:00":
        raise ValueError(f"{lower} is no address of a station")
    return lower


def address(value: str) -> str:
    """An IPv4 or IPv6 address of one host, in its shortest text."""
    try:
        parsed = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{quote(value)} is not an IP address") from None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None:
        raise ValueError(f"{quote(value)} has a zone, which means nothing outside its host")
    if parsed.is_multicast or parsed.is_unspecified:
        raise ValueError(f"{parsed} is not the address of one host")
    return str(parsed)


def prefix(value: str) -> str:
    """A CIDR, or one address, without bits behind its prefix."""
    try:
        parsed = ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"{quote(value)} is not a CIDR: {error}") from None
    if "%" in value:
        raise ValueError(f"{quote(value)} has a zone, which means nothing outside its host")
    if parsed.is_multicast:
        raise ValueError(f"{parsed} is not the address of one host")
    return str(parsed)


def interface(value: str) -> str:
    """A network interface's name as the kernel takes it (dev_valid_name), ASCII only."""
    if not _INTERFACE.match(value) or value in (".", "..") or "/" in value or ":" in value:
        raise ValueError(f"{quote(value)} is not the name of an interface")
    return value


def identifier(value: str) -> str:
    """A UUID in lower case with hyphens."""
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        raise ValueError(f"{quote(value)} is not a UUID") from None
    if parsed.int == 0 or value.lower() not in (str(parsed), parsed.hex):
        raise ValueError(f"{quote(value)} is not a UUID")
    return str(parsed)


def project(value: str) -> str:
    """A Keystone project id: 32 hex digits as a rule, other short names in old clouds."""
    if not _PROJECT.match(value):
        raise ValueError(f"{quote(value)} is not the id of a project")
    return value


def name(value: str) -> str:
    """A domain's name: printable, not empty, at most 255 characters."""
    if not value or len(value) > 255 or not value.isprintable():
        raise ValueError(f"{quote(value)} is not a name")
    return value


def number(value: str, low: int, high: int) -> int:
    if not _NUMBER.match(value) or not low <= int(value) <= high:
        raise ValueError(f"{quote(value)} is not a number from {low} to {high}")
    return int(value)


def attribute(element: Element, key: str, check: Callable[[str], T], what: str) -> T:
    """The attribute as `check` returns it; ValueError says `what` and `key` when it is wrong."""
    value = element.get(key)
    if value is None:
        raise ValueError(f"{what}: attribute {key} is missing")
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{what} {key}: {error}") from None


def optional(element: Element, key: str, check: Callable[[str], T], what: str) -> T | None:
    """The same for an attribute that need not be there."""
    return None if element.get(key) is None else attribute(element, key, check, what)
