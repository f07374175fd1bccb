"""Connections that move with their VM: a million of one port, and 10,000 new ones a second.

The million: the VM runs on, in a pre-copy that waits for them. The time is the destination's, from
the stream's beginning to the end of its full copy: export, transfer and import overlap. The new
ones: a peer sends datagrams of which each begins one, from before the migration until after it.
"""

import pathlib
import struct
import sys
import time
from typing import Any

import newcomers
import psutil
import result
from migrations import SlowMigration
from records import make_records

from devstack.cloud import Cloud
from devstack.lab import Guest, Host, Lab, Peer
from devstack.lab.cache import LOGS
from vnet_agent.datapath._flowcache import RECORD_SIZE
from vnet_agent.migration import wire

COUNT = 100_000 if result.is_quick() else 1_000_000
ROUNDS = 2 if result.is_quick() else 6
ADDRESS = "10.0.0.5"
COMPLETED = "vnet.instance.migration.completed"
CHUNK = 4000 * RECORD_SIZE
#: New connections a second, and for how long: a migration takes two seconds.
RATE = 10_000
SECONDS = 6
#: Seconds between two looks: each is a program that starts, on one of two processors.
LOOK = 4.0


def fill(cloud: Cloud, guest: Guest, path: pathlib.Path) -> None:
    """Give the guest's port COUNT connections."""
    nic = guest.spec.nics[0]
    port = wire.StreamPort(uuid=nic.uuid, mac=nic.mac, generation=1)
    hello = wire.Hello(session="", instance="", host="", ports=(port,))
    records = make_records(COUNT, ADDRESS)
    chunks = (records[at : at + CHUNK] for at in range(0, len(records), CHUNK))
    path.write_bytes(b"".join(wire.encode_stream(chunks, hello)))
    cloud.vnetctl(guest.host, "conn", "import", nic.uuid, str(path))


def newest(cloud: Cloud, host: Host) -> dict[str, Any]:
    """The report of the newest migration on a host."""
    return dict(cloud.vnetctl(host, "migration", "show", listed(cloud, host)[-1]["id"]))


def listed(cloud: Cloud, host: Host) -> list[dict[str, Any]]:
    return list(cloud.vnetctl(host, "migration", "list"))


def copied_ms(report: dict[str, Any]) -> float:
    """0 while the full copy goes on."""
    times = [step["time_ns"] for step in report["steps"] if step["phase"] == "precopy"]
    ended = [s["time_ns"] for s in report["steps"] if s["detail"].startswith("full copy")]
    return float((ended[0] - times[0]) / 1e6) if ended else 0.0


