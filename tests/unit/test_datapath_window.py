"""TCP windows: what a segment with foreign numbers can and cannot do."""

import frames as f
import pytest
from datapath_bench import PEER4, PORT, VM4, Bench
from test_datapath_window_twin import make_strict

from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import Role

#: Initial sequence numbers: the VM's shortly before the wrap.
OURS, THEIRS = (1 << 32) - 100, 5_000_000
WINDOW = 1000


class Talk:
    """An established connection that the VM began; numbers count from the first octet."""

    def __init__(self, *, strict: bool = False, scale: int | None = 4) -> None:
        self.bench = Bench(ALLOW_ALL)
        if strict:
            make_strict(self.bench)
        options = b"" if scale is None else f.window_scale(scale)
        assert self.out(-1, 0, flags=f.SYN, options=options) == ""
        assert self.into(-1, 0, flags=f.SYN | f.ACK, options=options) == ""
        assert self.out(0, 0) == ""
        assert self.into(0, 0) == ""

    def out(self, seq, ack, size=0, *, flags=f.ACK, window=WINDOW, options=b"", bench=None) -> str:
        segment = f.tcp(
            5000, 80, flags, bytes(size), seq=OURS + seq, ack=THEIRS + ack, window=window,
            options=options,
        )  # fmt: skip
        return (bench or self.bench).out(f.ipv4(VM4, PEER4, f.TCP, segment))

    def into(
        self, seq, ack, size=0, *, flags=f.ACK, window=WINDOW, options=b"", bench=None
    ) -> str:
        segment = f.tcp(
            80, 5000, flags, bytes(size), seq=THEIRS + seq, ack=OURS + ack, window=window,
            options=options,
        )  # fmt: skip
        return (bench or self.bench).into(f.ipv4(PEER4, VM4, f.TCP, segment))

    def state(self) -> str:
        (only,) = self.bench.states()
        return only


def test_a_blind_reset_kills_nothing() -> None:
    talk = Talk()
    for seq in (1, -1, WINDOW, 16 * WINDOW, 16 * WINDOW + 1, 1 << 31, -(1 << 30)):
        for flags in (f.RST, f.RST | f.ACK):
            assert talk.into(seq, 0, flags=flags) == ""
            assert talk.out(seq, 0, flags=flags) == ""
            assert talk.state() == "established"
    assert talk.into(0, 0, flags=f.RST) == ""
    assert talk.state() == "close"


def test_the_reset_that_answers_a_challenge_is_believed() -> None:
    talk = Talk()
    assert talk.out(0, 0, 500) == ""
    assert talk.into(0, 100) == ""
    assert talk.out(300, 0, flags=f.RST) == ""  # in between: its receiver challenges it
    assert talk.state() == "established"
    assert talk.out(100, 0, flags=f.RST) == ""
    assert talk.state() == "close"
    # The other right one: the end of what was sent.
    talk = Talk()
    assert talk.out(0, 0, 500) == ""
    assert talk.out(500, 0, flags=f.RST | f.ACK) == ""
    assert talk.state() == "close"


def test_a_refusal_of_a_syn_names_the_syn() -> None:
    for ack, state in ((0, "close"), (5, "syn-sent"), (-200_000, "syn-sent")):
        talk = Talk.__new__(Talk)
        talk.bench = Bench(ALLOW_ALL)
        talk.out(-1, 0, flags=f.SYN)
        assert talk.into(-THEIRS, ack, flags=f.RST | f.ACK) == ""
        assert talk.state() == state


def test_a_syn_leaves_an_established_connection_alone() -> None:
    talk = Talk(strict=True)
    talk.bench.sleep(100)
    before = talk.bench.driver.connections(PORT)[0]
    for seq in (-1, 0, 77_777_777):
        assert talk.into(seq, 0, flags=f.SYN) == ""
        assert talk.into(seq, 0, flags=f.SYN | f.ACK) == ""
    after = talk.bench.driver.connections(PORT)[0]
    assert (after.state, after.remaining_ms) == ("established", before.remaining_ms)
    assert talk.into(0, 0, 10) == ""


