"""`vnetctl port`: which VM is behind which tap."""

import argparse
from typing import Any

from vnet_agent.cli.columns import show_fields, show_rows
from vnet_agent.cli.command import ListCommand, ShowCommand

_COLUMNS = ("vm", "instance", "port", "tap", "mac", "addresses", "role", "tag")


class PortList(ListCommand):
    """List the ports of this host's VMs; `tag` says whether the tap carries its tag."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        rows = [
            port | {"vm": port["instance_name"], "port": port["uuid"], "tag": port["tagged"]}
            for port in self.client.get("ports")["ports"]
        ]
        return show_rows(_COLUMNS, rows)


class PortShow(ShowCommand):
    """Show a port with its counters, and the policy and limits that hold for it."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("port", metavar="PORT", help="UUID, tap or MAC address")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        shown = self.client.get("ports", parsed_args.port)
        counters = shown.pop("counters") or {"drops": {}}
        limits = shown["policy"].pop("limits")
        return show_fields(shown | {"limits": limits} | counters)
