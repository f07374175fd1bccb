"""What a capture writes: pcapng, whole blocks of it, and unfinished checksums told apart."""

import struct

import frames as f
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet_agent.capture.blocks import BlockReader, NoBlocks
from vnet_agent.capture.offload import is_checksum_unfinished
from vnet_agent.capture.pcapng import TaggedPort, Writer
from vnet_agent.cli import pcap
from vnet_agent.datapath.captured import CaptureCounts, CapturedFrame

PORTS = [
    TaggedPort(uuid=f"port-{n}", instance=f"vm-{n}", tap=f"tap{n}", mac=f"52:54:00:00:00:0{n}")
    for n in range(2)
]
NOW = 1_790_000_000_123_456_789


def frame(port="port-1", **fields):
    values = {
        "time_ns": NOW,
        "egress": True,
        "verdict": "forward",
        "reason": None,
        "length": 5,
        "gso_size": 0,
        "data": b"abcde",
    }
    return CapturedFrame(port=port, **(values | fields))


def writer():
    return Writer(PORTS, host="h1", snap=100)


def read_blocks(data):
    """Kind and body of each; both lengths of each agree."""
    blocks = []
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, size - 4) == (size,)
        blocks.append((kind, data[8 : size - 4]))
        data = data[size:]
    return blocks


def read_options(data):
    found = []
    while True:
        code, size = struct.unpack_from("<HH", data)
        if code == 0:
            assert (size, data[4:]) == (0, b"")
            return found
        found.append((code, data[4 : 4 + size]))
        assert not any(data[4 + size : 4 + size + -size % 4])
        data = data[4 + size + -size % 4 :]


def test_an_interface_for_each_port():
    section, *interfaces = read_blocks(writer().header())
    assert section[0] == 0x0A0D0D0A
    assert struct.unpack_from("<IHHq", section[1]) == (0x1A2B3C4D, 1, 0, -1)
    options = dict(read_options(section[1][16:]))
    assert options[1] == b"host=h1"
    assert options[4].startswith(b"vnet-agent ")
    assert [kind for kind, _ in interfaces] == [1, 1]
    for number, (_, body) in enumerate(interfaces):
        assert struct.unpack_from("<HHI", body) == (1, 0, 100)
        description = f"vnet instance=vm-{number} port=port-{number} mac=52:54:00:00:00:0{number}"
        assert read_options(body[8:]) == [
            (2, f"tap{number}".encode()),
            (3, description.encode()),
            (9, b"\x09"),
        ]


@pytest.mark.parametrize(
    ("fields", "said", "flags", "act"),
    [
        ({}, "direction=egress verdict=pass action=forward", 1, 7),
        (
            {"egress": False, "verdict": "deliver"},
            "direction=ingress verdict=pass action=deliver",
            2,
            -1,
        ),
        (
            {"verdict": "drop", "reason": "ip-spoof"},
            "direction=egress verdict=drop action=drop reason=ip-spoof",
            1,
            2,
        ),
        ({"verdict": "answer"}, "direction=egress verdict=pass action=answer", 1, 7),
        ({"gso_size": 1448}, "direction=egress verdict=pass action=forward gso=1448", 1, 7),
    ],
)
def test_a_packet_says_whose_it_is(fields, said, flags, act):
    ((kind, body),) = read_blocks(writer().packet(frame(**fields)))
    assert kind == 6
    number, high, low, captured, length = struct.unpack_from("<IIIII", body)
    assert (number, high << 32 | low, captured, length) == (1, NOW, 5, 5)
    assert body[20:28] == b"abcde\0\0\0"
    assert read_options(body[28:]) == [
        (1, f"instance=vm-1 port=port-1 {said}".encode()),
        (2, struct.pack("<I", flags)),
        (7, struct.pack("<Bq", 1, act)),
    ]


