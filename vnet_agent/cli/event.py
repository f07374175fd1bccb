"""`vnetctl event`: what happened on this host, and what happens."""

import argparse
import json
import sys
from typing import Any

from vnet_agent.cli.columns import show_rows
from vnet_agent.cli.command import ListCommand

_COLUMNS = ("time", "type", "subject", "cause", "inferred", "data", "id")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type",
        action="append",
        default=[],
        metavar="TYPE",
        help="only this type, as in vnet.instance.rebooted; may be repeated",
    )
    parser.add_argument("--instance", metavar="UUID", help="only of this instance")
    parser.add_argument("--after", metavar="ID", help="only what came after the event of this id")


class EventList(ListCommand):
    """List events of this host: the last ones, or those after a given one."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_filters(parser)
        parser.add_argument(
            "--limit", type=int, default=100, help="list at most so many (default: 100)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        found = self.client.get(
            "events",
            after=parsed_args.after,
            limit=parsed_args.limit,
            type=parsed_args.type,
            subject=parsed_args.instance,
            latest=None if parsed_args.after else 1,
        )
        return show_rows(_COLUMNS, found["events"])


class EventWatch(ListCommand):
    """Show events as they come, one a line; with `-f json` one JSON object a line."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_filters(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Prints by itself: a lister would wait for the last event."""
        as_json = parsed_args.formatter in ("json", "value")
        for event in self.client.events(
            after=parsed_args.after, type=parsed_args.type, subject=parsed_args.instance
        ):
            sys.stdout.write(json.dumps(event) if as_json else _line(event))
            sys.stdout.write("\n")
            sys.stdout.flush()
        return 0

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        raise AssertionError("run does it all")


def _line(event: dict[str, Any]) -> str:
    words = [event["time"], event["type"], event["subject"] or "-", event["cause"]]
    if event["inferred"]:
        words.append("inferred")
    if name := event["data"].get("name"):
        words.append(str(name))
    return "  ".join(words)