class Peak:
    """The most that an agent has had resident since then."""

    def __init__(self, pid: int) -> None:
        self._directory = pathlib.Path(f"/proc/{pid}")
        (self._directory / "clear_refs").write_text("5")
        self._before = psutil.Process(pid).memory_info().rss

    def grown(self) -> float:
        """MiB."""
        lines = (self._directory / "status").read_text().splitlines()
        (high,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return (high * 1024 - self._before) / (1 << 20)


def measure(cloud: Cloud, guest: Guest, moves: int) -> tuple[float, list[float]]:
    """Milliseconds of the full copy, and what the agents have grown by meanwhile."""
    (there,) = (host for host in cloud.lab.hosts if host is not guest.host)
    peaks = [Peak(agent_pid(cloud, host)) for host in (guest.host, there)]
    migration = SlowMigration(guest, there)
    before = listed(cloud, there)
    migration.start()
    deadline = time.monotonic() + 60
    time.sleep(LOOK)
    while len(listed(cloud, there)) == len(before) or not copied_ms(newest(cloud, there)):
        if time.monotonic() > deadline:
            raise RuntimeError("the connections were not copied")
        time.sleep(LOOK)
    migration.speed_up()
    migration.join(60)
    if migration.error is not None:
        raise migration.error
    report = cloud.wait_event(COMPLETED, guest.uuid, after=moves)["data"]
    if report["connections_moved"] < COUNT or report["error"]:
        raise RuntimeError(f"not all have moved: {report}")
    return copied_ms(report), [peak.grown() for peak in peaks]


def measure_newcomers(cloud: Cloud, guest: Guest, peer: Peer, moves: int) -> tuple[float, int]:
    """Milliseconds of the final delta, and how many connections are not at the destination."""
    (there,) = (host for host in cloud.lab.hosts if host is not guest.host)
    script = pathlib.Path(__file__).with_name("newcomers.py")
    argv = [sys.executable, str(script), guest.address, str(RATE), str(SECONDS)]
    sender = peer.namespace.spawn(argv, name="newcomers")
    guest.migrate(there)
    report = cloud.wait_event(COMPLETED, guest.uuid, after=moves)["data"]
    if sender.wait(SECONDS + 10) != 0:
        raise RuntimeError(f"the peer cannot send: {sender.tail()}")
    sent = int(sender.log.read_text().split()[-1])
    path = cloud.lab.workdir / "newcomers"
    cloud.vnetctl(there, "conn", "export", guest.spec.nics[0].uuid, str(path))
    _, chunks = wire.decode_stream(path.read_bytes())
    found = sum(is_newcomer(data) for chunk in chunks for data in records_of(chunk.data))
    if found < sent // 2:
        raise RuntimeError(f"{found} of {sent} connections: the peer was not heard")
    return report["final_delta_ms"], sent - found


def records_of(data: bytes) -> list[bytes]:
    return [data[at : at + RECORD_SIZE] for at in range(0, len(data), RECORD_SIZE)]


def is_newcomer(record: bytes) -> bool:
    """By protocol and local port; see csrc/core/record.h."""
    protocol, port = struct.unpack_from("<2xBxH", record)
    return protocol == 17 and newcomers.FIRST <= port < newcomers.FIRST + 100


def agent_pid(cloud: Cloud, host: Host) -> int:
    return int(cloud.agents[host.name].pid)


def main() -> None:
    copies: list[float] = []
    grown: list[list[float]] = []
    options = {"datapath": {"connection_quota": COUNT + 1000}}
    with Lab(wait=60, logs=LOGS) as lab:
        cloud = Cloud(lab, options)
        cloud.start()
        guest = lab.guest("many", lab.hosts[0], (f"{ADDRESS}/24",))
        cloud.boot(guest)
        cloud.put_group("all", [{"direction": "ingress"}, {"direction": "egress"}])
        fill(cloud, guest, lab.workdir / "connections")
        for number in range(ROUNDS):
            milliseconds, more = measure(cloud, guest, number)
            copies.append(milliseconds)
            grown.append(more)
        guest.destroy()
        # Each of its own, whose table is empty.
        deltas, missing = [], []
        peer = lab.peer("peer", ("10.0.0.100/24",))
        for number in range(ROUNDS):
            young = lab.guest(f"young-{number}", lab.hosts[0], (f"10.0.0.{20 + number}/24",))
            cloud.boot(young)
            delta, lost = measure_newcomers(cloud, young, peer, 0)
            deltas.append(delta)
            missing.append(float(lost))
            young.destroy()
    name = f"{COUNT:,} connections"
    rows = [result.Row(f"{name}, exported, sent and imported", "ms", copies, goal=3000.0)]
    for index, side in enumerate(("source", "destination")):
        values = [more[index] for more in grown]
        rows.append(result.Row(f"memory of the {side}'s agent for them", "MiB", values, goal=64.0))
    name = f"{RATE:,} new connections a second"
    rows.append(result.Row(f"{name}, final delta", "ms", deltas, goal=50.0))
    rows.append(result.Row(f"{name}, not at the destination", "connections", missing, goal=0))
    result.write("transfer", rows)


if __name__ == "__main__":
    main()
