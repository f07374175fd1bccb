"""Hypothesis strategies: tables of rules that frames of frame_strategies meet."""

import struct

import frame_strategies as fs
import frames as f
from hypothesis import strategies as st
from twin_classifier import Rule
from twin_sums import seal
from twin_tables import TwinRule, TwinTable

from vnet_agent.datapath import layout

FULL = (1 << 128) - 1


def _address(text: str) -> int:
    return int.from_bytes(layout.pack_address(text), "big")


def _mac(text: str) -> int:
    return int.from_bytes(f.mac(text), "big")


#: (values, mask) of single fields.
conditions = {
    "kind": ([0, 0x10, 1, 2, 0x11], 0x10),
    "family": ([4, 6, 0], 0xFF),
    "proto": ([6, 17, 1, 58], 0xFF),
    "ethertype": ([0x0806, 0x0800, 0x86DD, 0x88CC], 0xFFFF),
    "type": ([1, 8, 0, 128, 135], 0xFF),
    "code": ([0, 4], 0xFF),
    "source_port": ([80, 4000], 0xFFFF),
    "destination_port": ([80, 53, 67], 0xFFFF),
    "tcp_flags": ([f.SYN, f.ACK, f.FIN | f.ACK], 0x12),
    "dscp": ([0, 10, 63], 0x3F),
    "state": (list(range(64)), 0x3F),
    "source_mac": ([_mac(fs.VM), _mac(fs.PEER)], (1 << 48) - 1),
    "target_mac": ([1 << 40, 0], 1 << 40),
    "vlan": ([0, 0x1000, 0x1064], 0x1000),
    "network": ([0, 1], 0xFFFFFFFF),
    "in_port": ([1, 2], 0xFFFFFFFF),
    "metadata": ([0, 5], 0xFF),
    "source": ([_address("10.0.0.1"), _address("2001:db8::2")], FULL),
    "destination": ([_address("10.0.0.2"), _address("10.0.0.1"), _address("2001:db8::2")], FULL),
}
ADDRESSES = ("source", "destination")
PORT_FIELDS = ("source_port", "destination_port")

sets = st.one_of(
    st.tuples(st.just("metadata"), st.sampled_from([5, 1 << 63])),
    st.tuples(st.sampled_from(["source_mac", "target_mac"]), st.sampled_from([_mac(fs.PEER), 2])),
    st.tuples(
        st.sampled_from(ADDRESSES),
        st.sampled_from(["10.0.0.1", "10.0.0.3", "192.0.2.9", "2001:db8::1", "2001:db8:1::3"]),
    ),
    st.tuples(st.sampled_from(PORT_FIELDS), st.sampled_from([0, 53, 80, 65535])),
    st.tuples(st.just("dscp"), st.sampled_from([0, 10, 46, 63])),
    st.tuples(st.just("hops"), st.sampled_from([0, 1, 64, 255])),
)
others = st.one_of(
    st.tuples(st.sampled_from(["mirror", "copy"]), st.sampled_from([1, 2, 7])),
    st.tuples(st.just("push_vlan"), st.sampled_from([100, 0xF123])),
    st.tuples(st.just("pop_vlan"), st.none()),
)


@st.composite
def rules(draw, table: int) -> TwinRule:
    ops = draw(st.lists(st.one_of(sets, sets, others), max_size=3))
    names = draw(st.sets(st.sampled_from(sorted(conditions)), max_size=2))
    value = {name: draw(st.sampled_from(conditions[name][0])) for name in names}
    # As a document must: a rule that sets an address says which IP it is about.
    families = [6 if ":" in item[1] else 4 for item in ops if item[0] in ADDRESSES]
    if families:
        value["family"] = families[0]
        kept = iter(families)
        ops = [item for item in ops if item[0] not in ADDRESSES or next(kept) == value["family"]]
    ranges = {}
    for name in PORT_FIELDS:
        if name in names:
            low = value.pop(name)
            ranges[f"{name}s"] = (low, draw(st.sampled_from([low, 65535])))
    rule = Rule(
        value,
        {name: conditions[name][1] for name in value},
        ranges.get("source_ports", (0, 65535)),
        ranges.get("destination_ports", (0, 65535)),
        draw(st.integers(0, 3)),
    )
    ends = [("normal", None)] * 3 + [("drop", None), ("controller", None)]
    ends += [("output", target) for target in (0, 1, 2, 7)]
    ends += [("goto", number) for number in range(table + 1, min(table + 3, 16))]
    return TwinRule(rule, (*ops, draw(st.sampled_from(ends))), draw(st.integers(0, 3)))


@st.composite
def tables(draw) -> tuple[int, TwinTable]:
    number = draw(st.sampled_from([0, 0, 1, 2, 15]))
    miss = draw(st.sampled_from(["continue", "continue", "continue", "drop", "controller"]))
    return number, TwinTable(miss, draw(st.lists(rules(number), max_size=5)))


@st.composite
def tagged_frames(draw) -> tuple:
    direction, frame = draw(fs.packets)
    frame = seal(frame)
    if draw(st.sampled_from([False, False, False, True])):
        tag = struct.pack(">HH", 0x8100, draw(st.sampled_from([100, 0x7064, 0])))
        frame = frame[:12] + tag + frame[12:]
    return direction, frame


steps = st.one_of(
    *[tagged_frames()] * 6,
    st.tuples(st.just("sleep"), st.sampled_from([1, 31, 61])),
    st.tuples(st.just("table"), tables()),
    st.tuples(st.just("table"), tables()),
)
