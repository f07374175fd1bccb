"""One domain, asked of libvirt while a migration waits for the answer."""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Any

import libvirt
from oslo_config import cfg

from vnet_agent.exceptions import LibvirtError
from vnet_agent.model.virt import DomainState
from vnet_agent.virt import eventloop, names
from vnet_agent.virt.worker import Worker

#: Seconds for one question; libvirt took up to 0.2 s while a guest was switched over.
TIMEOUT = 1.0
_NO_JOBS = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_SUPPORT})


class Lookup:
    """On a thread and a connection of its own: listings wait for the hooks of every VM.

    The connection opens with the first question and stays; one that fails is opened anew.
    """

    def __init__(
        self, uri: str, *, keepalive: tuple[int, int] = (1, 3), timeout: float = TIMEOUT
    ) -> None:
        self._uri = uri
        self._keepalive = keepalive
        self._timeout = timeout
        self._worker = Worker("libvirt-lookups")
        self._connection: Any = None

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> "Lookup":
        options = conf.libvirt
        return cls(options.uri, keepalive=(options.keepalive_interval, options.keepalive_count))

    async def domain(self, uuid: str) -> DomainState | None:
        """Its state and job, without XML; None when there is none; LibvirtError in silence."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._worker.call(self._domain, uuid)
        except TimeoutError:
            detail = f"no answer within {self._timeout:g} s"
            raise LibvirtError(uri=self._uri, detail=detail) from None
        except libvirt.libvirtError as error:
            raise LibvirtError(uri=self._uri, detail=str(error)) from None

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._worker.call(self._close)
        self._worker.stop()

    # -- in the thread

    def _domain(self, uuid: str) -> DomainState | None:
        if self._connection is None or not self._connection.isAlive():
            self._close()
            self._connection = self._open()
        try:
            domain = self._connection.lookupByUUIDString(uuid)
            job = _job_of(domain)
            state, reason = names.state(*domain.state())  # after the job: if it is gone, it is
            return DomainState(uuid=uuid, name=domain.name(), state=state, reason=reason, job=job)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _open(self) -> Any:
        eventloop.ensure_running()
        connection = libvirt.open(self._uri)
        _unless({libvirt.VIR_ERR_NO_SUPPORT}, connection.setKeepAlive, *self._keepalive)
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()


def _job_of(domain: Any) -> str:
    """A domain that does not run, or a driver that knows no jobs, has none."""
    statistics = _unless(_NO_JOBS, domain.jobStats) or {}
    if statistics.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return ""
    operation = statistics.get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN)
    return names.job_operation(operation)


def _unless(codes: Collection[int], function: Callable[..., Any], *arguments: Any) -> Any:
    """None when libvirt refuses with one of these codes."""
    try:
        return function(*arguments)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in codes:
            raise
        return None
