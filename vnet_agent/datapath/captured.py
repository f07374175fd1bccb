"""The contract of a capture: which frames of which ports, and what comes of them."""

import abc
from typing import NamedTuple

import msgspec

#: Bytes of a frame that are captured at most.
MAX_SNAP = 65535


class CaptureRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which frames; None is any.

    `direction` is `ingress` or `egress`, seen from the VM; `protocol` is a name or a number,
    behind IPv6 extension headers; `remote` is a CIDR of the other end. `snap` is how many bytes of
    a frame are kept, 1 to MAX_SNAP; `rate` is how many frames a second of one port are, at most.
    """

    direction: str | None = None
    drops_only: bool = False
    protocol: str | None = None
    remote: str | None = None
    snap: int = 256
    rate: int = 5000


class CapturedFrame(NamedTuple):
    """One frame as the datapath judged it.

    `time_ns` is wall clock, ns since 1970. `verdict` is as in a trace: `deliver`, `bridge`,
    `forward`, `flood` or `drop`; `reason` is why it was dropped. `length` is the frame's, `data`
    its first bytes, with the VLAN tag in its place. `gso_size` is the size of the segments that
    the frame is still to be cut into, 0 if it is not.
    """

    port: str
    time_ns: int
    egress: bool
    verdict: str
    reason: str | None
    length: int
    gso_size: int
    data: bytes


class CaptureCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Frames of one port: `matched` were asked for; of those `over` were lost because they came
    faster than the rate, and `full` because the reader was too slow."""

    matched: int = 0
    over: int = 0
    full: int = 0


class Capture(abc.ABC):
    """A capture that runs, from `Driver.capture` to `close`. Methods block for a moment only."""

    @abc.abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable while there are frames; it goes with `close`."""

    @abc.abstractmethod
    def read(self) -> list[CapturedFrame]:
        """The next frames in the order of their verdicts, 256 KiB at most; [] for none."""

    @abc.abstractmethod
    def stop(self) -> None:
        """No further frames are taken; those that were can still be read."""

    @abc.abstractmethod
    def counts(self) -> dict[str, CaptureCounts]:
        """By port."""

    @abc.abstractmethod
    def close(self) -> None:
        """End it, whatever state it is in; what was not read is gone."""
