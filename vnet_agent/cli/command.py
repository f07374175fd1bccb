"""What every command of vnetctl has: the client."""

from typing import Any

from cliff.lister import Lister
from cliff.show import ShowOne

from vnet_agent.cli.client import Client


class ListCommand(Lister):
    app: Any

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
