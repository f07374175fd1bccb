"""One open connection to libvirtd with its callbacks; everything in here may block.

Callbacks run in libvirt's event thread. They decode what they get into typed values and pass
them on, and do nothing else.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import libvirt

from vnet_agent.model.virt import DomainEvent, DomainState
from vnet_agent.virt import eventloop, names

LOG = logging.getLogger(__name__)

Publish = Callable[[DomainEvent], None]
OnClose = Callable[[str], None]


class Session:
    """Opens in the constructor; `publish` and `on_close` are called in libvirt's event thread.

    Raises libvirt.libvirtError, here and in every method.
    """

    def __init__(
        self, uri: str, *, keepalive: tuple[int, int], publish: Publish, on_close: OnClose
    ) -> None:
        eventloop.ensure_running()
        self._publish = publish
        self._on_close = on_close
        self._callbacks: list[int] = []
        self._has_close_callback = False
        self._connection = libvirt.open(uri)
        try:
            self._arm(keepalive)
        except BaseException:
            self.close()
            raise

    def domains(self) -> list[DomainState]:
        """Every domain, active ones with their XML; those that vanish meanwhile are left out."""
        states = (self._state_of(domain) for domain in self._connection.listAllDomains())
        return [state for state in states if state is not None]

    def xml(self, uuid: str) -> str:
        return str(self._connection.lookupByUUIDString(uuid).XMLDesc(0))

    def close(self) -> None:
        """Deregister, then close: libvirt keeps the descriptors while a callback is registered."""
        for callback in self._callbacks:
            self._try(self._connection.domainEventDeregisterAny, callback)
        self._callbacks.clear()
        if self._has_close_callback:
            self._try(self._connection.unregisterCloseCallback)
            self._has_close_callback = False
        self._try(self._connection.close)

    def _arm(self, keepalive: tuple[int, int]) -> None:
        connection = self._connection
        # Drivers inside the process, such as test:///, know neither of the two.
        try:
            connection.registerCloseCallback(self._closed, None)
            self._has_close_callback = True
            connection.setKeepAlive(*keepalive)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
        for kind, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._device_added),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._device_removed),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._watchdog),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._iteration),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._job_completed),
        ):
            self._callbacks.append(connection.domainEventRegisterAny(None, kind, callback, None))

    def _state_of(self, domain: Any) -> DomainState | None:
        try:
            xml = domain.XMLDesc(0) if domain.ID() >= 0 else ""
            state, reason = names.state(*domain.state())  # after the XML: if it stops, it counts
            return DomainState(
                uuid=domain.UUIDString(),
                name=domain.name(),
                state=state,
                reason=reason,
                xml="" if state == "shutoff" else xml,
            )
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    @staticmethod
    def _try(function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except libvirt.libvirtError as error:
            LOG.debug("Closing a connection to libvirt: %s", error)

    # -- callbacks, in libvirt's event thread

    def _emit(
        self,
        domain: Any,
        kind: str,
        event: str = "",
        detail: str = "",
        downtime_ms: float | None = None,
    ) -> None:
        try:
            self._publish(
                DomainEvent(
                    kind=kind,
                    uuid=domain.UUIDString(),
                    name=domain.name(),
                    event=event,
                    detail=detail,
                    time_ns=time.time_ns(),
                    downtime_ms=downtime_ms,
                )
            )
        except Exception:
            LOG.exception("A libvirt event was lost: %s %s %s", kind, event, detail)

    def _closed(self, _: Any, reason: int, __: Any) -> None:
        self._on_close(names.close_reason(reason))

    def _lifecycle(self, _: Any, domain: Any, event: int, detail: int, __: Any) -> None:
        self._emit(domain, "lifecycle", *names.lifecycle(event, detail))

    def _reboot(self, _: Any, domain: Any, __: Any) -> None:
        self._emit(domain, "reboot")

    def _device_added(self, _: Any, domain: Any, alias: str, __: Any) -> None:
        self._emit(domain, "device-added", detail=alias)

    def _device_removed(self, _: Any, domain: Any, alias: str, __: Any) -> None:
        self._emit(domain, "device-removed", detail=alias)

    def _watchdog(self, _: Any, domain: Any, action: int, __: Any) -> None:
        self._emit(domain, "watchdog", event=names.watchdog_action(action))

    def _io_error(
        self, _: Any, domain: Any, path: str, alias: str, action: int, reason: str, __: Any
    ) -> None:
        self._emit(domain, "io-error", event=names.io_action(action), detail=reason or alias)

    def _iteration(self, _: Any, domain: Any, iteration: int, __: Any) -> None:
        self._emit(domain, "migration-iteration", detail=str(iteration))

    def _job_completed(self, _: Any, domain: Any, statistics: dict[str, Any], __: Any) -> None:
        operation = statistics.get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN)
        self._emit(
            domain,
            "job-completed",
            event=names.job_operation(operation),
            downtime_ms=statistics.get(libvirt.VIR_DOMAIN_JOB_DOWNTIME),
        )
