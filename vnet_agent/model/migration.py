"""The migration report of the contract, and the steps it is made of."""

import enum

import msgspec


class Phase(enum.StrEnum):
    PREPARE = "prepare"
    PRECOPY = "precopy"
    HANDOVER = "handover"
    ACTIVE = "active"
    DRAIN = "drain"
    DONE = "done"
    ABORTED = "aborted"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a session's log; `time_ns` is wall clock, ns since 1970."""

    phase: Phase
    time_ns: int
    detail: str = ""


class Report(msgspec.Struct, kw_only=True):
    """One live migration as one host saw it; None is "not measured here", never zero.

    `id` is the session's, the same on both hosts. `side` is `source` or `destination`;
    `source` is empty while the destination has not found out whence the VM comes.

    `connections_moved` is how many were in the destination's tables when the state was complete,
    or so far. `connections_refused` counts refused records of the last stream by reason: a
    connection that changed while the guest still ran was sent, and counts, again.
    `precopy_rounds` counts the full copy too. `final_delta_ms` goes from SUSPENDED on the source
    to the destination's word that all is imported, on the source's clock. `vcpu_pause_ms` is
    libvirt's own downtime where it gives one, else from SUSPENDED on the source to RESUMED on the
    destination if both are on one machine.
    """

    id: str
    instance: str
    instance_name: str
    side: str
    source: str
    destination: str
    generation: int
    phase: Phase = Phase.PREPARE
    steps: list[Step] = []
    connections_moved: int | None = None
    connections_refused: dict[str, int] = {}
    precopy_rounds: int | None = None
    final_delta_ms: float | None = None
    vcpu_pause_ms: float | None = None
    network_gap_ms: float | None = None
    frames_replayed: int | None = None
    frames_lost: int | None = None
    frames_duplicated: int | None = None
    error: str | None = None
