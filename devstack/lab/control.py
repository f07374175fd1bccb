"""Talks to the traffic tool: in a guest through its second serial port, in a peer by socket."""

import contextlib
import json
import pathlib
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from .errors import LabError

#: Seconds for which one connection is tried, and after which a command is repeated on it.
ATTEMPT_SECONDS = 3.0
REPEAT_SECONDS = 0.5


def _new_request() -> bytes:
    return secrets.token_hex(4).encode()


class Control:
    """Commands to one traffic tool. `find_socket` says where it is now (a guest may migrate).

    A command is asked again when its answer is lost, as it is when a guest moves meanwhile; the
    tool knows it by its number then, and does it once.
    """

    def __init__(self, name: str, find_socket: Callable[[], pathlib.Path]) -> None:
        self.name = name
        self._find_socket = find_socket

    @property
    def socket(self) -> pathlib.Path:
        return self._find_socket()

    def ask(self, *words: object, timeout: float = 30.0) -> Any:
        """Sends a command and returns its decoded answer; raises LabError with its error."""
        command = " ".join(map(str, words))
        request = _new_request()
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer = self._attempt(command, request)
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
            self._attempt(command, _new_request(), once=True)
        except TimeoutError:
            raise LabError(f"{self.name} did not answer {command!r}") from None

    def _attempt(self, command: str, request: bytes, *, once: bool = False) -> Any:
        """One connection; a guest that is booting loses what it is told, so it is told again. It
        does a request once, however often it hears it."""
        # The empty line ends whatever a lost client left half said.
        line = b"\n" + request + b" " + command.encode() + b" " + request + b"\n"
        received = b""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ATTEMPT_SECONDS if once else REPEAT_SECONDS)
            connection.connect(str(self._find_socket()))
            for _ in range(1 if once else int(ATTEMPT_SECONDS / REPEAT_SECONDS)):
                connection.sendall(line)
                with contextlib.suppress(TimeoutError):
                    while chunk := connection.recv(65536):
                        *lines, received = (received + chunk).split(b"\n")
                        for said in lines:
                            # A serial port echoes until the tool has set it up: no JSON.
                            name, _, answer = said.partition(b" ")
                            if name == request and answer[:1] in (b"{", b"["):
                                return json.loads(answer)
                    raise ConnectionResetError("the control channel was closed")
            raise TimeoutError("no answer")

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
