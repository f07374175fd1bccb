"""Connections that travel: export, import, and what is refused."""

import random

import frames as f
import msgspec
import pytest
from datapath_bench import (
    IN_TCP_80,
    OUT_ALL,
    PEER4,
    PEER6,
    PORT,
    VM4,
    VM6,
    Bench,
    policy,
)

from vnet_agent.datapath import _flowcache as c
from vnet_agent.exceptions import RecordError, UnknownPort
from vnet_agent.model.port import Role


def source() -> Bench:
    bench = Bench(policy(OUT_ALL, IN_TCP_80))
    bench.handshake_in()
    bench.handshake_out()
    bench.out(f.ipv4(VM4, PEER4, f.ICMP, f.icmp(8, ident=3)))
    bench.out(f.ipv6(VM6, PEER6, f.UDP, f.udp(1, 53)))
    bench.sleep(5)
    return bench


def destination(*rules, keep: bool = False, **options) -> Bench:
    bench = Bench(policy(*rules, keep=keep), role=Role.STANDBY, **options)
    bench.sleep(100_000)  # its clock is its own
    return bench


def test_what_is_exported_is_what_is_imported() -> None:
    here, there = source(), destination(OUT_ALL, IN_TCP_80)
    result = there.driver.import_records(PORT, here.records())
    assert (result.moved, result.refused) == (4, {})
    key = msgspec.json.encode
    assert sorted(there.driver.connections(PORT), key=key) == sorted(
        here.driver.connections(PORT), key=key
    )
    assert sorted_records(there.records()) == sorted_records(here.records())
    # Peers go on without a handshake, and the door is closed to new ones all the same.
    there.driver.set_policy(PORT, policy(OUT_ALL, keep=True))
    assert there.tcp_in(4000, 80, f.ACK) == ""
    assert there.tcp_in(4001, 80, f.SYN) == "policy"


def sorted_records(records: bytes) -> list[bytes]:
    size = c.RECORD_SIZE
    return sorted(records[start : start + size] for start in range(0, len(records), size))


def test_import_rechecks_against_the_policy_here() -> None:
    here = source()
    there = destination(OUT_ALL)
    result = there.driver.import_records(PORT, here.records())
    assert (result.moved, result.refused) == (3, {"policy": 1})
    assert there.tcp_in(4000, 80, f.ACK) == "no-connection"
    kept = destination(OUT_ALL, keep=True)
    assert kept.driver.import_records(PORT, here.records()).moved == 4
    assert kept.tcp_in(4000, 80, f.ACK) == ""


def test_an_opening_is_not_kept() -> None:
    here = Bench()
    assert here.tcp_in(4000, 80, f.SYN) == ""
    there = destination(OUT_ALL, keep=True)
    result = there.driver.import_records(PORT, here.records())
    assert (result.moved, result.refused) == (0, {"policy": 1})


def test_import_refuses_foreign_addresses_quota_and_expired() -> None:
    here = source()
    there = destination(OUT_ALL, IN_TCP_80)
    there.addresses = (VM4,)
    there.set_port(role=Role.STANDBY)
    assert there.driver.import_records(PORT, here.records()).refused == {"address": 1}
    small = destination(OUT_ALL, IN_TCP_80, quota=3)
    result = small.driver.import_records(PORT, here.records())
    assert (result.moved, result.refused) == (3, {"quota": 1})
    records = bytearray(here.records())
    offset, size = c.LAYOUT["conn_record"]["remaining_ms"]
    records[offset : offset + size] = bytes(size)
    result = destination(OUT_ALL, IN_TCP_80).driver.import_records(PORT, bytes(records))
    assert (result.moved, result.refused) == (3, {"expired": 1})


def test_first_frame_after_import_is_rechecked() -> None:
    here, there = source(), destination(OUT_ALL, IN_TCP_80)
    there.driver.import_records(PORT, here.records())
    there.driver.set_policy(PORT, policy(OUT_ALL))
    assert there.tcp_in(4000, 80, f.ACK) == "no-connection"
    assert there.tcp_in(443, 5000, f.ACK) == ""


