"""Telling systemd how the service is, as sd_notify(3) does."""

import os
import socket


def notify_systemd(state: str) -> None:
    """Send `state`, such as READY=1; does nothing where systemd did not start the process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), address)
