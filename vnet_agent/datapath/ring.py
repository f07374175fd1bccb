"""Captures of the C core: a flag at each port, what is wanted in a table, and a ring of frames."""

import errno
import struct
import threading
import time
from collections.abc import Iterator, Mapping

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout, sight
from vnet_agent.datapath.captured import (
    MAX_SNAP,
    Capture,
    CaptureCounts,
    CapturedFrame,
    CaptureRequest,
)
from vnet_agent.datapath.flags import set_flag
from vnet_agent.exceptions import CaptureBusy, DatapathError, FilterError

_SECOND = 1_000_000_000
#: A second's frames may come within this part of it, in ns.
_BURST_NS = _SECOND // 4
_DIRECTIONS = {None: 3, "ingress": 1, "egress": 2}

#: time_ns local_id length captured gso_size vlan_tci vlan_proto direction action reason
_RECORD = struct.Struct("=QIIIHHHBBB3x")
_TAG = struct.Struct("!HH")

if (
    c.LAYOUT["capture_record"]["reason"] != (28, 1)
    or c.LAYOUT["capture_record"][""][1] != _RECORD.size
    or c.CAPTURE_SNAP != MAX_SNAP
):
    raise ImportError("ring.py and csrc/core/capture_abi.h disagree; rebuild the extension")


def pack_request(request: CaptureRequest) -> bytes:
    """A struct capture; FilterError says which part means nothing."""
    if request.direction not in _DIRECTIONS:
        raise FilterError(detail=f"{request.direction!r} is no direction: ingress or egress.")
    if not 0 < request.snap <= MAX_SNAP:
        raise FilterError(detail=f"{request.snap} bytes of a frame; 1 to {MAX_SNAP} can be kept.")
    if not 0 < request.rate <= _SECOND:
        raise FilterError(detail=f"{request.rate} is no rate of frames a second.")
    family, remote, mask = sight.read_network(request.remote)
    return layout.pack(
        "capture",
        interval_ns=_SECOND // request.rate,
        burst_ns=_BURST_NS,
        snap=request.snap,
        directions=_DIRECTIONS[request.direction],
        drops_only=int(request.drops_only),
        proto=sight.read_protocol(request.protocol) if request.protocol is not None else 0,
        family=family,
        remote=remote,
        mask=mask,
    )


def clear_leftovers(handle: c.Datapath) -> None:
    """End what an agent captured when it died: nobody reads it."""
    for data in handle.ports():
        set_flag(handle, layout.number("port", "local_id", data), c.PORT_CAPTURED, wanted=False)
    for key, _ in handle.table_items(c.TABLE_CAPTURES):
        handle.table_remove(c.TABLE_CAPTURES, key)
    handle.capture_close()


class RingCapture(Capture):
    """Of the ports in `ids`, by local id. `lock` is the driver's: flags are written under it.

    Raises CaptureBusy when there is a capture already, DatapathError when the kernel refuses;
    nothing of it is left then.
    """

    def __init__(
        self,
        handle: c.Datapath,
        lock: threading.RLock,
        ids: Mapping[int, str],
        request: CaptureRequest,
        *,
        size: int,
    ) -> None:
        self._c = handle
        self._lock = lock
        self._ids = dict(ids)
        self._is_closed = False
        self._wall_ns = time.time_ns() - time.monotonic_ns()
        wanted = pack_request(request)
        self._fd = self._open(size)
        try:
            keys = b"".join(map(layout.u32, self._ids))
            handle.table_put(c.TABLE_CAPTURES, keys, wanted * len(self._ids))
            for local_id in self._ids:
                set_flag(handle, local_id, c.PORT_CAPTURED, wanted=True)
        except (OSError, ValueError, LookupError) as error:
            self.close()
            raise DatapathError(operation="capture", detail=str(error)) from error

    def _open(self, size: int) -> int:
        try:
            return self._c.capture_open(size)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.EBUSY:
                raise CaptureBusy() from None
            raise DatapathError(operation="capture", detail=str(error)) from error

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[CapturedFrame]:
        try:
            data = self._c.capture_read()
        except ValueError as error:
            raise DatapathError(operation="capture", detail=str(error)) from error
        return list(decode_frames(data, self._ids, self._wall_ns))

    def stop(self) -> None:
        with self._lock:
            for local_id, port in self._ids.items():
                try:
                    data = self._c.port_get(local_id)
                    # The id may be another port's by now.
                    if layout.unpack_uuid(layout.raw("port", "port", data)) == port:
                        set_flag(self._c, local_id, c.PORT_CAPTURED, wanted=False)
                except LookupError:  # removed meanwhile
                    continue
                except ValueError:  # the datapath is closed: its next opening clears flags
                    return

    def counts(self) -> dict[str, CaptureCounts]:
        return {port: self._count(local_id) for local_id, port in self._ids.items()}

    def _count(self, local_id: int) -> CaptureCounts:
        try:
            data = self._c.capture_get(local_id)
        except (OSError, ValueError):  # closed already
            return CaptureCounts()
        return CaptureCounts(
            matched=layout.number("capture", "matched", data),
            over=layout.number("capture", "over", data),
            full=layout.number("capture", "full", data),
        )

    def close(self) -> None:
        if self._is_closed:  # the ring is the next one's by now
            return
        self._is_closed = True
        self.stop()
        try:
            self._c.table_remove(c.TABLE_CAPTURES, b"".join(map(layout.u32, self._ids)))
            self._c.capture_close()
        except ValueError:
            return  # with the datapath, the ring is closed


def decode_frames(data: bytes, ids: Mapping[int, str], wall_ns: int) -> Iterator[CapturedFrame]:
    """From whole records, one behind the other; `wall_ns` is added to their clock."""
    at = 0
    while at < len(data):
        (
            time_ns,
            local_id,
            length,
            captured,
            gso_size,
            tag,
            tag_type,
            direction,
            action,
            reason,
        ) = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        frame = data[at : at + captured]
        at += captured
        if tag_type and captured >= 12:
            frame = frame[:12] + _TAG.pack(tag_type, tag) + frame[12:]
            length += _TAG.size
        yield CapturedFrame(
            port=ids.get(local_id, ""),
            time_ns=time_ns + wall_ns,
            egress=direction == 1,
            verdict=sight.name_verdict(action, egress=direction == 1),
            reason=c.REASONS[reason] if action == c.DROP else None,
            length=length,
            gso_size=gso_size,
            data=frame,
        )
