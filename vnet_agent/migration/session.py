"""The steps of one migration on one host, as pure logic: news in, actions out, no I/O.

Both sides go PREPARE -> PRECOPY -> HANDOVER -> ACTIVE -> DRAIN -> DONE, or end in ABORTED.

Ownership is the generation: the source holds the port with `generation`, the destination takes it
with a newer one. Every action on the inventory carries the session's own generation, so that a
late one can never touch what a newer session owns. Who runs the guest is decided by libvirt only;
no news from the other agent ever takes the port from a host where the guest runs.
"""

import enum

from vnet_agent.model.migration import Phase

TERMINAL = frozenset({Phase.DONE, Phase.ABORTED})
_ORDER = {
    phase: number
    for number, phase in enumerate(
        (Phase.PREPARE, Phase.PRECOPY, Phase.HANDOVER, Phase.ACTIVE, Phase.DRAIN, Phase.DONE)
    )
}


class News(enum.Enum):
    """What can happen to a session; libvirt's events are those of this host."""

    STREAM_OPENED = enum.auto()
    STREAM_BROKEN = enum.auto()
    TIMEOUT = enum.auto()
    """No news for the idle time-out, and no stream open."""
    CANCELLED = enum.auto()
    """The other side says that the VM does not move after all."""

    # on the source
    GUEST_PAUSED = enum.auto()
    """SUSPENDED by the migration: the switchover began. Not final."""
    GUEST_RESUMED = enum.auto()
    """RESUMED: if that was a switchover, it failed."""
    GUEST_GONE = enum.auto()
    """STOPPED/MIGRATED: the guest runs at the destination for good."""
    GUEST_DIED = enum.auto()
    """Stopped in another way; on the destination while it may still be a failing migration."""
    FINAL_WANTED = enum.auto()
    """The destination has the guest and wants the rest."""
    FINAL_SENT = enum.auto()
    PEER_ACTIVE = enum.auto()
    """The destination says that the guest runs there."""
    RELEASED = enum.auto()

    # on the destination
    ARMED = enum.auto()
    """Port and policy are in place, and the source answered."""
    NO_STATE = enum.auto()
    """No (more) state will come; the migration goes on without."""
    COPIED = enum.auto()
    """All connections that the port had when the stream began are here."""
    GUEST_STARTED = enum.auto()
    """STARTED/MIGRATED: QEMU waits here for the guest."""
    GUEST_ARRIVED = enum.auto()
    """RESUMED, or paused as its user had it: the guest is here for good."""
    FINAL_IMPORTED = enum.auto()
    SOURCE_DONE = enum.auto()
    SOURCE_KEPT = enum.auto()
    """The source says that the guest was resumed there."""


class Action(enum.Enum):
    """What the session's owner must do, in the order given."""

    EXCHANGE_FRAMES = enum.auto()
    """The guest has paused: frames for it go after it from now on (see handover/)."""

    # on the source
    SEND_FINAL = enum.auto()
    """Wake the stream: one last delta, then FINAL."""
    END_STREAM = enum.auto()
    MARK_MOVED = enum.auto()
    KEEP = enum.auto()
    """The guest runs here: role ACTIVE with the old generation."""

    # on the destination
    PULL = enum.auto()
    ASK_FINAL = enum.auto()
    ACTIVATE = enum.auto()
    TELL_ACTIVE = enum.auto()
    CANCEL_SOURCE = enum.auto()
    STOP_PULL = enum.auto()
    REPLAY = enum.auto()
    """The state is here, or will not come: frames that were held may reach the tap."""

    # on both
    RELEASE = enum.auto()


