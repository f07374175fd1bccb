"""Bodies of the requests between two agents, all JSON."""

import enum

import msgspec

from vnet_agent.migration.wire import StreamPort

#: What this side reads of a body at most, in bytes.
MAX_BODY = 1 << 17


class Located(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/locate/{instance}`: this host runs the instance."""

    instance: str
    host: str
    url: str
    generation: int


class OpenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/sessions`, by the destination; `versions` are those of wire.py that it reads.

    Repeating it is harmless: the answer is the same as long as the session lives. `room` is how
    many connections a port may hold there, 0 for an agent that does not say.
    """

    session: str
    instance: str
    destination: str
    versions: tuple[int, ...]
    transfer: bool = True
    room: int = 0


class OpenReply(msgspec.Struct, frozen=True, kw_only=True):
    """The source's ports and the generation that it holds them with.

    `transfer` False: one of the two sides keeps state to itself, and the stream has no records.
    """

    session: str
    host: str
    generation: int
    ports: tuple[StreamPort, ...]
    version: int
    transfer: bool


class ImportedReply(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/sessions/{id}/imported`, by the destination after FINAL."""

    final_delta_ms: float | None


class ActiveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/sessions/{id}/active`: the guest runs at the destination.

    Answered when the source is done, or after a while with `pending`; repeat it then. `left`: it
    ran there, and has left or ended, so that it may run at the source again; that takes nothing
    from the source.
    """

    left: bool = False


class Outcome(enum.StrEnum):
    DONE = "done"
    KEPT = "kept"
    PENDING = "pending"
    ENDED = "ended"


class ActiveReply(msgspec.Struct, frozen=True, kw_only=True):
    """`suspended_ns` is the source's wall clock, to be compared only under an equal `boot_id`."""

    outcome: Outcome
    detail: str = ""
    suspended_ns: int | None = None
    boot_id: str = ""
    downtime_ms: float | None = None


class RelayedReply(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/sessions/{id}/relayed`: the destination needs no more frames.

    `lost` frames found no room at the source. `exact` False: it cannot be told whether frames at
    the cut were lost, or came twice, and `detail` says why. `delivered_ns` is when the last frame
    came that the guest had there, `now_ns` the time of this answer, both on the source's clock.
    """

    lost: int | None
    exact: bool
    detail: str
    delivered_ns: int | None
    now_ns: int


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457."""

    title: str = ""
    status: int = 0
    detail: str = ""
    type: str = "about:blank"
