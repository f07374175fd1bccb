"""Invariants of the two state machines, whatever libvirt and the network do and in any order."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vnet_agent.migration.session import (
    TERMINAL,
    Action,
    DestinationSession,
    News,
    Session,
    SourceSession,
)
from vnet_agent.model.migration import Phase
from vnet_agent.model.port import Role

ORDER = [Phase.PREPARE, Phase.PRECOPY, Phase.HANDOVER, Phase.ACTIVE, Phase.DRAIN, Phase.DONE]


class Owner:
    """A host's port: role, generation and what was imported into it."""

    def __init__(self, role: Role | None, generation: int) -> None:
        self.role = role
        self.generation = generation
        self.imported = 0

    def change(self, role: Role | None, generation: int) -> None:
        if generation < self.generation:
            return
        self.role, self.generation = role, generation
        if role is None:
            self.imported = 0


class Migration(RuleBasedStateMachine):
    """One source, one destination, and libvirt, which alone decides where the guest is.

    libvirt's news are made as it makes them; requests of the other side and the stream may be
    lost, late and repeated at will.
    """

    @initialize(generation=st.integers(1, 5))
    def begin(self, generation: int) -> None:
        self.g = generation
        self.source = SourceSession()
        self.destination = DestinationSession()
        self.a = Owner(Role.ACTIVE, generation)
        self.b = Owner(Role.STANDBY, generation + 1)
        self.guest = "a"
        self.failed = False
        self.pulling = False
        self.phases: dict[Session, list[Phase]] = {self.source: [], self.destination: []}

    def tell(self, session: Session, news: News) -> None:
        was_over = session.over
        actions = session.handle(news, "said")
        assert not (was_over and actions)
        for action in actions:
            self.perform(session, action)

    def perform(self, session: Session, action: Action) -> None:
        owner, generation = (self.a, self.g) if session is self.source else (self.b, self.g + 1)
        match action:
            case Action.MARK_MOVED:
                assert self.guest != "a"
                owner.change(Role.MOVED, generation)
            case Action.KEEP | Action.ACTIVATE:
                owner.change(Role.ACTIVE, generation)
            case Action.RELEASE:
                owner.change(None, generation)
                if session is self.source:
                    self.tell(session, News.RELEASED)
            case Action.PULL:
                self.pulling = True
            case Action.STOP_PULL:
                self.pulling = False

    # -- libvirt

    @precondition(lambda self: self.guest == "a")
    @rule()
    def guest_started(self) -> None:
        self.tell(self.destination, News.GUEST_STARTED)

    @precondition(lambda self: self.guest == "a" and not self.failed)
    @rule()
    def switchover_begins(self) -> None:
        self.guest = "between"
        self.tell(self.source, News.GUEST_PAUSED)

    @precondition(lambda self: self.guest == "between" and not self.failed)
    @rule()
    def switchover_succeeds(self) -> None:
        self.guest = "b"
        self.tell(self.destination, News.GUEST_ARRIVED)

    @precondition(lambda self: self.guest in ("a", "between") and not self.failed)
    @rule()
    def migration_fails(self) -> None:
        if self.guest == "between":
            self.tell(self.source, News.GUEST_RESUMED)
        self.guest = "a"
        self.failed = True
        self.tell(self.destination, News.GUEST_DIED)

    @precondition(lambda self: self.guest == "b")
    @rule()
    def source_stops(self) -> None:
        """Where no session cares any more, the inventory forgets ports of stopped domains."""
        self.tell(self.source, News.GUEST_GONE)
        if self.source.over:
            self.a.change(None, self.g)

    # -- between the agents

    @rule()
    def armed(self) -> None:
        if not self.destination.armed and not self.destination.over:
            self.tell(self.destination, News.ARMED)

    @precondition(lambda self: self.pulling)
    @rule(lost=st.booleans())
    def stream(self, lost: bool) -> None:
        for session in (self.source, self.destination):
            self.tell(session, News.STREAM_OPENED)
        self.b.imported += 1
        if lost:
            for session in (self.source, self.destination):
                self.tell(session, News.STREAM_BROKEN)

    @precondition(lambda self: self.pulling and self.source.final_wanted)
    @rule()
    def final(self) -> None:
        self.tell(self.source, News.FINAL_SENT)
        if self.source.final_sent:
            self.pulling = False
            self.tell(self.destination, News.FINAL_IMPORTED)

    @precondition(lambda self: self.guest == "b" and self.destination.arrived)
    @rule()
    def destination_speaks(self) -> None:
        self.tell(self.source, News.FINAL_WANTED)
        self.tell(self.source, News.PEER_ACTIVE)

    @precondition(lambda self: self.destination.phase is Phase.ABORTED)
    @rule()
    def destination_cancels(self) -> None:
        self.tell(self.source, News.CANCELLED)

    @precondition(lambda self: self.source.over)
    @rule()
    def source_answers(self) -> None:
        if self.source.kept:
            self.tell(self.destination, News.SOURCE_KEPT)
        else:
            self.tell(self.destination, News.SOURCE_DONE)

    @rule()
    def no_state(self) -> None:
        self.tell(self.destination, News.NO_STATE)

    @rule()
    def source_waits_in_vain(self) -> None:
        self.tell(self.source, News.TIMEOUT)

    @precondition(lambda self: self.guest == "b" or self.destination.started)
    @rule()
    def destination_waits_in_vain(self) -> None:
        self.tell(self.destination, News.TIMEOUT)

    # -- what always holds

    @invariant()
    def the_guest_has_its_port(self) -> None:
        """Where the guest runs the port is usable; only one host is ACTIVE for it."""
        if self.guest == "b" and self.destination.arrived:
            assert self.b.role is Role.ACTIVE
        if self.guest == "a":
            assert self.a.role is Role.ACTIVE
            assert self.b.role is not Role.ACTIVE
        if self.a.role is Role.ACTIVE and self.b.role is Role.ACTIVE:
            # Until the source has heard; the newer generation is the owner.
            assert self.guest == "b"
            assert self.b.generation > self.a.generation

    @invariant()
    def nothing_survives_an_abort(self) -> None:
        if self.destination.phase is Phase.ABORTED:
            assert self.b.role is None
            assert self.b.imported == 0
            assert not self.pulling

    @invariant()
    def phases_go_forward(self) -> None:
        for session in (self.source, self.destination):
            phases = [phase for phase, _ in session.passed]
            if phases[-1] is Phase.ABORTED:
                assert session.error
                phases.pop()
            numbers = [ORDER.index(phase) for phase in phases]
            assert numbers == sorted(numbers)
            if Phase.ACTIVE in phases or Phase.DRAIN in phases:
                assert Phase.HANDOVER in phases

    @invariant()
    def generations_stay(self) -> None:
        assert (self.a.generation, self.b.generation) == (self.g, self.g + 1)

    def teardown(self) -> None:
        """Every session ends: libvirt settles, then only time-outs come."""
        if not hasattr(self, "guest"):
            return
        if self.guest == "b":
            self.source_stops()
            self.tell(self.destination, News.GUEST_ARRIVED)
        else:
            if not self.failed:
                self.migration_fails()
        for session in (self.source, self.destination):
            self.tell(session, News.STREAM_BROKEN)
            for _ in range(3):
                self.tell(session, News.TIMEOUT)
            assert session.phase in TERMINAL
        assert (self.a.role, self.b.role) == (
            (None, Role.ACTIVE) if self.guest == "b" else (Role.ACTIVE, None)
        )


