"""`vnetctl status`."""

import argparse
from typing import Any

from vnet_agent.cli.columns import show_fields
from vnet_agent.cli.command import ShowCommand


class Status(ShowCommand):
    """Show how the agent is."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return show_fields(self.client.get("status"))
