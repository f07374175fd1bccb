"""libvirt's default event loop in one thread, for every connection of the process."""

import logging
import threading

import libvirt

LOG = logging.getLogger(__name__)

_lock = threading.Lock()
_thread: threading.Thread | None = None


def ensure_running() -> None:
    """Register the event loop and start its thread, once; before the first connection.

    The thread is a daemon and lives as long as the process: libvirt has no way to take a
    registered event loop back.
    """
    global _thread
    with _lock:
        if _thread is None:
            libvirt.virEventRegisterDefaultImpl()
            libvirt.registerErrorHandler(_log_quietly, None)
            _thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
            _thread.start()


def _run() -> None:
    # Without a timer the loop would sleep through the registration of the first connection.
    libvirt.virEventAddTimeout(1000, lambda timer, opaque: None, None)
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            LOG.exception("One round of libvirt's event loop failed")


def _log_quietly(_: object, error: tuple[object, ...]) -> None:
    """Errors arrive as exceptions too; libvirt would print them on standard error as well."""
    LOG.debug("libvirt: %s", error[2])
