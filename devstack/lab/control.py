"""Talks to the traffic tool: in a guest through its second serial port, in a peer by socket."""

import json
import pathlib
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from .errors import LabError

ATTEMPT_SECONDS = 3.0


class Control:
    """Commands to one traffic tool. `find_socket` says where it is now (a guest may migrate).

    A command is asked again when its answer is lost, as it is when a guest moves meanwhile; what
    has a name is made only once, so asking twice does no harm.
    """

    def __init__(self, name: str, find_socket: Callable[[], pathlib.Path]) -> None:
        self.name = name
        self._find_socket = find_socket

    def ask(self, *words: object, timeout: float = 30.0) -> Any:
        """Sends a command and returns its decoded answer; raises LabError with its error."""
        command = " ".join(map(str, words))
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer = self._attempt(command)
                break
            except OSError as error:  # no socket yet, nobody reads, or the guest just moved
                if time.monotonic() >= deadline:
                    raise LabError(
                        f"{self.name} did not answer {command!r} in {timeout:g} s ({error})"
                    ) from None
                time.sleep(0.05)
        if isinstance(answer, dict) and "error" in answer:
            raise LabError(f"{self.name} refused {command!r}: {answer['error']}")
        return answer

    def send(self, command: str) -> None:
        """Sends a command once, and does not wait for what it does to the guest."""
        try:
            self._attempt(command)
        except TimeoutError:
            raise LabError(f"{self.name} did not answer {command!r}") from None

    def _attempt(self, command: str) -> Any:
        request = secrets.token_hex(4)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ATTEMPT_SECONDS)
            connection.connect(str(self._find_socket()))
            # The empty line ends whatever a lost client left half said.
            connection.sendall(f"\n{request} {command}\n".encode())
            deadline = time.monotonic() + ATTEMPT_SECONDS
            received = b""
            while True:
                *lines, received = received.split(b"\n")
                for line in lines:
                    said, _, answer = line.rpartition(b"\r")[2].partition(b" ")
                    if said == request.encode():
                        return json.loads(answer)
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                chunk = connection.recv(65536)
                if not chunk:
                    raise ConnectionResetError("the control channel was closed")
                received += chunk

    # The commands

    def stats(self) -> dict[str, Any]:
        """Everything counted: `tcp` is a list of groups, `udp` has senders and streams."""
        return dict(self.ask("stats"))

    def group(self, name: str) -> dict[str, Any]:
        """The counters of one TCP group; `listen` is that of the tool's own listener."""
        for group in self.stats()["tcp"]:
            if group["name"] == name:
                return dict(group)
        raise LabError(f"{self.name} has no group {name}")

    def connections(self, group: str) -> list[dict[str, Any]]:
        """State, both addresses and counters of each connection of a group."""
        return list(self.ask("connections", group))

    def dial(
        self, group: str, host: str, count: int, *, port: int = 5000, interval_ms: int = 500
    ) -> None:
        """Opens `count` connections that send one numbered message per interval each."""
        self.ask("dial", group, host, port, count, interval_ms)

    def listen(self, group: str, port: int) -> None:
        self.ask("listen", group, port)

    def close(self, group: str) -> None:
        self.ask("close", group)

    def reset_counters(self) -> None:
        """Sets counts and longest gaps of TCP groups back to nothing."""
        self.ask("reset-counters")

    def send_udp(self, name: str, host: str, rate: int, *, port: int = 5001) -> None:
        """Sends `rate` numbered datagrams a second to the udp listener of another tool."""
        self.ask("udp-send", name, host, port, rate)

    def close_udp(self, name: str) -> None:
        self.ask("udp-close", name)

    def boot_id(self) -> str:
        return str(self.stats()["boot_id"])