@pytest.mark.parametrize(
    ("seq", "ack", "size", "fits"),
    [
        (0, 0, 1448, True),
        (16 * WINDOW, 0, 1, True),  # where the VM's window ends
        (16 * WINDOW + 1, 0, 1, False),
        (-16 * WINDOW - 1, 0, 0, True),  # sent long ago
        (-16 * WINDOW - 3, 0, 0, False),
        (-1, 0, 0, True),  # keep-alive
        (-1, 0, 1, True),
        (0, 1, 0, False),  # of what was never sent
        (0, -66_000, 0, True),
        (0, -66_001, 0, False),
        (1 << 31, 0, 10, False),
    ],
)
def test_segments_outside_of_the_window(seq: int, ack: int, size: int, fits: bool) -> None:
    talk = Talk()
    talk.bench.sleep(10)
    assert talk.into(seq, ack, size, flags=f.FIN | f.ACK) == ""
    (found,) = talk.bench.driver.connections(PORT)
    # They pass; a foreign one changes neither state nor life.
    assert found.state == ("fin-wait" if fits else "established")
    assert found.remaining_ms == (120_000 if fits else 431_990_000)
    assert found.ingress_packets == 3
    strict = Talk(strict=True)
    assert strict.into(seq, ack, size) == ("" if fits else "tcp-window")
    drops = strict.bench.driver.counters(PORT).drops
    assert drops == ({} if fits else {"tcp-window": 1})


def test_the_oldest_that_may_come_again() -> None:
    """What the VM's window held before what it has now, and one octet."""
    talk = Talk(strict=True)
    assert talk.into(-16 * WINDOW - 1, 0) == ""
    assert talk.into(-16 * WINDOW - 2, 0) == "tcp-window"


def test_windows_are_scaled_only_when_both_offer_it() -> None:
    talk = Talk(strict=True, scale=None)
    assert talk.into(WINDOW, 0, 1) == ""
    assert talk.into(WINDOW + 1, 0, 1) == "tcp-window"
    talk = Talk.__new__(Talk)
    talk.bench = Bench(ALLOW_ALL)
    make_strict(talk.bench)
    talk.out(-1, 0, flags=f.SYN, options=f.window_scale(9))
    talk.into(-1, 0, flags=f.SYN | f.ACK)
    talk.out(0, 0)
    assert talk.into(WINDOW + 1, 0, 1) == "tcp-window"


def test_gso_frames_and_a_full_window_pass() -> None:
    """Over the wrap, in super-frames, up to the last octet that the peer allows."""
    talk = Talk(strict=True, scale=8)
    at = 0
    for _ in range(40):
        assert talk.out(at, 0, 60_000, window=65535) == ""
        at += 60_000
        assert talk.into(0, at, window=65535) == ""
    limit = at + (65535 << 8)
    assert talk.out(limit, 0, 1) == ""
    assert talk.out(limit + 1, 0, 1) == "tcp-window"


def test_a_closed_window_takes_probes() -> None:
    talk = Talk(strict=True)
    assert talk.into(0, 0, window=0) == ""
    assert talk.out(0, 0, 1) == ""
    assert talk.into(0, 0, window=0) == ""
    assert talk.into(0, 1, window=WINDOW) == ""
    assert talk.out(1, 0, 500) == ""


def test_mid_stream_begins_liberal_and_learns_from_the_vm() -> None:
    bench = Bench(ALLOW_ALL)
    make_strict(bench)
    talk = Talk.__new__(Talk)
    talk.bench = bench
    assert talk.into(777_777, 123, 10) == ""  # who knows
    assert talk.out(0, 0, 10) == ""
    assert talk.into(-(1 << 31), 0, 10) == "tcp-window"
    assert talk.into(0, 11, 10) == "tcp-window"
    assert talk.into(0, 10, 10) == ""
    assert talk.out(10, 10, 10, window=65535) == ""
    assert talk.into(5, 20, flags=f.RST) == ""
    assert talk.state() == "established"


