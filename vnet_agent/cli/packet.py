"""`vnetctl packet`: frames that handlers give to the controller."""

import argparse
import json
import sys
from typing import Any

from vnet_agent.cli.client import AgentDown
from vnet_agent.cli.command import ListCommand


class PacketWatch(ListCommand):
    """Show packet-ins as they come, one a line; with `-f json` one JSON object a line.

    The controller gets them all the same.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--port", help="only of this port: UUID, tap or MAC address")
        parser.add_argument("--count", type=int, metavar="N", help="end after so many")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Prints by itself: a lister would wait for the last one."""
        as_json = parsed_args.formatter in ("json", "value")
        left = parsed_args.count
        with self.client.stream("packet-ins", port=parsed_args.port) as response:
            for text in response:
                if not text.strip():
                    continue
                sys.stdout.write(text.decode() if as_json else _line(json.loads(text)) + "\n")
                sys.stdout.flush()
                left = None if left is None else left - 1
                if left == 0:
                    return 0
        raise AgentDown(socket=self.client.path, detail="it ended the stream")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        raise AssertionError("run does it all")


def _line(packet: dict[str, Any]) -> str:
    words = [packet["time"], packet["port"], packet["direction"], f"table={packet['table']}"]
    words += [packet["reason"], f"cookie={packet['cookie']:#x}", f"{packet['length']} bytes"]
    if packet["lost"]:
        words.append(f"({packet['lost']} lost before it)")
    return "  ".join(words)
