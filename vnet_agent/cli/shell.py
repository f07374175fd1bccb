"""`vnetctl`: the agent of this host, asked and told."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from cliff.app import App
from cliff.commandmanager import CommandManager

from vnet_agent.cli.client import Client, find_socket
from vnet_agent.version import version


class Shell(App):
    NAME = "vnetctl"
    LOG = logging.getLogger(NAME)

    def __init__(self) -> None:
        super().__init__(
            description="Ask and tell the vnet-agent of this host.",
            version=version(),
            command_manager=CommandManager("vnet.cli"),
            deferred_help=True,
        )
        self.client: Client

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: Any = None
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(description, version, argparse_kwargs)
        parser.prog = self.NAME
        parser.add_argument(
            "--socket",
            metavar="PATH",
            help="Unix socket of the agent (default: $VNET_API_SOCKET, or api_socket of "
            "/etc/vnet/agent.conf)",
        )
        return parser

    def configure_logging(self) -> None:
        """Errors go to standard error, a line each; the root logger stays as it is."""
        levels = {0: logging.WARNING, 1: logging.INFO}
        console = logging.StreamHandler(self.stderr)
        console.setLevel(levels.get(self.options.verbose_level, logging.DEBUG))
        handlers: list[logging.Handler] = [console]
        if self.options.log_file:
            handlers.append(logging.FileHandler(self.options.log_file))
        self.LOG.setLevel(logging.DEBUG)
        self.LOG.propagate = False
        self.LOG.handlers = handlers

    def initialize_app(self, argv: list[str]) -> None:
        self.client = Client(self.options.socket or find_socket())

    def interact(self) -> None:
        """Options without a command: there is no shell in the shell."""
        self.parser.print_usage(self.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    status = Shell().run(arguments or ["help"])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has had enough; Python must not find that out once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