class Session:
    """What both sides share; `handle` is the only way to change it."""

    def __init__(self) -> None:
        self.phase = Phase.PREPARE
        self.passed: list[tuple[Phase, str]] = [(Phase.PREPARE, "")]
        self.streaming = False
        self.error: str | None = None

    @property
    def over(self) -> bool:
        return self.phase in TERMINAL

    def handle(self, news: News, detail: str = "") -> list[Action]:
        """Take one piece of news; what does not matter in this phase is ignored."""
        if self.over:
            return []
        if news is News.STREAM_OPENED:
            self.streaming = True
        elif news is News.STREAM_BROKEN:
            self.streaming = False
        return self._handle(news, detail)

    def _handle(self, news: News, detail: str) -> list[Action]:
        raise NotImplementedError

    def _enter(self, phase: Phase, detail: str = "") -> list[Action]:
        """Go forward to `phase`, through HANDOVER wherever it would be skipped."""
        if _ORDER[phase] <= _ORDER[self.phase]:
            return []
        actions: list[Action] = []
        if _ORDER[self.phase] < _ORDER[Phase.HANDOVER] <= _ORDER[phase]:
            self._step(Phase.HANDOVER, detail)
            actions.append(Action.EXCHANGE_FRAMES)
        if phase is not Phase.HANDOVER:
            self._step(phase, detail)
        return actions

    def _abort(self, reason: str) -> None:
        self.error = reason
        self._step(Phase.ABORTED, reason)

    def _step(self, phase: Phase, detail: str) -> None:
        self.phase = phase
        self.passed.append((phase, detail))

    def note(self, detail: str) -> None:
        """For the report's steps."""
        self.passed.append((self.phase, detail))