def test_statistics_count_what_is_lost():
    counts = {"port-1": CaptureCounts(matched=10, over=3, full=2)}
    data = writer().statistics(counts, {"port-1": 5}, start_ns=NOW, end_ns=NOW + 1)
    first, second = read_blocks(data)
    assert first[0] == second[0] == 5
    assert struct.unpack_from("<I", second[1]) == (1,)
    options = dict(read_options(second[1][12:]))
    assert options[1] == b"lost over-rate=3 slow-reader=2"
    numbers = {code: int.from_bytes(options[code], "little") for code in (4, 5, 8)}
    assert numbers == {4: 10, 5: 5, 8: 5}
    assert int.from_bytes(dict(read_options(first[1][12:]))[5], "little") == 0
    reader = BlockReader()
    reader.feed(writer().header() + data)
    assert (reader.packets, reader.lost, reader.is_ended) == (0, 5, True)
    assert reader.reasons == {"over-rate": 3, "slow-reader": 2}


def test_vnetctl_trace_reads_it():
    made = writer()
    data = made.header() + made.packet(frame()) + made.packet(frame("port-0", data=b"xyz"))
    assert pcap.read_frame(data, 1, name="x") == b"abcde"
    assert pcap.read_frame(data, 2, name="x") == b"xyz\0\0"


@given(
    bodies=st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    sizes=st.lists(st.integers(1, 90), min_size=1),
)
def test_blocks_are_passed_on_whole(bodies, sizes):
    made = writer()
    blocks = [made.header(), *(made.packet(frame(data=body)) for body in bodies)]
    data = b"".join(blocks)
    reader, passed, at = BlockReader(), b"", 0
    for size in sizes * (len(data) // sum(sizes) + 1):
        piece = reader.feed(data[at : at + size])
        read_blocks(piece)
        passed += piece
        at += size
    assert passed == data
    assert reader.packets == len(bodies)
    assert not reader.is_ended


@given(data=st.binary(max_size=200), step=st.integers(1, 50))
def test_what_is_no_block_is_refused(data, step):
    outcomes = []
    for size in (step, len(data) or 1):
        reader, passed = BlockReader(), b""
        try:
            for at in range(0, len(data), size):
                passed += reader.feed(data[at : at + size])
            outcomes.append((passed, reader.packets, reader.lost))
        except NoBlocks:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


# -- checksums


def ones(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def make(family, proto, *, finished):
    """A frame with its checksum made, or only begun."""
    body = f.tcp(1000, 80, f.ACK, b"payload!") if proto == f.TCP else f.udp(1000, 80, b"payload!")
    if family == 4:
        packet = f.ipv4("10.1.2.3", "10.9.8.7", proto, body)
        addresses, at, kind = packet[12:20], 34, f.IPV4
    else:
        packet = f.ipv6("2001:db8::a", "fe80::b", proto, body)
        addresses, at, kind = packet[8:40], 54, f.IPV6
    pseudo = addresses + struct.pack("!HH", proto, len(body))
    value = 0xFFFF - ones(pseudo + body) if finished else ones(pseudo)
    at += 16 if proto == f.TCP else 6
    whole = f.ether("52:54:00:00:00:01", "52:54:00:00:00:02", kind, packet)
    return whole[:at] + struct.pack("!H", value) + whole[at + 2 :]


@pytest.mark.parametrize("proto", [f.TCP, f.UDP])
@pytest.mark.parametrize("family", [4, 6])
def test_an_unfinished_checksum_is_told(family, proto):
    begun = make(family, proto, finished=False)
    assert is_checksum_unfinished(begun)
    assert is_checksum_unfinished(begun[:12] + b"\x81\0\0\5" + begun[12:])
    assert not is_checksum_unfinished(make(family, proto, finished=True))
    last = (34 if family == 4 else 54) + (18 if proto == f.TCP else 8)
    assert is_checksum_unfinished(begun[:last])  # the payload is not needed
    assert not is_checksum_unfinished(begun[: last - 1])
    made = writer()
    assert b" checksum=unfinished" in made.packet(frame(data=begun, length=len(begun)))


@given(
    st.binary(max_size=120), st.sampled_from([b"\x08\0\x45", b"\x08\0", b"\x86\xdd", b"\x81\0"])
)
def test_any_bytes_will_do(data, kind):
    assert is_checksum_unfinished(data) in (True, False)
    assert is_checksum_unfinished(data[:12] + kind + data[12:]) in (True, False)
