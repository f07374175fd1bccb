"""Hypothesis strategies: segments of one TCP connection, most of them near its numbers."""

import frames as f
import twin as t
from frame_strategies import OWN4, OWN6, PEER, VM
from hypothesis import strategies as st

#: Where each end begins: at 0, before the wrap, at the half.
starts = st.sampled_from([0, (1 << 32) - 3, (1 << 31) - 2, 70_000])
#: Sums and differences of these lengths and windows meet on edges.
near = st.sampled_from(
    [
        *([0] * 8 + [10] * 4 + [20] * 3),
        *(1, 2, 9, 11, 19, -1, -10, -11, 30, 101),
        *(65_990, 66_010, 5_000, 1 << 30, 1 << 31),
    ]
)
windows = st.sampled_from([10, 10, 9, 20, 0, 1, 100, 65535])
options = st.sampled_from(
    [
        *(b"", b"", f.window_scale(0), f.window_scale(7), f.window_scale(200)),
        b"\2\4\5\xb4\4\2\1" + f.window_scale(2),
        b"\1" * 12 + f.window_scale(1),
        *(b"\3\3", b"\0\3\3\1", b"\3\4\1\1", b"\5\1\3\3\1", b"\1\1\1\3\2"),
    ]
)
flags = st.sampled_from(
    [f.SYN, f.SYN | f.ACK, *[f.ACK] * 14, f.FIN | f.ACK, f.FIN | f.ACK, f.RST, f.RST | f.ACK]
)


@st.composite
def segments(draw, family: int, begin: dict) -> tuple:
    direction = draw(st.sampled_from([t.EGRESS, t.INGRESS]))
    own, peer = (0, 1) if direction is t.EGRESS else (1, 0)
    ports = (5000, 80) if direction is t.EGRESS else (80, 5000)
    seen = draw(flags)
    segment = f.tcp(
        *ports,
        seen,
        bytes(draw(st.sampled_from([0, 0, 1, 10, 10, 20]))),
        seq=begin[own] + draw(near),
        ack=begin[peer] + draw(near),
        window=draw(windows),
        options=draw(options) if seen & f.SYN else b"",
    )
    fragment = draw(st.sampled_from([""] * 10 + ["first", "later"]))
    mine, its = (OWN4, "10.0.0.2") if family == 4 else (OWN6, "2001:db8::2")
    ends = (mine, its) if direction is t.EGRESS else (its, mine)
    macs = (VM, PEER) if direction is t.EGRESS else (PEER, VM)
    offset = 30 * (fragment == "later")
    if family == 4:
        packet = f.ipv4(*ends, f.TCP, segment, more=fragment == "first", fragment=offset, ident=1)
        return direction, f.ether(*macs, f.IPV4, packet)
    if fragment:
        segment = f.fragment6(f.TCP, 1, offset, fragment == "first", segment)
    packet = f.ipv6(*ends, 44 if fragment else f.TCP, segment)
    return direction, f.ether(*macs, f.IPV6, packet)


@st.composite
def handshakes(draw, family: int, begin: dict) -> list[tuple]:
    """Three segments that open the connection, from either end; or none."""
    if draw(st.integers(0, 4)) == 0:
        return []
    origin = draw(st.sampled_from([t.EGRESS, t.INGRESS]))
    steps = []
    for number, seen in enumerate((f.SYN, f.SYN | f.ACK, f.ACK)):
        direction = origin if number != 1 else t.other(origin)
        own, peer = (0, 1) if direction is t.EGRESS else (1, 0)
        ports = (5000, 80) if direction is t.EGRESS else (80, 5000)
        mine, its = (OWN4, "10.0.0.2") if family == 4 else (OWN6, "2001:db8::2")
        ends = (mine, its) if direction is t.EGRESS else (its, mine)
        macs = (VM, PEER) if direction is t.EGRESS else (PEER, VM)
        segment = f.tcp(
            *ports,
            seen,
            seq=begin[own] - (1 if seen & f.SYN else 0),
            ack=begin[peer],
            window=draw(windows),
            options=draw(options) if seen & f.SYN else b"",
        )
        make, kind = (f.ipv4, f.IPV4) if family == 4 else (f.ipv6, f.IPV6)
        steps.append((direction, f.ether(*macs, kind, make(*ends, f.TCP, segment))))
    return steps


@st.composite
def conversations(draw) -> list[tuple]:
    """Steps as in frame_strategies.steps: frames and pauses."""
    family = draw(st.sampled_from([4, 4, 6]))
    begin = {0: draw(starts), 1: draw(starts)}
    pause = st.tuples(st.just("sleep"), st.sampled_from([1, 9, 20, 61, 121]))
    step = st.one_of(*[segments(family, begin)] * 9, pause)
    return draw(handshakes(family, begin)) + draw(st.lists(step, min_size=4, max_size=30))
