"""Every option of the controller; `etc/controller.conf.sample` is generated from here."""

from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log

DEFAULT_FILE = "/etc/vnet/controller.conf"

GLOBAL = [
    cfg.StrOpt(
        "listen_address",
        default="127.0.0.1",
        help="Address on which agents, operators and the page reach the controller. Other than on "
        "loopback, certificates are needed, or the option insecure.",
    ),
    cfg.PortOpt("listen_port", default=7470, help="Port of the same; 0 lets the kernel choose."),
    cfg.BoolOpt(
        "insecure",
        default=False,
        help="Allow plain HTTP on addresses other than loopback. Anybody who reaches the port can "
        "then change policy: for labs only.",
    ),
    cfg.FloatOpt(
        "host_timeout",
        default=30.0,
        min=0.5,
        max=86400.0,
        help="Seconds without a heartbeat after which a host is shown as down. Three times the "
        "agents' heartbeat_interval is a good choice.",
    ),
]

DATABASE = [
    cfg.StrOpt(
        "connection",
        default="sqlite+aiosqlite:////var/lib/vnet/controller.db",
        secret=True,
        help="SQLAlchemy URL of the database, with an asynchronous driver.",
    ),
    cfg.FloatOpt(
        "busy_timeout",
        default=10.0,
        min=0.1,
        max=300.0,
        help="Seconds to wait for another process that holds the SQLite file.",
    ),
    cfg.IntOpt(
        "group_commit",
        default=64,
        min=1,
        max=1024,
        help="Most requests that share one transaction, and so one flush to the disk, when many "
        "write at once.",
    ),
    cfg.FloatOpt(
        "retention_days",
        default=30.0,
        min=0.0,
        max=36500.0,
        help="Days after which events, migrations and stopped instances are forgotten. "
        "0 keeps them for ever.",
    ),
    cfg.FloatOpt(
        "retention_interval",
        default=3600.0,
        min=1.0,
        max=86400.0,
        help="Seconds between removals of what is older than retention_days.",
    ),
]

LIMITS = [
    cfg.IntOpt(
        "body_size",
        default=8 * 1024 * 1024,
        min=1024,
        max=256 * 1024 * 1024,
        help="Most bytes in the body of a request.",
    ),
    cfg.IntOpt(
        "batch_events",
        default=5000,
        min=1,
        max=20000,
        help="Most events in one request. Agents send at most their batch_size.",
    ),
    cfg.IntOpt(
        "event_size",
        default=64 * 1024,
        min=1024,
        max=1024 * 1024,
        help="Most bytes in one event.",
    ),
    cfg.IntOpt(
        "page_size",
        default=1000,
        min=10,
        max=10000,
        help="Most rows in one answer; clients ask for the next ones with its cursor.",
    ),
    cfg.IntOpt(
        "waiting_writes",
        default=4096,
        min=1,
        max=1000000,
        help="Most requests that may wait for the database; further ones are told to come back.",
    ),
    cfg.IntOpt(
        "streams",
        default=256,
        min=1,
        max=65536,
        help="Most open event streams; further ones are told to come back.",
    ),
    cfg.FloatOpt(
        "policy_wait",
        default=120.0,
        min=0.0,
        max=3600.0,
        help="Most seconds for which a host may wait for a change of policy in one request.",
    ),
]

TLS: list[cfg.Opt] = [
    cfg.StrOpt("cert_file", default="", help="PEM certificate of the controller."),
    cfg.StrOpt("key_file", default="", help="PEM key of the certificate."),
    cfg.StrOpt(
        "ca_file",
        default="",
        help="PEM authorities; clients must then show a certificate of theirs (mutual TLS).",
    ),
]

GROUPS: Sequence[tuple[str, list[cfg.Opt]]] = (
    ("database", DATABASE),
    ("limits", LIMITS),
    ("tls", TLS),
)


def list_opts() -> list[tuple[str | None, list[cfg.Opt]]]:
    """For oslo-config-generator, namespace `vnet.controller`."""
    return [(None, GLOBAL), *GROUPS]


def load(arguments: Sequence[str]) -> cfg.ConfigOpts:
    """Parse `arguments` (with `--config-file`); raises cfg.Error that names option and value."""
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    for group, options in list_opts():
        conf.register_opts(options, group=group)
    files: list[str] | None = [] if any(a.startswith("--config-") for a in arguments) else None
    conf(list(arguments), project="vnet", prog="vnet-controller", default_config_files=files)
    check_values(conf)
    return conf


def check_values(conf: cfg.ConfigOpts) -> None:
    """Raise cfg.Error for a value out of bounds now, and not when it is used first."""
    for group, options in list_opts():
        for option in options:
            getattr(conf[group] if group else conf, option.dest)
