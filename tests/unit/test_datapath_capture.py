"""Captures of the datapath: which frames come, what is lost, and what one leaves behind."""

import select
import time

import datapath_bench as b
import frames as f
import pytest
import twin as t
from frame_strategies import packets
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_capture import TwinCapture

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.captured import CaptureCounts, CaptureRequest
from vnet_agent.exceptions import CaptureBusy, DatapathError, FilterError, UnknownPort

ANY = CaptureRequest()
RING = 1 << 18


def capture(bench, request=ANY, *, ports=(b.PORT,), size=RING):
    return bench.driver.capture(ports, request, size=size)


def is_flagged(bench, local_id=1):
    return bool(layout.number("port", "flags", bench.native.port_get(local_id)) & c.PORT_CAPTURED)


def is_readable(running):
    return bool(select.select([running], [], [], 0)[0])


requests = st.builds(
    CaptureRequest,
    direction=st.sampled_from([None, None, "ingress", "egress"]),
    drops_only=st.booleans(),
    protocol=st.sampled_from([None, None, "tcp", "udp", "icmp", "icmpv6", "sctp"]),
    remote=st.sampled_from(
        [
            *(None, None, None, "10.0.0.2", "10.0.0.0/30", "0.0.0.0/0", "192.0.2.0/25"),
            *("2001:db8::2", "2001:db8::/33", "::/0", "fe80::/10", "2001:db8:1::/90"),
        ]
    ),
    snap=st.sampled_from([1, 13, 34, 60, 256, 65535]),
    rate=st.sampled_from([1, 3, 20, 5000]),
)
steps = st.one_of(
    *[packets] * 6,
    st.builds(lambda packet, cut: (packet[0], packet[1][:cut]), packets, st.integers(1, 80)),
    st.tuples(st.just("sleep"), st.sampled_from([0.01, 0.2, 0.3, 1, 2])),
    st.just(("read", None)),
)


@settings(deadline=None)
@given(
    wanted=requests,
    size=st.sampled_from([4096, RING]),
    sequence=st.lists(steps, min_size=5, max_size=60),
    times=st.sampled_from([1, 1, 20]),
)
def test_core_and_twin_agree(wanted, size, sequence, times):
    bench = b.Bench(quota=1000)
    twin = TwinCapture(wanted, size)
    running = capture(bench, wanted, size=size)

    def compare():
        assert is_readable(running) == bool(twin.frames)
        got = []
        while batch := running.read():
            got += batch
        assert [(x.egress, x.reason, x.length, x.data) for x in got] == twin.take()
        assert all((x.verdict == "drop") == (x.reason is not None) for x in got)
        assert {x.port for x in got} <= {b.PORT}

    for step in sequence * times:
        match step:
            case ("sleep", seconds):
                bench.sleep(seconds)
            case ("read", None):
                compare()
            case (direction, frame):
                egress = direction is t.EGRESS
                _, reason, _ = bench.process(c.FROM_PORT if egress else c.TO_PORT, b.TAP, frame)
                twin.process(egress, frame, reason, bench.now)
    compare()
    counts = CaptureCounts(matched=twin.matched, over=twin.over, full=twin.full)
    assert running.counts() == {b.PORT: counts}
    running.close()


def test_a_second_has_as_many_frames_as_the_rate():
    bench = b.Bench()
    running = capture(bench, CaptureRequest(rate=20))
    for _ in range(10):
        bench.tcp_in(1, 80, f.SYN)
    assert len(running.read()) == 6  # a quarter of a second's, and one
    seen = 0
    for _ in range(1000):
        bench.sleep(0.01)
        bench.tcp_in(1, 80, f.SYN)
        seen += len(running.read())
    assert 199 <= seen <= 201
    counts = running.counts()[b.PORT]
    assert (counts.matched, counts.over, counts.full) == (1010, 1004 - seen, 0)


UDP = f.udp(1, 53)


@pytest.mark.parametrize(
    "packet",
    [
        f.ipv6(b.PEER6, b.VM6, 17, UDP),
        f.ipv6(b.PEER6, b.VM6, 60, bytes([17, 1]) + bytes(14) + UDP),
        f.ipv6(b.PEER6, b.VM6, 51, bytes([60, 4]) + bytes(22) + bytes([17, 0]) + bytes(6) + UDP),
        f.ipv6(b.PEER6, b.VM6, 44, f.fragment6(17, 1, 0, True, UDP)),
        f.ipv6(b.PEER6, b.VM6, 44, f.fragment6(60, 1, 0, True, bytes([17, 0]) + bytes(6) + UDP)),
        f.ipv6(b.PEER6, b.VM6, 44, f.fragment6(17, 1, 9, False, b"\0" * 8)),
        f.ipv6(b.PEER6, b.VM6, 0, (bytes([0, 0]) + bytes(6)) * 5 + bytes([17, 0]) + bytes(6)),
    ],
    ids=["plain", "options", "authentication", "first", "first-options", "later", "six"],
)
def test_a_protocol_is_found_behind_extension_headers(packet):
    bench = b.Bench()
    running = capture(bench, CaptureRequest(protocol="udp", remote=b.PEER6))
    bench.into(packet)
    bench.into(packet[:54])
    assert [frame.data[14:] for frame in running.read()][:1] == [packet]
    running.close()
    running = capture(bench, CaptureRequest(protocol="tcp"))
    bench.into(packet)
    assert running.read() == []


