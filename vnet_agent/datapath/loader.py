"""The datapath driver that the configuration names."""

from oslo_config import cfg
from stevedore import ExtensionManager

from vnet_agent.datapath.base import Driver
from vnet_agent.exceptions import ConfigError

NAMESPACE = "vnet_agent.datapath"


def load_driver(conf: cfg.ConfigOpts) -> Driver:
    """Made, not opened; ConfigError when there is none of that name, or it is no driver."""
    name = conf.datapath.driver
    found = {entry.name: entry for entry in ExtensionManager(NAMESPACE).list_entry_points()}
    if name not in found:
        known = ", ".join(sorted(found)) or "none; is vnet-agent installed?"
        raise ConfigError(detail=f"[datapath] driver: there is no {name!r}; known are {known}")
    try:
        kind = found[name].load()
    except ImportError as error:
        raise ConfigError(detail=f"[datapath] driver {name!r} does not load: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Driver)):
        raise ConfigError(detail=f"[datapath] driver: {name!r} ({kind!r}) is no driver")
    return kind(conf)  # type: ignore[call-arg]
