"""`vnetctl conn`: a port's connections, to look at, to save and to bring back."""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from vnet_agent.cli import listing
from vnet_agent.cli.client import Refused
from vnet_agent.cli.columns import show_fields, show_rows
from vnet_agent.cli.command import ListCommand, ShowCommand

_COLUMNS = (
    "protocol",
    "local",
    "local_port",
    "remote",
    "remote_port",
    "state",
    "translated",
    "origin",
    "assured",
    "remaining_ms",
    "mark",
    "egress_packets",
    "egress_bytes",
    "ingress_packets",
    "ingress_bytes",
)


class ConnList(ListCommand):
    """List the connections of a port."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("port", metavar="PORT", help="UUID, tap or MAC address")
        listing.add_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        path = ("ports", parsed_args.port, "connections")
        return show_rows(_COLUMNS, listing.read(self, parsed_args, *path))


class ConnExport(ShowCommand):
    """Save the connections of a port in a file."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("port", metavar="PORT", help="UUID, tap or MAC address")
        parser.add_argument("file", metavar="FILE", type=Path, help="is replaced if it exists")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        # The check costs an import that no other command needs.
        from vnet_agent.migration import wire

        decoder = wire.Decoder()
        size = 0
        target: Path = parsed_args.file
        try:
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        except OSError as error:
            raise Refused(detail=f"{target} cannot be written: {error.strerror}") from None
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in self.client.download(
                    "ports", parsed_args.port, "connections", "export"
                ):
                    for frame in decoder.feed(piece):
                        if isinstance(frame, wire.Abort):
                            raise Refused(detail=f"The export failed: {frame.reason}")
                        size += len(frame.data) if isinstance(frame, wire.Records) else 0
                    file.write(piece)
                decoder.finish()
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return show_fields({"port": parsed_args.port, "file": str(target), "record_bytes": size})


class ConnImport(ShowCommand):
    """Bring connections back from a file; each is checked against the port's policy."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("port", metavar="PORT", help="UUID, tap or MAC address")
        parser.add_argument("file", metavar="FILE", type=Path, help="as `conn export` made it")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        try:
            with parsed_args.file.open("rb") as file:
                result = self.client.post(
                    "ports", parsed_args.port, "connections", "import", body=file
                )
        except OSError as error:
            detail = f"{parsed_args.file} cannot be read: {error.strerror}"
            raise Refused(detail=detail) from None
        return show_fields(result)
