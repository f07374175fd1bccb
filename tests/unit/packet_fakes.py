"""A memory driver whose packet-ins a test gives, and whose packet-outs it sees."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from vnet_agent.datapath.handling import PacketIn
from vnet_agent.datapath.memory import MemoryDriver


class SentPacket(NamedTuple):
    port: str
    egress: bool
    frame: bytes
    through_tables: bool


class Wire:
    """Packet-ins go in with `feed`; frames that were sent are in `sent`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: list[PacketIn] = []
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.sent: list[SentPacket] = []

    def feed(self, packet: PacketIn) -> None:
        with self.lock:
            self.waiting.append(packet)
            os.eventfd_write(self.fd, 1)

    def take(self) -> list[PacketIn]:
        with self.lock:
            packets, self.waiting = self.waiting, []
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)
        return packets


class FedDriver(MemoryDriver):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.wire = Wire()

    def destroy(self) -> None:
        super().destroy()
        os.close(self.wire.fd)

    def packet_in_fileno(self) -> int:
        return self.wire.fd

    def read_packet_ins(self) -> Iterator[PacketIn]:
        yield from self.wire.take()

    def send_packet(self, port: str, *, egress: bool, frame: bytes, through_tables: bool) -> None:
        self._id(port)
        self.wire.sent.append(SentPacket(self._key(port), egress, frame, through_tables))
