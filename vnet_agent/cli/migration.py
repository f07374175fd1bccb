"""`vnetctl migration`: the live migrations that this host took part in."""

import argparse
from typing import Any

from vnet_agent.cli.columns import show_fields, show_rows
from vnet_agent.cli.command import ListCommand, ShowCommand

_COLUMNS = (
    "id",
    "instance",
    "instance_name",
    "side",
    "source",
    "destination",
    "phase",
    "connections_moved",
    "vcpu_pause_ms",
    "error",
)


class MigrationList(ListCommand):
    """List the migrations."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return show_rows(_COLUMNS, self.client.get("migrations")["migrations"])


class MigrationShow(ShowCommand):
    """Show the report of a migration; what was not measured on this host is empty."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID", help="the session's, as `migration list` has it")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return show_fields(self.client.get("migrations", parsed_args.id))
