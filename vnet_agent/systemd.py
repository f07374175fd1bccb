"""The service manager's notification protocol (sd_notify(3)); silent where there is none."""

import asyncio
import logging
import os
import socket
import time

LOG = logging.getLogger(__name__)


def ready() -> None:
    _send("READY=1")


def reloading() -> None:
    """Follow it with `ready`."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    _send("STOPPING=1")


async def feed_watchdog() -> None:
    """As long as the event loop turns, tell the service manager so; returns if it does not ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(
        os.getpid()
    ):
        return
    while True:
        _send("WATCHDOG=1")
        await asyncio.sleep(int(microseconds) / 2_000_000)


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), address)
    except OSError as error:
        LOG.warning("The service manager was not told %s: %s", message.split("=")[0], error)
