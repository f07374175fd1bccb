"""The answer to a packet-in: a rule, a packet, or the rule and then the packet."""

import base64
import binascii
from typing import Any

import msgspec

from vnet_agent.exceptions import HandlerError
from vnet_agent.handlers import document
from vnet_agent.model.handler import Handler

#: Bytes of an Ethernet frame, without and with the longest IP packet.
MIN_FRAME, MAX_FRAME = 14, 14 + 4 + 65535


class PacketOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frame to be treated as one from the port's VM (`egress`) or to it (`ingress`).

    `frame` is base64. With `tables` it begins at table 0, without it goes on as after `normal`.
    """

    port: str
    direction: str
    frame: str
    tables: bool = False

    def data(self) -> bytes:
        return base64.b64decode(self.frame)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`rule` is its table and the rule."""

    rule: tuple[int, Handler] | None = None
    packet: PacketOut | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    rule: dict[str, Any] | None = None
    packet: PacketOut | None = None


def read_answer(value: Any) -> Answer:
    """Check a decoded answer; `where` of a HandlerError is a JSON path."""
    try:
        request = msgspec.convert(value, _Request)
    except msgspec.ValidationError as error:
        detail, _, where = str(error).partition(" - at `")
        raise HandlerError(where=where.rstrip("`") or "$", detail=detail) from None
    if request.rule is None and request.packet is None:
        raise HandlerError(where="$", detail="there is neither a rule nor a packet")
    rule = None
    if request.rule is not None:
        rule = document.rule_from_json(request.rule, None, where="$.rule")
    if request.packet is not None:
        _check_packet(request.packet)
    return Answer(rule=rule, packet=request.packet)


def _check_packet(packet: PacketOut) -> None:
    if packet.direction not in ("ingress", "egress"):
        detail = f"{packet.direction[:60]!r} is not one of ingress, egress"
        raise HandlerError(where="$.packet.direction", detail=detail)
    try:
        data = base64.b64decode(packet.frame, validate=True)
    except (binascii.Error, ValueError) as error:
        detail = f"this is no base64: {error}"
        raise HandlerError(where="$.packet.frame", detail=detail) from None
    if not MIN_FRAME <= len(data) <= MAX_FRAME:
        detail = f"{len(data)} bytes are no Ethernet frame: {MIN_FRAME} to {MAX_FRAME}"
        raise HandlerError(where="$.packet.frame", detail=detail)