def test_verdicts_are_those_of_a_trace():
    bench = b.Bench()
    bench.set_port(b.OTHER, mac=b.PEER)
    bench.driver.set_policy(b.OTHER, b.ALLOW_ALL)
    bench.driver.attach(b.OTHER, b.TAP2)
    running = capture(bench, ports=(b.PORT, b.OTHER))
    packet = f.ipv4(b.VM4, b.PEER4, f.UDP, f.udp(1, 2))
    bench.out(packet)
    bench.out(packet, target="ff:ff:ff:ff:ff:ff")
    bench.into(f.ipv4(b.PEER4, b.VM4, f.UDP, f.udp(2, 1)))
    bench.out(packet, source=b.PEER)
    bench.process(c.TO_PORT, b.TAP2, f.ether(b.VM, b.PEER, f.IPV4, packet))
    seen = [(x.port, x.egress, x.verdict, x.reason) for x in running.read()]
    assert seen == [
        (b.PORT, True, "forward", None),
        (b.PORT, True, "forward", None),
        (b.PORT, False, "deliver", None),
        (b.PORT, True, "drop", "mac-spoof"),
        (b.OTHER, False, "deliver", None),
    ]


def test_the_clock_is_the_walls():
    bench = b.Bench()
    bench.native.set_clock(0)
    running = capture(bench)
    before = time.time_ns()
    bench.tcp_in(1, 80, f.SYN)
    (frame,) = running.read()
    # The coarse clock may lag a tick behind.
    assert before - b.SECOND < frame.time_ns < time.time_ns() + b.SECOND


def test_one_capture_at_a_time():
    bench = b.Bench()
    running = capture(bench)
    with pytest.raises(CaptureBusy):
        capture(bench)
    bench.tcp_in(1, 80, f.SYN)
    assert len(running.read()) == 1  # the other one has not hurt it
    running.close()
    capture(bench).close()


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({"direction": "up"}, "'up' is no direction"),
        ({"protocol": "xyz"}, "'xyz' is no protocol"),
        ({"remote": "10.0.0.0/33"}, "no address or CIDR"),
        ({"snap": 0}, "0 bytes"),
        ({"snap": 65536}, "65536 bytes"),
        ({"rate": 0}, "0 is no rate"),
    ],
)
def test_a_wrong_request_leaves_nothing(wanted, what):
    bench = b.Bench()
    with pytest.raises(FilterError, match=what):
        capture(bench, CaptureRequest(**wanted))
    assert not is_flagged(bench)
    capture(bench).close()


def test_an_unknown_port_leaves_nothing():
    bench = b.Bench()
    with pytest.raises(UnknownPort):
        capture(bench, ports=(b.PORT, b.OTHER))
    with pytest.raises(DatapathError, match="a ring of 1 bytes"):
        capture(bench, size=1)
    assert not is_flagged(bench)
    assert bench.native.table_items(c.TABLE_CAPTURES) == []
    capture(bench).close()


def test_after_stop_what_was_captured_can_be_read():
    bench = b.Bench()
    running = capture(bench)
    bench.tcp_in(1, 80, f.SYN)
    running.stop()
    assert not is_flagged(bench)
    bench.tcp_in(2, 80, f.SYN)
    assert len(running.read()) == 1
    assert running.counts()[b.PORT].matched == 1
    running.close()
    assert bench.native.table_items(c.TABLE_CAPTURES) == []
    with pytest.raises(DatapathError, match="nothing is captured"):
        running.read()
    following = capture(bench)
    running.close()  # once more is no error, and ends nobody else's
    bench.tcp_in(3, 80, f.SYN)
    assert len(following.read()) == 1


def test_nothing_is_captured_when_nobody_asks():
    bench = b.Bench()
    bench.set_port(b.OTHER, mac=b.PEER)
    bench.driver.attach(b.OTHER, b.TAP2)
    running = capture(bench, ports=(b.OTHER,))
    bench.tcp_in(1, 80, f.SYN)
    frame = f.ether(b.VM, b.PEER, f.IPV4, f.ipv4(b.VM4, b.PEER4, f.UDP, f.udp(1, 2)))
    bench.driver.trace(b.OTHER, frame, egress=False)  # nobody's frame
    assert running.read() == []
    assert not is_readable(running)


def test_what_a_dead_agent_captured_ends_with_the_next_start():
    bench = b.Bench()
    capture(bench)
    bench.tcp_in(1, 80, f.SYN)
    bench.driver.close()
    bench.driver.open()
    assert not is_flagged(bench)
    assert bench.native.table_items(c.TABLE_CAPTURES) == []
    running = capture(bench)
    assert running.read() == []


def test_a_change_of_the_port_does_not_end_its_capture():
    bench = b.Bench()
    running = capture(bench)
    generation = bench.native.port_get(1)
    bench.set_port()
    assert bench.native.port_get(1) == generation  # nothing changed, so no verdict is stale
    bench.set_port(generation=2, network=5)
    bench.tcp_in(1, 80, f.SYN)
    assert len(running.read()) == 1
    running.close()
    assert not is_flagged(bench)


def test_a_port_that_goes_meanwhile_is_no_error():
    bench = b.Bench()
    running = capture(bench)
    bench.tcp_in(1, 80, f.SYN)
    bench.driver.remove_port(b.PORT, generation=1)
    # Its id goes round to another port, which nobody looks at.
    for number in range(8):
        name = f"33333333-0000-4000-8000-00000000000{number}"
        bench.set_port(name, mac=f"52:54:00:00:01:0{number}")
    assert not is_flagged(bench)
    assert running.counts()[b.PORT].matched == 1
    assert [frame.port for frame in running.read()] == [b.PORT]
    running.close()


def test_closing_the_datapath_first_is_no_error():
    bench = b.Bench()
    running = capture(bench)
    bench.driver.destroy()
    running.close()
