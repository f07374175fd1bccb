"""What every command of vnetctl has: the client."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from cliff.formatters.json_format import JSONFormatter
from cliff.lister import Lister
from cliff.show import ShowOne

from vnet_agent.cli.client import Client
from vnet_agent.cli.streamed import StreamedJson


class ListCommand(Lister):
    """Rows may come from a generator; in JSON, CSV and plain values they go out one by one."""

    app: Any

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
    ) -> int:
        if type(self.formatter) is JSONFormatter:
            self.formatter = StreamedJson()
        return super().produce_output(parsed_args, column_names, data)

    @property
    def client(self) -> Client:
        client: Client = self.app.client
        return client


class ShowCommand(ShowOne):
    app: Any

    @property
    def client(self) -> Client:
        client: Client = self.app.client
        return client
