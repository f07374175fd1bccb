"""What the rooms of the API share."""

import ssl
import time
from dataclasses import dataclass

from aiohttp import web
from oslo_config import cfg

from vnet_controller.hub import Hub, Latest
from vnet_controller.membership import Membership
from vnet_controller.metrics import Metrics
from vnet_controller.packets import Packets
from vnet_controller.store.database import Database
from vnet_controller.store.writer import Writer


@dataclass(frozen=True)
class Services:
    """`revision` is the policy's."""

    conf: cfg.ConfigOpts
    database: Database
    writer: Writer
    hub: Hub
    revision: Latest
    metrics: Metrics
    packets: Packets
    membership: Membership


SERVICES = web.AppKey("services", Services)


def now_us() -> int:
    """Microseconds since 1970 by this machine's clock."""
    return time.time_ns() // 1000


def make_services(conf: cfg.ConfigOpts) -> Services:
    metrics = Metrics()
    database = Database(conf.database.connection, busy_timeout=conf.database.busy_timeout)
    writer = Writer(
        database.writer,
        metrics,
        group=conf.database.group_commit,
        waiting=conf.limits.waiting_writes,
    )
    revision = Latest()
    membership = Membership(database, revision)
    return Services(
        conf, database, writer, Hub(database), revision, metrics, Packets(), membership
    )


def make_ssl_context(conf: cfg.ConfigOpts) -> ssl.SSLContext | None:
    """None where no certificate is configured; raises OSError for files that are none."""
    if not conf.tls.cert_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(conf.tls.cert_file, conf.tls.key_file or None)
    if conf.tls.ca_file:
        context.load_verify_locations(conf.tls.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
