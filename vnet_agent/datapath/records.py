"""Wire records (csrc/core/record.h), decoded for people."""

import struct
from collections.abc import Iterator

from vnet_agent.datapath import layout
from vnet_agent.datapath._flowcache import CONN_ASSURED, CONN_EGRESS, LAYOUT, RECORD_SIZE, STATES
from vnet_agent.datapath.base import Connection
from vnet_agent.model.protocols import NAMES

#: version proto family local_port remote_port local remote state flags closing mark
#: remaining_ms age_ms packets(in, out) bytes(in, out)
_RECORD = struct.Struct("<HBBHH16s16sBBBxIQQ2Q2Q")

if LAYOUT["conn_record"]["mark"] != (44, 4) or LAYOUT["conn_record"]["bytes"] != (80, 16):
    raise ImportError("records.py and csrc/core/record.h disagree; rebuild the extension")


def decode_records(data: bytes, limit: int | None = None) -> Iterator[Connection]:
    """At most `limit` connections from whole, valid records."""
    count = len(data) // RECORD_SIZE
    for index in range(count if limit is None else min(count, limit)):
        yield _decode(data, index * RECORD_SIZE)


def _decode(data: bytes, offset: int) -> Connection:
    (
        _version,
        proto,
        _family,
        local_port,
        remote_port,
        local,
        remote,
        state,
        flags,
        _closing,
        mark,
        remaining_ms,
        _age_ms,
        ingress_packets,
        egress_packets,
        ingress_bytes,
        egress_bytes,
    ) = _RECORD.unpack_from(data, offset)
    return Connection(
        protocol=NAMES.get(proto, str(proto)),
        local=layout.unpack_address(local),
        local_port=local_port,
        remote=layout.unpack_address(remote),
        remote_port=remote_port,
        state=STATES[state],
        origin="egress" if flags & CONN_EGRESS else "ingress",
        assured=bool(flags & CONN_ASSURED),
        remaining_ms=remaining_ms,
        mark=mark,
        egress_packets=egress_packets,
        egress_bytes=egress_bytes,
        ingress_packets=ingress_packets,
        ingress_bytes=ingress_bytes,
    )
