"""Connections by the million, as wire records (csrc/core/record.h), without a frame for any."""

import ipaddress
import struct

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout

#: version proto family local_port remote_port local remote state flags closing mark
#: remaining_ms age_ms packets(in, out) bytes(in, out); windows, of which nothing is known.
_RECORD = struct.Struct("<HBBHH16s16sBBBxIQQ2Q2Q32x")
if _RECORD.size != c.RECORD_SIZE:
    raise ImportError("tests/bench/records.py and csrc/core/record.h disagree")
_FIRST = int(ipaddress.IPv6Address("::ffff:10.128.0.0"))
_PORTS = 50_000


def make_records(count: int, address: str, *, state: str = "established") -> bytes:
    """Of TCP connections to port 7000 of `address`, each of another peer or port."""
    local, number = layout.pack_address(address), c.STATES.index(state)
    life = c.STATE_SECONDS[number] * 1000
    return b"".join(
        _RECORD.pack(
            *(c.RECORD_VERSION, 6, 4, 7000, 1024 + index % _PORTS),
            *(local, (_FIRST + index // _PORTS).to_bytes(16, "big")),
            *(number, c.CONN_ASSURED, 0, 0, life, 1000, 10, 10, 1000, 1000),
        )
        for index in range(count)
    )
