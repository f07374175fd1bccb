"""Hypothesis strategies: rules and frames of few values, so that they meet."""

import ipaddress

from hypothesis import strategies as st
from twin_classifier import ANY_PORT, Fields, Rule

IPV4 = 0xFFFF << 32
PREFIX6 = int(ipaddress.IPv6Address("2001:db8::"))

addresses4 = st.builds(
    lambda net, host: IPV4 | 10 << 24 | net << 8 | host, st.integers(0, 2), st.integers(0, 3)
)
addresses6 = st.builds(
    lambda net, host: PREFIX6 | net << 64 | host, st.integers(0, 2), st.integers(0, 3)
)
ports = st.sampled_from([0, 1, 22, 79, 80, 81, 443, 1023, 1024, 65535])
RARE = {
    "type": (1, 0xFF),
    "code": (1, 0xFF),
    "in_port": (1, 0xFFFFFFFF),
    "tcp_flags": (3, 2),
    "dscp": (1, 0x3F),
    "state": (3, 1),
    "kind": (0x10, 0x10),
    "source_mac": (2, 0xFFFFFFFFFFFF),
    "ethertype": (1, 0xFFFF),
    "target_mac": (2, 0x010000000003),
    "vlan": (0x1001, 0x1FFF),
    "network": (1, 0xFFFFFFFF),
    "mark": (3, 1),
    "source_identity": (1, 0xFFFFFFFF),
    "destination_identity": (1, 0xFFFFFFFF),
    "metadata": (0x101, 0x101),
}
"""The greatest value that frames have, and a mask that a rule may have."""


@st.composite
def frames(draw: st.DrawFn) -> Fields:
    family = draw(st.sampled_from([4, 4, 6]))
    addresses = addresses4 if family == 4 else addresses6
    frame = {
        "family": family,
        "source": draw(addresses),
        "destination": draw(addresses),
        "proto": draw(st.sampled_from([1, 6, 17, 255])),
        "source_port": draw(ports),
        "destination_port": draw(ports),
    }
    for name in draw(st.sets(st.sampled_from(sorted(RARE)), max_size=3)):
        frame[name] = draw(st.sampled_from([0, RARE[name][0]]))
    return frame


@st.composite
def prefixes(draw: st.DrawFn, family: int) -> int:
    """A mask; of IPv4 at times only the lower half's, as rules that know the family have it."""
    length = draw(st.sampled_from([0, 33, 64, 96, 104, 112, 119, 120, 127, 128]))
    mask = (1 << 128) - (1 << (128 - length))
    if draw(st.integers(0, 9)) == 0:
        mask ^= 1 << draw(st.integers(0, 127))
    return mask & (1 << 64) - 1 if family == 4 and draw(st.booleans()) else mask


port_ranges = st.one_of(
    st.just(ANY_PORT),
    ports.map(lambda port: (port, port)),
    st.tuples(ports, ports).map(lambda pair: (min(pair), max(pair))),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    value = draw(frames())
    mask = {
        "source": draw(prefixes(value["family"])),
        "destination": draw(prefixes(value["family"])),
        "family": draw(st.sampled_from([0, 0xFF, 0xFF])),
        "proto": draw(st.sampled_from([0, 0xFF, 0xFF])),
    }
    rare = st.sampled_from(sorted(RARE))
    mask |= {name: RARE[name][1] for name in draw(st.sets(rare, max_size=2))}
    return Rule(
        value,
        mask,
        draw(port_ranges),
        draw(port_ranges),
        draw(st.integers(0, 7) | st.just(0xFFFFFFFF)),
        draw(st.integers(0, 0xFFFFFFFE)),
    )
