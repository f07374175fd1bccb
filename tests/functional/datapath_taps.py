"""Real taps: this process holds their descriptors, reads and writes frames as QEMU would."""

import fcntl
import os
import select
import socket
import struct
from pathlib import Path

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4

#: struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
_HEADER = struct.Struct("<BBHHHH")
NEEDS_CSUM, GSO_TCPV4 = 1, 1


class Tap:
    """A tap that is there while this is; frames come and go with their virtio header.

    `plain`: without one, as for the models of network devices that QEMU emulates whole.
    """

    def __init__(self, name: str, *, plain: bool = False, flags: int = 0) -> None:
        self.name = name
        self._header = b"" if plain else bytes(_HEADER.size)
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags |= IFF_TAP | IFF_NO_PI | IFF_VNET_HDR * (not plain)
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if not plain:
            fcntl.ioctl(self.fd, TUNSETVNETHDRSZ, struct.pack("i", _HEADER.size))
            fcntl.ioctl(self.fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
        # The host itself must say nothing there.
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        self._set_up()

    def _set_up(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = struct.pack("16sH22x", self.name.encode(), 0x1)  # IFF_UP
            fcntl.ioctl(sock, 0x8914, request)  # SIOCSIFFLAGS

    @property
    def ifindex(self) -> int:
        return socket.if_nametoindex(self.name)

    def send(self, frame: bytes) -> None:
        os.write(self.fd, self._header + frame)

    def send_gso(self, frame: bytes, *, header: int, mss: int, csum_start: int) -> None:
        """A TCP segment that is still to be cut, its checksum still to be made."""
        prefix = _HEADER.pack(NEEDS_CSUM, GSO_TCPV4, header, mss, csum_start, 16)
        os.write(self.fd, prefix + frame)

    def receive(self, seconds: float = 5.0) -> bytes:
        """The next frame, b"" when none comes."""
        return self.receive_gso(seconds)[1]

    def receive_gso(self, seconds: float = 5.0) -> tuple[int, bytes]:
        """The next frame's GSO size, and the frame."""
        header, frame = self.receive_offload(seconds)
        return header[3], frame

    def receive_offload(self, seconds: float = 5.0) -> tuple[tuple[int, ...], bytes]:
        """The next frame's virtio header, field by field, and the frame."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return (0,) * 6, b""
        data = os.read(self.fd, 1 << 17)
        if not self._header:
            return (0,) * 6, data
        return _HEADER.unpack_from(data), data[_HEADER.size :]

    def drain(self, seconds: float = 0.2) -> list[bytes]:
        frames = []
        while frame := self.receive(seconds):
            frames.append(frame)
        return frames

    def close(self) -> None:
        os.close(self.fd)
