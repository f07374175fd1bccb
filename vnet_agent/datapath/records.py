"""Wire records (csrc/core/record.h), decoded for people."""

import struct
from collections.abc import Iterator

from vnet_agent.datapath import layout
from vnet_agent.datapath._flowcache import CONN_ASSURED, CONN_EGRESS, LAYOUT, RECORD_SIZE, STATES
from vnet_agent.datapath.base import Connection, Translated
from vnet_agent.model.protocols import NAMES

#: version proto family local_port remote_port local remote state flags closing mark
#: remaining_ms age_ms packets(in, out) bytes(in, out)
_RECORD = struct.Struct("<HBBHH16s16sBBBBIQQ2Q2Q")
#: Version of the record of a translation.
NAT = 2

_WINDOWS = _RECORD.size

if LAYOUT["conn_record"]["mark"] != (44, 4) or LAYOUT["conn_record"]["bytes"] != (80, 16):
    raise ImportError("records.py and csrc/core/record.h disagree; rebuild the extension")


def decode_records(data: bytes, limit: int | None = None) -> Iterator[Connection]:
    """At most `limit` connections from whole, valid records."""
    count = len(data) // RECORD_SIZE
    for index in range(count if limit is None else min(count, limit)):
        yield _decode(data, index * RECORD_SIZE)


def without_translations(data: bytes) -> bytes:
    """The same records for one that knows connections only."""
    versions = data[::RECORD_SIZE]
    if NAT not in versions:
        return data
    starts = (index * RECORD_SIZE for index, version in enumerate(versions) if version != NAT)
    return b"".join(data[start : start + RECORD_SIZE] for start in starts)


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
        way,
        mark,
        remaining_ms,
        _age_ms,
        ingress_packets,
        egress_packets,
        ingress_bytes,
        egress_bytes,
    ) = _RECORD.unpack_from(data, offset)
    translated = None
    if way:
        translated = decode_translated(way, mark, data[offset + _WINDOWS : offset + RECORD_SIZE])
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
        mark=0 if translated else mark,
        egress_packets=egress_packets,
        egress_bytes=egress_bytes,
        ingress_packets=ingress_packets,
        ingress_bytes=ingress_bytes,
        translated=translated,
    )


def decode_translated(way: int, ports: int, addresses: bytes) -> Translated:
    """From the places that csrc/core/nat.h keeps them in."""
    return Translated(
        way=("", "egress", "ingress")[way],
        local=layout.unpack_address(addresses[:16]),
        local_port=ports & 0xFFFF,
        remote=layout.unpack_address(addresses[16:32]),
        remote_port=ports >> 16,
    )
