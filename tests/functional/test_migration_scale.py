"""Many connections move: each field as it was, and a thousand live ones."""

import ipaddress
import pathlib
import random
import struct
from collections.abc import Iterator

import pytest

from devstack.cloud import Cloud
from devstack.demo.traffic import Traffic
from devstack.lab import Guest, Lab
from devstack.lab.cache import LOGS
from vnet_agent.datapath import _flowcache as c
from vnet_agent.migration import wire

CONNECTIONS = 100_000
LIVE = 1000
COMPLETED = "vnet.instance.migration.completed"
#: csrc/core/record.h; behind the counts each end's window: end, max_end, max_ack, scale, flags,
#: max_window.
RECORD = struct.Struct("<HBBHH16s16sBBBxIQQ2Q2Q" + "IIIBBH" * 2)
REMAINING = 11
VM4, VM6 = "10.0.0.5", "fd00::5"
#: protocol, family, port (0: it has none), states
KINDS = (
    (6, 4, 80, ("established", "fin-wait", "close-wait")),
    (6, 6, 443, ("established", "last-ack")),
    (17, 4, 53, ("replied",)),
    (17, 6, 53, ("replied",)),
    (1, 4, 0, ("replied",)),
    (58, 6, 0, ("replied",)),
    (132, 4, 5000, ("replied",)),
    (132, 6, 5000, ("replied",)),
)


def make_records(count: int) -> bytes:
    """Of all protocols and both families; with TCP's windows."""
    dice = random.Random(7)
    records = []
    for index in range(count):
        proto, family, port, states = KINDS[index % len(KINDS)]
        state = c.STATES.index(dice.choice(states))
        far = (0x0A400000 if family == 4 else 0xFD01 << 112) + index
        peer = str(ipaddress.IPv4Address(far) if family == 4 else ipaddress.IPv6Address(far))
        windows = [0] * 12
        if proto == 6:
            end = [dice.randrange(1 << 32) for _ in range(6)]
            windows = [*end[:3], 7, 7, 500, *end[3:], 6, 7, 600]
        records.append(
            RECORD.pack(
                *(c.RECORD_VERSION, proto, family, port or index & 0xFFFF),
                0 if not port else 1024 + index % 60000,
                *(packed(VM4 if family == 4 else VM6), packed(peer)),
                *(state, c.CONN_ASSURED | dice.choice((0, c.CONN_EGRESS)) | 2, 0, index),
                *(dice.randrange(20_000, 100_000), 1000 * dice.randrange(5000)),
                *(dice.randrange(1 << 40) for _ in range(4)),
                *windows,
            )
        )
    return b"".join(records)


def packed(address: str) -> bytes:
    ip = ipaddress.ip_address(address)
    return (b"\0" * 10 + b"\xff\xff") * (ip.version == 4) + ip.packed


def exported(cloud: Cloud, guest: Guest, path: pathlib.Path) -> dict[bytes, tuple[int, ...]]:
    """The port's connections: their fields by who they are of."""
    cloud.vnetctl(guest.host, "conn", "export", guest.spec.nics[0].uuid, str(path))
    _, chunks = wire.decode_stream(path.read_bytes())
    data = b"".join(chunk.data for chunk in chunks)
    return {
        data[at : at + 40]: RECORD.unpack_from(data, at)
        for at in range(0, len(data), c.RECORD_SIZE)
    }


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Lab(wait=60, logs=LOGS) as lab:
        cloud = Cloud(lab, {"datapath": {"connection_quota": 2 * CONNECTIONS}})
        cloud.start()
        yield cloud


@pytest.fixture(scope="module")
def guest(cloud: Cloud) -> Guest:
    guest = cloud.lab.guest("many", cloud.lab.hosts[0], (f"{VM4}/24", f"{VM6}/64"))
    cloud.boot(guest)
    return guest


def test_live_connections(cloud: Cloud, guest: Guest) -> None:
    """Half of them are let in only because they are known."""
    peer = cloud.lab.peer("peer", ("10.0.0.100/24", "fd00::100/64"))
    traffic = Traffic(cloud, guest, peer, count=LIVE)
    traffic.open()
    traffic.close_door()
    guest.migrate(cloud.lab.hosts[1])
    report = cloud.wait_event(COMPLETED, guest.uuid)["data"]
    traffic.wait_progress(traffic.bundles)
    assert traffic.broken() == {}
    assert report["connections_moved"] >= LIVE
    assert report["connections_refused"] == {}
    assert (report["frames_lost"], report["frames_duplicated"]) == (0, 0)
    peer.stop()


def test_every_field(cloud: Cloud, guest: Guest, tmp_path: pathlib.Path) -> None:
    cloud.put_group("all", [{"direction": "ingress"}, {"direction": "egress"}])
    sent = tmp_path / "sent"
    hello = wire.Hello(session="", instance="", host="", ports=(
        wire.StreamPort(uuid=guest.spec.nics[0].uuid, mac=guest.spec.nics[0].mac, generation=1),
    ))  # fmt: skip
    records = make_records(CONNECTIONS)
    size = c.RECORD_SIZE * 4000
    chunks = (records[at : at + size] for at in range(0, len(records), size))
    sent.write_bytes(b"".join(wire.encode_stream(chunks, hello)))
    cloud.vnetctl(guest.host, "conn", "import", guest.spec.nics[0].uuid, str(sent))
    before = exported(cloud, guest, tmp_path / "before")
    made = {records[at : at + 40] for at in range(0, len(records), c.RECORD_SIZE)}
    assert made <= before.keys()

    destination = next(host for host in cloud.lab.hosts if host is not guest.host)
    moves = sum(event["type"] == COMPLETED for event in cloud.api.events(guest.uuid))
    guest.migrate(destination)
    report = cloud.wait_event(COMPLETED, guest.uuid, after=moves)["data"]
    after = exported(cloud, guest, tmp_path / "after")
    assert report["connections_refused"] == {}
    for name in made:
        was, now = list(before[name]), list(after[name])
        # Both are rounded, and time has passed; nothing has come for it meanwhile.
        assert 0 <= was.pop(REMAINING) - now.pop(REMAINING) < 60_000
        assert -2000 < now.pop(REMAINING) - was.pop(REMAINING) < 60_000  # the age
        assert now == was
