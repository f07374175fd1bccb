"""Reads a tap as QEMU does for a guest without vhost-net, and pauses as it does.

    python fake_qemu.py TAP THROWS -uuid INSTANCE

SIGUSR1 is the pause. If THROWS is not -1 it comes by itself, when the guest has so many frames;
the next is then read while the processors are being stopped, and thrown away. SIGTERM ends it, and
what the guest got is printed in hexadecimal digits.
"""

import fcntl
import os
import select
import signal
import struct
import sys

TUNSETIFF = 0x400454CA
TAP, NO_PI, VNET_HDR = 2, 0x1000, 0x4000
BUFFER = 69632


class Qemu:
    def __init__(self, tap: str, throws: int) -> None:
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", tap.encode(), TAP | NO_PI | VNET_HDR)
        fcntl.ioctl(self.fd, TUNSETIFF, request)
        self.throws = throws
        self.guest: list[bytes] = []
        self.paused = self.ended = False

    def run(self) -> None:
        news, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: None)
        print("ready", flush=True)
        waits = True
        while not self.ended:
            poll = select.poll()
            poll.register(news, select.POLLIN)
            if waits:
                poll.register(self.fd, select.POLLIN)
            ready = [fd for fd, _ in poll.poll()]
            if news in ready:
                self.hear(os.read(news, 1)[0])
                waits = True
            elif self.fd in ready:
                waits = self.take()
        for frame in self.guest:
            print(frame[10:].hex())

    def take(self) -> bool:
        """tap_send(): whether it goes on to wait for the tap."""
        while True:
            try:
                frame = os.read(self.fd, BUFFER)
            except BlockingIOError:
                return True
            if self.paused:
                return False
            if len(self.guest) == self.throws:
                self.pause()
                return True
            self.guest.append(frame)

    def hear(self, number: int) -> None:
        if number == signal.SIGTERM:
            self.ended = True
            return
        self.pause()

    def pause(self) -> None:
        self.paused = True
        print("paused", flush=True)


if __name__ == "__main__":
    Qemu(sys.argv[1], int(sys.argv[2])).run()
