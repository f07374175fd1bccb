"""Flags of a port that its description does not tell; a change of that leaves them alone."""

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout

#: The short ways that an interface may have; one at most.
SHORT = c.PORT_SHORT | c.PORT_PEER
#: Those of a migration's hand-over; see holding.py.
HANDOVER = (c.PORT_HELD, c.PORT_DRAINING, c.PORT_RELAYED)
KEPT = c.PORT_CAPTURED | c.PORT_METERED | c.PORT_TABLES | c.PORT_NAT | SHORT | sum(HANDOVER)


def set_flag(handle: c.Datapath, local_id: int, flag: int, *, wanted: bool) -> None:
    """In one store; the caller holds the driver's lock."""
    flags = layout.number("port", "flags", handle.port_get(local_id))
    changed = flags | flag if wanted else flags & ~flag
    if changed != flags:
        offset, size = c.LAYOUT["port"]["flags"]
        handle.port_store(local_id, offset, size, changed)
