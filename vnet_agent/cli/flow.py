"""`vnetctl flow`: what the flow cache answers without a look at the rules."""

import argparse
from typing import Any

from vnet_agent.cli import listing
from vnet_agent.cli.columns import show_rows
from vnet_agent.cli.command import ListCommand

_COLUMNS = (
    "port",
    "protocol",
    "local",
    "local_port",
    "remote",
    "remote_port",
    "state",
    "translated",
    "verdict",
    "generation",
    "fresh",
    "idle_ms",
    "egress_packets",
    "egress_bytes",
    "ingress_packets",
    "ingress_bytes",
)


class FlowList(ListCommand):
    """List cached verdicts; one that is not fresh is judged again at its next frame."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "of", metavar="PORT", nargs="?", help="UUID, tap or MAC address (default: all ports)"
        )
        listing.add_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return show_rows(_COLUMNS, listing.read(self, parsed_args, "flows"))
