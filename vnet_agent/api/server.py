"""The local API's server: one Unix socket, for root and one group."""

import asyncio
import contextlib
import grp
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Any

from aiohttp import web

from vnet_agent.api import (
    capture,
    connections,
    events,
    flows,
    hook,
    metrics,
    migrations,
    packets,
    ports,
    problem,
    rules,
    status,
    tables,
    trace,
)
from vnet_agent.api.services import SERVICES, Services
from vnet_agent.exceptions import SocketError
from vnet_agent.metrics.exporter import Exporter

LOG = logging.getLogger(__name__)

#: A hook's domain XML (2 MiB at most), escaped, is the longest body that is read as a whole.
MAX_BODY = 13 << 20
_ROOMS = (
    *(status, ports, connections, flows, trace, capture),
    *(rules, tables, packets, events, migrations, hook, metrics),
)


def make_application(
    services: Services, running: capture.Running, exporter: Exporter
) -> web.Application:
    application = web.Application(middlewares=[problem.explain], client_max_size=MAX_BODY)
    application[SERVICES] = services
    streams: set[asyncio.Task[Any]] = set()
    late: set[asyncio.Task[None]] = set()
    application[events.STREAMS] = streams
    application[hook.LATE] = late
    application[capture.RUNNING] = running
    application[metrics.EXPORTER] = exporter
    for room in _ROOMS:
        application.add_routes(room.ROUTES)
    application.on_shutdown.append(_end_streams)
    return application


async def _end_streams(application: web.Application) -> None:
    streams = application[events.STREAMS]
    for task in tuple(streams):
        task.cancel()


class LocalApi:
    """Serves on [DEFAULT] api_socket from `start` to `close`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._running = capture.Running()
        #: For whoever serves the metrics elsewhere too.
        self.exporter = Exporter(services, lambda: self._running.name is not None)
        self._path = Path(services.conf.api_socket)
        self._runner: web.AppRunner | None = None
        self._inode: int | None = None

    async def start(self) -> None:
        """Raises SocketError: another agent serves there, or the place cannot be used."""
        listener = self._listen()
        self._runner = web.AppRunner(
            make_application(self._services, self._running, self.exporter),
            access_log=None,
            shutdown_timeout=2.0,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        LOG.info("Local API on %s", self._path)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _listen(self) -> socket.socket:
        """A listening socket that appears at its place with its owner and mode set."""
        made = self._path.with_name(f"{self._path.name}~")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._check_place()
            made.unlink(missing_ok=True)
            listener.bind(str(made))
            self._protect(made)
            listener.listen(128)
            listener.setblocking(False)
            self._inode = made.stat().st_ino
            made.rename(self._path)
        except OSError as error:
            listener.close()
            made.unlink(missing_ok=True)
            raise SocketError(path=self._path, detail=str(error)) from error
        except SocketError:
            listener.close()
            raise
        return listener

    def _check_place(self) -> None:
        """A socket that nobody serves may be replaced, and nothing else."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise SocketError(path=self._path, detail="there is something that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                return
            except OSError as error:  # a full backlog is a living server too
                detail = f"another agent seems to serve there ({error})"
                raise SocketError(path=self._path, detail=detail) from None
        raise SocketError(path=self._path, detail="another agent serves there")

    def _protect(self, made: Path) -> None:
        name = self._services.conf.api_group
        made.chmod(0o600)
        try:
            os.chown(made, -1, grp.getgrnam(name).gr_gid)
        except KeyError:
            LOG.info("There is no group %s: only root may use the local API", name)
        except PermissionError:
            LOG.warning("The local API cannot be given to group %s: not permitted", name)
        else:
            made.chmod(0o660)
