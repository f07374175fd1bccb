"""`vnetctl rule`: the policy in force."""

import argparse
from pathlib import Path
from typing import Any

from vnet_agent.cli.client import Refused
from vnet_agent.cli.columns import show_fields, show_rows
from vnet_agent.cli.command import ListCommand, ShowCommand

_COLUMNS = (
    "group",
    "applies_to",
    "established",
    "direction",
    "ethertype",
    "protocol",
    "ports",
    "icmp_type",
    "icmp_code",
    "remote",
)


class RuleList(ListCommand):
    """List the rules in force, group by group; a group without rules has one empty row."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        rows = [
            rule | group | {"group": group["name"], "ports": _ports(rule.get("ports"))}
            for group in self.client.get("rules")["groups"]
            for rule in group["rules"] or [{}]
        ]
        return show_rows(_COLUMNS, rows)


def _ports(ports: list[int] | None) -> str | None:
    """As a policy document has it."""
    if ports is None:
        return None
    low, high = ports
    return str(low) if low == high else f"{low}-{high}"


class RuleLoad(ShowCommand):
    """Put the policy of a YAML or JSON file in force, in place of what is."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", type=Path, help="the policy document")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        try:
            body = parsed_args.file.read_bytes()
        except OSError as error:
            detail = f"{parsed_args.file} cannot be read: {error.strerror}"
            raise Refused(detail=detail) from None
        return show_fields(self.client.put("rules", body=body, name=str(parsed_args.file)))