def test_deltas_hold_creations_and_changes_only() -> None:
    bench = source()
    bench.sleep(1)
    cursor = bench.driver.cursor()

    def changed() -> list[str]:
        data = b"".join(bench.driver.export(PORT, since=cursor))
        other = destination(OUT_ALL, IN_TCP_80)
        other.driver.import_records(PORT, data)
        return sorted(item.state for item in other.driver.connections(PORT))

    bench.sleep(1)
    assert changed() == []
    bench.tcp_in(4000, 80, f.ACK)
    assert changed() == []
    bench.tcp_out(5009, 80, f.SYN)
    bench.tcp_in(443, 5000, f.FIN | f.ACK)
    assert changed() == ["fin-wait", "syn-sent"]


def test_late_records_do_not_undo_what_happened_here() -> None:
    here, there = source(), destination(OUT_ALL, IN_TCP_80)
    early = here.records()
    there.driver.import_records(PORT, early)
    there.set_port(role=Role.ACTIVE)
    # Further on here than on the source.
    assert there.tcp_in(443, 5000, f.FIN | f.ACK) == ""
    # Begun here anew, after it ended.
    there.tcp_in(4000, 80, f.RST)
    assert there.tcp_in(4000, 80, f.SYN) == ""
    assert there.driver.import_records(PORT, early).moved == 4
    states = [item.state for item in there.driver.connections(PORT) if item.protocol == "tcp"]
    assert sorted(states) == ["fin-wait", "syn-sent"]
    # Further on at the source than here.
    here.tcp_in(443, 5000, f.FIN | f.ACK)
    here.tcp_out(5000, 443, f.FIN | f.ACK)
    there.driver.import_records(PORT, here.records())
    states = [item.state for item in there.driver.connections(PORT) if item.protocol == "tcp"]
    assert sorted(states) == ["last-ack", "syn-sent"]


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("family", 5, "family"),
        ("state", 0, "state"),
        ("state", 200, "state"),
        ("state", 9, "state"),
        ("flags", 0x80, "flags"),
        ("local", 0xFF, "mapped"),
    ],
)
def test_hostile_records_are_refused_as_a_whole(field: str, value: int, what: str) -> None:
    bench = source()
    tcp = [item for item in sorted_records(bench.records()) if item[2] == f.TCP]
    offset, _ = c.LAYOUT["conn_record"][field]
    bad = bytearray(tcp[1])
    bad[offset] = value
    there = destination(OUT_ALL, IN_TCP_80)
    with pytest.raises(RecordError, match=f"record 1: .*{what}"):
        there.driver.import_records(PORT, tcp[0] + bytes(bad))
    assert there.states() == []
    with pytest.raises(RecordError, match="whole number"):
        there.driver.import_records(PORT, tcp[0][:-1])


def test_random_bytes_never_crash() -> None:
    there = destination(OUT_ALL, IN_TCP_80)
    generator = random.Random(4)
    base = sorted_records(source().records())
    for _ in range(2000):
        record = bytearray(generator.choice(base))
        for _ in range(generator.randrange(4)):
            record[generator.randrange(len(record))] = generator.randrange(256)
        try:
            there.driver.import_records(PORT, bytes(record))
        except RecordError:
            continue
    there.driver.connections(PORT)
    there.sleep(1)
    assert all(item.remaining_ms <= 432_000_000 for item in there.driver.connections(PORT))


def test_chunks_are_whole_records_of_bounded_size() -> None:
    bench = Bench(quota=5000)
    for port in range(3000):
        bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(port, 53)))
    chunks = list(bench.driver.export(PORT))
    assert all(len(chunk) % c.RECORD_SIZE == 0 for chunk in chunks)
    assert max(map(len, chunks)) <= 256 * 1024
    assert len(chunks) > 1
    assert len(bench.driver.connections(PORT, limit=7)) == 7
    with pytest.raises(UnknownPort):
        bench.driver.export("33333333-0000-4000-8000-000000000009")
