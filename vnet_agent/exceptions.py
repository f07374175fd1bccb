"""Every error of the project: typed fields, and a message that says what to do."""

from typing import Any


class VnetError(Exception):
    """Base; `template` is filled with the keyword arguments, which stay as attributes."""

    template = "%(detail)s"

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)
        super().__init__(self.template % fields)


class ConfigError(VnetError):
    template = "Configuration: %(detail)s"


class DomainXmlError(VnetError):
    template = "Domain XML of %(domain)s refused: %(detail)s"


class LibvirtError(VnetError):
    """libvirtd is away, does not answer in time, or refused."""

    template = "libvirt at %(uri)s: %(detail)s"


class PolicyError(VnetError):
    """`where` names file and line, or the path inside a JSON document."""

    template = "Policy refused, the old one stays: %(where)s: %(detail)s"


class HandlerError(VnetError):
    """`where` names file and line, or the path inside a JSON document."""

    template = "Handlers refused, nothing has changed: %(where)s: %(detail)s"


class DatapathError(VnetError):
    template = "Datapath: %(operation)s failed: %(detail)s"


class TablesUnsupported(VnetError):
    template = "The datapath driver has no tables of handlers; see [datapath] driver"


class UnknownPort(VnetError):
    template = "No port %(port)s on this host; `vnetctl port list` shows those there are"


class RecordError(VnetError):
    """Foreign bytes that are no connection records."""

    template = "Connection records refused: %(detail)s"


class FilterError(VnetError):
    """A filter, cursor or packet that somebody asked for and that means nothing."""


class CaptureBusy(VnetError):
    template = "Another capture is running on this host, and there is one at a time; wait for it"


class UnknownGroup(VnetError):
    template = "There is no %(what)s in force; `vnetctl rule list` shows those there are"


class UnknownRule(VnetError):
    template = (
        "Table %(table)s has no rule %(rule)s; `vnetctl table show %(table)s` shows its rules"
    )


class TableChanged(VnetError):
    template = "Table %(table)s has changed meanwhile, nothing was done; look at it and try again"


class PolicyChanged(VnetError):
    template = "The policy has changed meanwhile, nothing was done; look at it and try again"


class PolicyOwned(VnetError):
    template = (
        "The policy comes from the controller, which will replace it at its next change: change "
        "the group there (PUT /v1/groups/%(group)s), or use --force"
    )


class JournalError(VnetError):
    template = "Event journal: %(detail)s"


class SocketError(VnetError):
    template = "Local API on %(path)s: %(detail)s"


class MetricsError(VnetError):
    template = "Metrics on %(listen)s ([metrics] listen): %(detail)s"


class UnknownEvent(VnetError):
    template = "%(event)s is no event of this host's journal; leave `after` out to begin anew"


class EventRefused(VnetError):
    """The receiver will never take these events; trying again cannot help."""

    template = "Events refused: %(detail)s"


class ControllerError(VnetError):
    template = "Controller %(url)s: %(detail)s"


class MigrationError(VnetError):
    template = "Migration %(session)s: %(detail)s"


class StaleGeneration(VnetError):
    template = "Port %(port)s: generation %(given)s is older than the owner's %(current)s"


class PortTaken(VnetError):
    template = "Port %(port)s belongs to %(instance)s, which runs here"