class SourceSession(Session):
    """The host that the guest leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.final_wanted = False
        self.final_sent = False
        self.gone = False
        self.kept = False
        """The guest was resumed here: the migration failed."""

    def _handle(self, news: News, detail: str) -> list[Action]:
        before_handover = self.phase in (Phase.PREPARE, Phase.PRECOPY)
        match news:
            case News.STREAM_OPENED:
                return self._enter(Phase.PRECOPY) if self.phase is Phase.PREPARE else []
            case News.GUEST_PAUSED if before_handover:
                return [*self._enter(Phase.HANDOVER, detail or "guest paused"), *self._final()]
            case News.FINAL_WANTED:
                return [*self._enter(Phase.HANDOVER, "asked by destination"), *self._final()]
            case News.FINAL_SENT:
                self.final_sent = True
                self.streaming = False
                self.note("final delta sent")
                return self._drain() if self.gone else []
            case News.PEER_ACTIVE if self.phase is not Phase.DRAIN:
                final = self._final()
                return [
                    *self._enter(Phase.ACTIVE, "guest runs at destination"),
                    *final,
                    Action.MARK_MOVED,
                ]
            case News.GUEST_GONE | News.GUEST_DIED if (
                news is News.GUEST_GONE or self.gone or self.phase is Phase.ACTIVE
            ):
                self.gone = True
                actions = [*self._enter(Phase.HANDOVER, "guest gone"), *self._final()]
                return [*actions, *self._drain()] if self.final_sent else actions
            case News.RELEASED if self.phase is Phase.DRAIN:
                self._step(Phase.DONE, "")
            case News.GUEST_RESUMED if not before_handover and not self.gone:
                self.kept = True
                return self._give_up("guest resumed on the source")
            case News.GUEST_DIED:
                self._abort(f"guest stopped on the source: {detail}")
                return [Action.END_STREAM]
            case News.CANCELLED if not self.gone and self.phase is not Phase.ACTIVE:
                return self._give_up(detail or "cancelled by the destination")
            case News.TIMEOUT if not self.streaming:
                return self._time_out()
        return []

    def _final(self) -> list[Action]:
        if self.final_wanted:
            return []
        self.final_wanted = True
        return [Action.SEND_FINAL]

    def _drain(self) -> list[Action]:
        return [*self._enter(Phase.DRAIN), Action.RELEASE, Action.END_STREAM]

    def _give_up(self, reason: str) -> list[Action]:
        """Nothing was taken from this host: the port is what it was before."""
        keep = self.phase not in (Phase.PREPARE, Phase.PRECOPY)
        self._abort(reason)
        return [Action.KEEP, Action.END_STREAM] if keep else [Action.END_STREAM]

    def _time_out(self) -> list[Action]:
        if self.gone or self.phase is Phase.ACTIVE:
            if not self.final_sent:
                self.error = "the destination did not fetch the final delta"
            return self._drain()
        if self.phase is Phase.DRAIN:
            return [Action.RELEASE]
        return self._give_up("no word from the destination")


class DestinationSession(Session):
    """The host that the guest comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.started = False
        self.final = False
        self.lost = False
        self.failed = False
        self.kept = False
        """The source says that it has the guest again."""
        self.source_done = False

    @property
    def arrived(self) -> bool:
        return self.phase in (Phase.ACTIVE, Phase.DRAIN, Phase.DONE)

    def _handle(self, news: News, detail: str) -> list[Action]:
        match news:
            case News.ARMED:
                self.armed = True
                self.note(f"armed: {detail}")
                if self.arrived:
                    return [Action.PULL, Action.ASK_FINAL, Action.TELL_ACTIVE]
                return [Action.PULL]
            case News.STREAM_OPENED:
                return self._enter(Phase.PRECOPY) if self.phase is Phase.PREPARE else []
            case News.COPIED:
                self.note(detail)
            case News.GUEST_STARTED:
                self.started = True
                self.note("guest is awaited")
            case News.FINAL_IMPORTED:
                self.started = True
                self.final = True
                self.streaming = False
                entered = self._enter(Phase.HANDOVER, "final delta imported")
                return [*entered, Action.REPLAY, *self._drain()]
            case News.NO_STATE if not self.final and not self.lost:
                self.lost = True
                self.error = detail
                self.note(detail)
                return [Action.REPLAY, *self._drain()]
            case News.GUEST_ARRIVED if not self.arrived:
                return self._arrive(detail)
            case News.GUEST_DIED:
                return self._died(detail)
            case News.SOURCE_DONE:
                self.source_done = True
                return self._drain()
            case News.SOURCE_KEPT:
                return self._source_kept(detail)
            case News.CANCELLED if not self.arrived:
                return self._give_up(detail)
            case News.TIMEOUT:
                return self._time_out()
        return []

    def _arrive(self, detail: str) -> list[Action]:
        actions = [*self._enter(Phase.ACTIVE, detail), Action.ACTIVATE]
        if self.armed:
            if not self.final and not self.lost:
                actions.append(Action.ASK_FINAL)
            actions.append(Action.TELL_ACTIVE)
        return [*actions, *self._drain()]

    def _drain(self) -> list[Action]:
        """After the guest and all the state that will come are here, only the source is due."""
        if self.phase is Phase.ACTIVE and (self.final or self.lost):
            self._enter(Phase.DRAIN)
        if self.phase is Phase.DRAIN and (self.source_done or not self.armed):
            self._step(Phase.DONE, "")
        return []

    def _died(self, detail: str) -> list[Action]:
        if not self.arrived:
            return self._give_up(f"guest stopped on the destination: {detail}")
        self.failed = True
        self.note(f"guest stopped: {detail}")
        return self._give_up("guest resumed on the source") if self.kept else []

    def _source_kept(self, detail: str) -> list[Action]:
        """Before the guest arrived this is the end; afterwards libvirt's word here counts more."""
        if self.arrived and not self.failed:
            self.kept = True
            self.error = detail
            self.note(detail)
            return []
        return self._give_up(detail)

    def _give_up(self, reason: str) -> list[Action]:
        """Everything imported goes with the port; nothing of it may outlive the session."""
        self._abort(reason)
        return [Action.STOP_PULL, Action.RELEASE, Action.CANCEL_SOURCE]

    def _time_out(self) -> list[Action]:
        if self.phase is Phase.DRAIN:
            self._step(Phase.DONE, "no word from the source")
            return []
        if self.phase is Phase.ACTIVE:
            self.lost = True
            self.error = self.error or "the rest of the state did not come in time"
            return [Action.STOP_PULL, Action.REPLAY, *self._drain()]
        if self.started:
            return []
        return self._give_up("the guest was never started here")
