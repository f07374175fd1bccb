"""The controller's life: open the database, listen, serve until told to stop, close in order."""

import asyncio
import ipaddress
import logging
import signal
from functools import partial

from aiohttp import web
from oslo_config import cfg

from vnet_controller.api import make_application
from vnet_controller.notify import notify_systemd
from vnet_controller.services import Services, make_services, make_ssl_context, now_us
from vnet_controller.store import groups, retention

LOG = logging.getLogger(__name__)

#: Seconds that requests under way get when the controller stops.
GRACE = 5.0

DAY_US = 86_400_000_000


class UnsafeListener(Exception):
    """The configuration would let anybody on the network change policy."""


class Server:
    """Everything that runs; `start` and `close` may each be called once."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self.services: Services = make_services(conf)
        self._runner = web.AppRunner(
            make_application(self.services),
            access_log=None,  # heartbeats would drown what matters; the metrics count requests
            auto_decompress=False,  # some bytes would become gigabytes; see read_body
            handle_signals=False,
            shutdown_timeout=GRACE,
        )
        self._forgetting: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            await self.start()
            notify_systemd("READY=1")
            await stop.wait()
            LOG.info("Stopping")
            notify_systemd("STOPPING=1")
        finally:
            await self.close()

    async def start(self) -> None:
        """Raises OSError, SQLAlchemyError or UnsafeListener when it cannot serve."""
        context = make_ssl_context(self._conf)
        check_listener(self._conf)
        await self.services.database.open()
        self.services.writer.start()
        await self.services.hub.start()
        self.services.revision.advance(await self.services.database.read(groups.read_revision))
        await self.services.membership.start()
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, self._conf.listen_address, self._conf.listen_port, ssl_context=context
        )
        await site.start()
        LOG.info("Listening on %s", self.addresses)
        self._forgetting = asyncio.create_task(self._forget_old(), name="retention")

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [address[:2] for address in self._runner.addresses]

    async def close(self) -> None:
        """Answer what is under way, commit what waits, close the database."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        self.services.hub.head.close()
        self.services.revision.close()
        self.services.packets.close()
        self.services.membership.changed.close()
        await self._runner.cleanup()
        await self.services.writer.close()
        await self.services.database.close()

    async def _forget_old(self) -> None:
        days: float = self._conf.database.retention_days
        while days:
            before_us = now_us() - int(days * DAY_US)
            try:
                work = partial(retention.forget_old, before_us=before_us)
                while await self.services.writer.run(work) == retention.PIECE:
                    pass
            except Exception:
                LOG.exception("Forgetting what is old failed; it is tried again later")
            await asyncio.sleep(self._conf.database.retention_interval)


def check_listener(conf: cfg.ConfigOpts) -> None:
    """Raises UnsafeListener for plain HTTP, or TLS without client certificates, off loopback."""
    try:
        is_local = ipaddress.ip_address(conf.listen_address).is_loopback
    except ValueError:
        is_local = conf.listen_address == "localhost"
    if not (is_local or conf.insecure or (conf.tls.cert_file and conf.tls.ca_file)):
        raise UnsafeListener(
            f"listen_address {conf.listen_address} is not on loopback: set cert_file, key_file "
            "and ca_file in [tls], or insecure = true in a lab"
        )
