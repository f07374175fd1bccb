"""The contract of tables of handlers: rules in, frames for the controller out, frames back in."""

from typing import NamedTuple

import msgspec

from vnet_agent.model.handler import Miss


class TableRule(NamedTuple):
    """One rule as the datapath takes it: `match` is a struct vnet_match (192 bytes), `actions` a
    struct vnet_actions (128 bytes), `cookie` comes with packet-ins (32 bits)."""

    match: bytes
    actions: bytes
    cookie: int


#: By enum vnet_miss.
MISSES = (Miss.CONTINUE, Miss.DROP, Miss.CONTROLLER)


class TableStep(msgspec.Struct, frozen=True, kw_only=True):
    """A table that a frame came to: the id of the rule that it met there, or what a miss does."""

    table: int
    rule: int | None
    miss: Miss | None


class TableState(msgspec.Struct, frozen=True, kw_only=True):
    """What a table holds: rules by their ids. Tables without rules that continue are left out."""

    table: int
    miss: Miss
    rules: dict[int, TableRule]


class PacketIn(NamedTuple):
    """A frame for the controller.

    `time_ns` is wall clock, ns since 1970. `reason` is `rule` (of `cookie`) or `miss` (of
    `table`). `egress` says that it came from the VM. `length` is the frame's, `data` its first
    bytes, as they are after what earlier actions set.
    """

    port: str
    time_ns: int
    egress: bool
    table: int
    reason: str
    cookie: int
    metadata: int
    length: int
    data: bytes