Migration.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestMigration = Migration.TestCase


@pytest.mark.parametrize("kind", [SourceSession, DestinationSession])
@pytest.mark.parametrize("news", list(News))
def test_over_is_over(kind: type[Session], news: News) -> None:
    session = kind()
    session.handle(News.TIMEOUT)
    assert session.phase is Phase.ABORTED
    before = list(session.passed)
    assert session.handle(news) == []
    assert session.passed == before


def test_final_goes_out_once() -> None:
    session = SourceSession()
    session.handle(News.STREAM_OPENED)
    assert Action.SEND_FINAL in session.handle(News.GUEST_PAUSED)
    assert Action.SEND_FINAL not in session.handle(News.FINAL_WANTED)
    assert session.handle(News.GUEST_GONE) == []
    assert session.handle(News.FINAL_SENT) == [Action.RELEASE, Action.END_STREAM]
    session.handle(News.RELEASED)
    assert session.phase is Phase.DONE


def test_frames_are_exchanged_once_and_before_activation() -> None:
    session = DestinationSession()
    session.handle(News.ARMED)
    session.handle(News.STREAM_OPENED)
    assert session.handle(News.GUEST_ARRIVED) == [
        Action.EXCHANGE_FRAMES,
        Action.ACTIVATE,
        Action.ASK_FINAL,
        Action.TELL_ACTIVE,
    ]
    assert session.handle(News.FINAL_IMPORTED) == [Action.REPLAY]
    assert session.phase is Phase.DRAIN


def test_word_of_the_source_does_not_take_a_running_guest() -> None:
    session = DestinationSession()
    session.handle(News.ARMED)
    session.handle(News.GUEST_ARRIVED)
    assert session.handle(News.SOURCE_KEPT, "resumed there") == []
    assert session.phase is Phase.ACTIVE
    assert Action.RELEASE in session.handle(News.GUEST_DIED, "FAILED")
    assert session.phase is Phase.ABORTED


def test_shutdown_after_arrival_is_no_failed_migration() -> None:
    session = DestinationSession()
    session.handle(News.ARMED)
    session.handle(News.GUEST_ARRIVED)
    session.handle(News.FINAL_IMPORTED)
    assert session.handle(News.GUEST_DIED, "SHUTDOWN") == []
    session.handle(News.SOURCE_DONE)
    assert session.phase is Phase.DONE
