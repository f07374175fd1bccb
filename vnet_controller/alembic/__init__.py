"""The history of the schema; `vnet-controller` brings a database up to date when it starts."""
