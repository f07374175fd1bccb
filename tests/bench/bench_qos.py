"""How closely a port's limit is kept, from 1 Mbit/s to 10 Gbit/s, by TCP and by UDP overload.

Two VMs of one host in namespaces; the sender's port is limited, with the default burst.
What is counted is what comes out, in bytes on the wire: whole frames as the limit counts them, of
TCP only what the receiver's program was given, so that nothing sent twice is counted.
"""

import contextlib
import dataclasses
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import result
import sandbox
from tenants import GUESTS

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import ALLOW_ALL, Direction, Limit, Policy
from vnet_agent.model.port import Role

SENDER, RECEIVER = GUESTS
PORT = 7001
UDP_SEGMENT = 103

#: Of a full TCP segment with time stamps, and of a datagram, without and with all headers.
TCP_PAYLOAD, TCP_FRAME = 1448, 1514
UDP_PAYLOAD, UDP_FRAME = 1400, 1442

KBPS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
#: Above this, datagrams go in large frames: one at a time the sender would be what limits them.
SEGMENTED_KBPS = 100_000
SEGMENTS = 40


@dataclasses.dataclass
class Site:
    driver: EbpfDriver
    sender: sandbox.Netns
    receiver: sandbox.Netns

    def limit(self, kbps: int | None) -> None:
        limits = (Limit(direction=Direction.EGRESS, max_kbps=kbps),) if kbps else ()
        self.driver.set_policy(SENDER.uuid, Policy(rules=ALLOW_ALL.rules, limits=limits))

    def delivered(self) -> tuple[int, int]:
        """Frames and bytes that the receiving VM was given, large frames as one."""
        counters = self.driver.counters(RECEIVER.uuid)
        return counters.rx_frames, counters.rx_bytes


@contextlib.contextmanager
def make_site() -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(sandbox.Netns(guest.name)) for guest in GUESTS]
        driver = EbpfDriver(pin_dir=str(sandbox.BPFFS / "vnet"), max_ports=16)
        driver.open()
        stack.callback(driver.destroy)
        for guest, place in zip(GUESTS, places, strict=True):
            sandbox.command(
                *("ip", "link", "add", guest.tap, "type", "veth"),
                *("peer", "name", "eth0", "netns", guest.name),
            )
            sandbox.command("ip", "link", "set", "dev", guest.tap, "up")
            place.ip(
                f"link set eth0 address {guest.mac} up",
                f"addr add {guest.address}/24 dev eth0",
            )
            driver.set_port(
                guest.uuid,
                instance=guest.uuid,
                mac=guest.mac,
                addresses=(guest.address,),
                network=0,
                bridged=False,
                role=Role.ACTIVE,
                generation=1,
                quota=1000,
            )
            driver.set_policy(guest.uuid, ALLOW_ALL)
            driver.attach(guest.uuid, socket.if_nametoindex(guest.tap))
        yield Site(driver, *places)


@contextlib.contextmanager
def process(work: Callable[[], None]) -> Iterator[None]:
    """A child that works until the block is left."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            work()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def tcp(site: Site, warm: float, seconds: float) -> float:
    """Bytes a second on the wire of what one connection brings."""
    with site.receiver.inside():
        server = socket.create_server((RECEIVER.address, PORT))
    with site.sender.inside():
        client = socket.create_connection((RECEIVER.address, PORT), 10)
    accepted, _ = server.accept()

    def send() -> None:
        client.settimeout(None)
        while True:
            client.sendall(bytes(1 << 18))

    room = bytearray(1 << 20)
    with server, client, accepted, process(send):
        client.close()
        begun = time.monotonic()
        while time.monotonic() - begun < warm:
            accepted.recv_into(room)
        begun, got = time.monotonic(), 0
        while (took := time.monotonic() - begun) < seconds:
            got += accepted.recv_into(room)
    return got / TCP_PAYLOAD * TCP_FRAME / took


def udp(site: Site, warm: float, seconds: float, *, segments: int) -> float:
    """The same of datagrams that are sent without a pause."""
    with site.receiver.inside():
        # Nobody reads: what was delivered is counted at the port.
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind((RECEIVER.address, PORT))
    with site.sender.inside():
        source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        source.connect((RECEIVER.address, PORT))
    if segments > 1:
        source.setsockopt(socket.SOL_UDP, UDP_SEGMENT, UDP_PAYLOAD)
    data = bytes(UDP_PAYLOAD * segments)

    def send() -> None:
        while True:
            source.send(data)

    with sink, source, process(send):
        time.sleep(warm)
        begun, (frames, size) = time.monotonic(), site.delivered()
        time.sleep(seconds)
        took, (frames_after, size_after) = time.monotonic() - begun, site.delivered()
    payload = size_after - size - (frames_after - frames) * (UDP_FRAME - UDP_PAYLOAD)
    return payload / UDP_PAYLOAD * UDP_FRAME / took


def name_rate(kbps: int) -> str:
    return f"{kbps // 1000} Mbit/s" if kbps < 1_000_000 else f"{kbps // 1_000_000} Gbit/s"


def make_rows(kind: str, kbps: int, found: list[float]) -> list[result.Row]:
    """What was achieved, in Mbit/s, and how far that is from the limit, in percent of it."""
    achieved = [value * 8 / 1e6 for value in found]
    off = [abs(value * 8 / 1000 / kbps - 1) * 100 for value in found]
    name = f"{kind} at {name_rate(kbps)}"
    return [
        result.Row(name, "Mbit/s", achieved, "the limit", [kbps / 1000]),
        result.Row(f"{name}, off the limit", "%", off, goal=5.0),
    ]


def main() -> None:
    quick = result.is_quick()
    rounds, warm, seconds = (1, 1.0, 4.0) if quick else (3, 2.0, 6.0)
    found: dict[tuple[str, int], list[float]] = {}
    free: dict[str, list[float]] = {}
    with make_site() as site:
        for _, kbps in itertools.product(range(rounds), (None, *KBPS)):
            segments = 1 if kbps and kbps <= SEGMENTED_KBPS else SEGMENTS
            for kind, measure in (("TCP", tcp), ("UDP", udp)):
                site.limit(None)  # a new burst for each
                site.limit(kbps)
                options = {"segments": segments} if kind == "UDP" else {}
                value = measure(site, warm, seconds, **options)
                if kbps is None:
                    free.setdefault(kind, []).append(value)
                else:
                    found.setdefault((kind, kbps), []).append(value)
    rows = [row for (kind, kbps), values in found.items() for row in make_rows(kind, kbps, values)]
    rows += [
        result.Row(f"{kind} without a limit", "Mbit/s", [value * 8 / 1e6 for value in values])
        for kind, values in free.items()
    ]
    result.write("qos", rows)


if __name__ == "__main__":
    sandbox.run(main)
