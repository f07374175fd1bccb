"""`vnetctl capture`: frames of ports with their tags, for Wireshark and tshark."""

import argparse
import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from cliff.command import Command

from vnet_agent.capture.blocks import BlockReader, NoBlocks
from vnet_agent.cli.client import Client, Refused
from vnet_agent.exceptions import VnetError

#: Of the file: frames of tenants are for nobody else to read.
_MODE = 0o600


class _ReaderGone(Exception):
    """Whoever read our output has had enough."""


class Capture(Command):
    """Write frames of ports as pcapng, each with its instance, port, direction and verdict.

    As in `vnetctl capture tap0 | tshark -r -`. It runs until --count or --seconds, Ctrl-C, or the
    end of the reader. Frames that are dropped are captured too, and say why.
    """

    app: Any

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "port", metavar="PORT", nargs="*", help="UUID, tap or MAC address (default: all)"
        )
        parser.add_argument(
            "-w", "--write", metavar="FILE", help="write here instead of standard output"
        )
        parser.add_argument(
            "--direction", choices=("ingress", "egress"), help="only to the VM, or from it"
        )
        parser.add_argument(
            "--drops-only", action="store_true", help="only frames that are dropped"
        )
        parser.add_argument("--protocol", help="only tcp, udp, sctp, icmp, icmpv6, or a number")
        parser.add_argument("--remote", metavar="CIDR", help="only to or from these addresses")
        parser.add_argument("--count", type=int, metavar="N", help="end after so many frames")
        parser.add_argument("--seconds", type=int, metavar="N", help="end after so long")
        parser.add_argument(
            "--snap",
            type=int,
            default=256,
            metavar="BYTES",
            help="bytes to keep of a frame; 0: all of it, up to 65535 (default: 256)",
        )
        parser.add_argument(
            "--rate",
            type=int,
            metavar="N",
            help="most frames a second of one port (default, and most: the agent's "
            "[capture] rate)",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        if parsed_args.write in (None, "-") and sys.stdout.isatty():
            raise Refused(
                detail="This would write binary pcapng to the terminal: use -w FILE, or pipe it "
                "to `tshark -r -`"
            )
        try:
            reader = _copy(self.app.client, parsed_args.write, _make_query(parsed_args))
        except _ReaderGone:
            return 0
        self._report(reader)
        return 0

    def _report(self, reader: BlockReader) -> None:
        """How much it was, as tcpdump says it, on standard error."""
        print(f"{reader.packets} frames captured, {reader.lost} lost", end="", file=sys.stderr)
        if reader.lost:
            parts = [f"{name} {count}" for name, count in reader.reasons.items() if count]
            print(f" ({', '.join(parts)})", end="", file=sys.stderr)
        print(file=sys.stderr)


def _make_query(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "port": options.port,
        "direction": options.direction,
        "drops": 1 if options.drops_only else None,
        "protocol": options.protocol,
        "remote": options.remote,
        "snap": options.snap,
        "rate": options.rate,
        "count": options.count,
        "seconds": options.seconds,
    }


@contextlib.contextmanager
def _open_output(name: str | None) -> Iterator[BinaryIO]:
    """Unbuffered, so that a reader sees each frame when it comes. Raises Refused."""
    if name in (None, "-"):
        with os.fdopen(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as output:
            yield output
        return
    path = str(name)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise Refused(detail=f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "wb", buffering=0) as output:
        yield output


def _copy(client: Client, name: str | None, query: dict[str, Any]) -> BlockReader:
    """The whole stream; the output is opened once the agent has agreed, and gets whole blocks.

    Raises _ReaderGone, Refused, AgentDown.
    """
    reader = BlockReader()
    ending = _Ending(client)
    with (
        ending.on_signals(),
        client.stream("capture", **query) as response,
        _open_output(name) as output,
    ):
        ending.begin(response.headers.get("Vnet-Capture", ""), output)
        while piece := response.read1(1 << 16):
            try:
                blocks = reader.feed(piece)
            except NoBlocks as error:
                raise Refused(detail=f"The agent sent what is no capture: {error}") from None
            _write(output, blocks)
    if not reader.is_ended:
        raise Refused(detail="The agent broke the capture off; its log says why")
    return reader


def _write(output: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[output.write(rest) :]
    except BrokenPipeError:
        raise _ReaderGone() from None
    except OSError as error:
        raise Refused(detail=f"The capture cannot be written: {error.strerror}") from None


class _Ending:
    """Asks the agent to bring the capture to its end; the stream goes on until then."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_wanted = False
        #: None before the agent has named it.
        self._name: str | None = None

    def begin(self, name: str, output: BinaryIO) -> None:
        """The capture runs; an end that was wanted before is asked for now."""
        self._name = name
        if self._is_wanted:
            self._ask()
        # Between two frames nobody writes, and only this tells that the reader has gone.
        threading.Thread(target=self._watch, args=(output.fileno(),), daemon=True).start()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """The second signal ends vnetctl as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._is_wanted = True
        if self._name is not None:
            threading.Thread(target=self._ask, daemon=True).start()

    def _watch(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, 0)
        if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll()):
            self._ask()

    def _ask(self) -> None:
        with contextlib.suppress(VnetError):  # then it has ended, or will with the agent
            self._client.delete("capture", self._name or "")