def test_a_fragmented_segment_stalls_nothing() -> None:
    talk = Talk(strict=True)
    head = f.tcp(80, 5000, f.ACK, bytes(100), seq=THEIRS, ack=OURS, window=WINDOW)
    first = f.ipv4(PEER4, VM4, f.TCP, head, more=True, ident=3)
    later = f.ipv4(PEER4, VM4, f.TCP, bytes(800), fragment=15, ident=3)
    assert talk.bench.into(first) == ""
    assert talk.bench.into(later) == ""
    assert talk.into(50, 0, flags=f.RST) == ""  # resets are not forgotten meanwhile
    assert talk.state() == "established"
    assert talk.out(0, 900, 10) == ""
    assert talk.into(900, 10, 10) == ""
    assert talk.into(900 + 16 * WINDOW + 1, 10, 10) == "tcp-window"


def moved(talk: Talk, *, windows: bool = True) -> Bench:
    records = talk.bench.records()
    if not windows:
        records = records[:-32] + bytes(32)
    there = Bench(ALLOW_ALL, role=Role.STANDBY)
    make_strict(there)
    there.sleep(50_000)
    assert there.driver.import_records(PORT, records).moved == 1
    there.set_port(role=Role.ACTIVE)
    return there


@pytest.mark.parametrize("behind", [0, 3_000_000, 1 << 31])
def test_migration_continues_however_old_the_record_is(behind: int) -> None:
    """Packets alone renew no record: gigabytes may have passed since it was made."""
    talk = Talk()
    there = moved(talk)
    for seq in (1, behind + 1, 1 << 30):
        assert talk.into(seq, 0, flags=f.RST, bench=there) == ""
        assert there.states() == ["established"]
    assert talk.into(behind, 0, 1000, bench=there) == ""
    assert talk.out(behind, behind + 1000, 1000, bench=there) == ""
    assert talk.into(behind + 1000, behind + 1000, 1000, bench=there) == ""
    assert talk.out(behind + 1000, behind + 2000, 1000, bench=there) == ""
    # From here on the windows hold, with the scale that the handshake agreed on.
    assert talk.into(behind + 2000 + 16 * WINDOW, behind, 1, bench=there) == ""
    assert talk.into(behind + 2001 + 16 * WINDOW, behind, 1, bench=there) == "tcp-window"
    assert talk.into(behind + 1999 + 16 * WINDOW, behind, flags=f.RST, bench=there) == ""
    assert there.states() == ["established"]


def test_an_idle_connection_that_moved_still_ends_by_its_reset() -> None:
    talk = Talk()
    there = moved(talk)
    assert talk.into(0, 0, flags=f.RST, bench=there) == ""
    assert there.states() == ["close"]


def test_a_record_without_windows_begins_liberal() -> None:
    talk = Talk()
    there = moved(talk, windows=False)
    assert talk.into(123_456_789, 5, 10, bench=there) == ""
    assert talk.out(0, 0, 10, bench=there) == ""
    assert talk.into(0, 10, 10, bench=there) == ""
    assert talk.into(-(1 << 31), 10, 10, bench=there) == "tcp-window"


def test_late_records_leave_what_was_learnt() -> None:
    talk = Talk()
    early = talk.bench.records()
    there = moved(talk)
    assert talk.out(0, 0, 10, bench=there) == ""
    assert talk.into(0, 10, 10, bench=there) == ""
    assert there.driver.import_records(PORT, early).moved == 1
    assert talk.into(-(1 << 31), 10, 10, bench=there) == "tcp-window"
    assert talk.into(10, 10, 10, bench=there) == ""


def test_an_entry_that_expired_begins_again_with_windows_of_its_own() -> None:
    bench = Bench(ALLOW_ALL)
    make_strict(bench)

    def out(seq: int, ack: int, port: int, flags: int = f.ACK) -> str:
        segment = f.tcp(port, 80, flags, seq=seq, ack=ack, window=WINDOW)
        return bench.out(f.ipv4(VM4, PEER4, f.TCP, segment))

    def into() -> str:
        segment = f.tcp(80, 5000, f.ACK, seq=THEIRS, ack=OURS, window=WINDOW)
        return bench.into(f.ipv4(PEER4, VM4, f.TCP, segment))

    assert into() == ""
    bench.sleep(6 * 24 * 3600)
    # Another one leaves its windows where new ones are made.
    assert out(OURS + (1 << 30), 0, 5001, f.SYN) == ""
    assert into() == ""
    assert out(OURS, THEIRS, 5000) == ""
    assert into() == ""
