"""Datagrams of which each begins a connection: `newcomers.py ADDRESS RATE SECONDS`.

From ports 1024 on to ports FIRST to FIRST + 99 of ADDRESS, RATE a second; prints the count.
"""

import socket
import struct
import sys
import time

FIRST = 6000
#: Sent at a time.
BATCH = 50
_PORTS = 60_000


def send(address: str, rate: int, seconds: float) -> int:
    """As many as were sent, for so long."""
    number, began = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        while (passed := time.monotonic() - began) < seconds:
            while number < passed * rate:
                for _ in range(BATCH):
                    high, low = divmod(number, _PORTS)
                    # Without a checksum, which IPv4 allows.
                    header = struct.pack("!HHHH", 1024 + low, FIRST + high % 100, 8, 0)
                    raw.sendto(header, (address, 0))
                    number += 1
            time.sleep(0.001)
    return number


if __name__ == "__main__":
    print(send(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
