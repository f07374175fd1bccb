"""What a port's words say of frames that wait, or come late; see csrc/core/hold.h."""

import threading
import time

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.flags import HANDOVER, set_flag


class Holding:
    """One port during its VM's migration. Raises what the extension raises; any thread."""

    def __init__(self, handle: c.Datapath, local_id: int, lock: threading.RLock) -> None:
        self._c = handle
        self._lock = lock
        self._local_id = local_id

    # -- where the VM comes to

    def begin(self, ifindex: int) -> None:
        """Frames for the VM go to the interface `ifindex` instead, while `extend` says so."""
        for field in ("hold_until_ns", "held", "sent_on", "seen_outside"):
            self._store(field, 0)
        self._store("hold_ifindex", ifindex)
        self._flag(c.PORT_DRAINING, wanted=False)
        self._flag(c.PORT_HELD, wanted=True)

    def extend(self, seconds: float) -> None:
        """From now on for so long; then they go straight, whoever is still alive."""
        self._store("hold_until_ns", time.monotonic_ns() + int(seconds * 1e9))

    def held(self) -> int:
        """How many frames have gone to the interface."""
        return self._read("held")

    def sent_on(self, frames: int) -> None:
        """So many of them have gone on to the VM, or are lost."""
        self._store("sent_on", frames)

    def drain(self) -> None:
        """Once all that are held have gone on, the next goes straight, and all after it."""
        self._flag(c.PORT_DRAINING, wanted=True)

    def end(self) -> None:
        """Frames go straight."""
        for flag in (c.PORT_HELD, c.PORT_DRAINING):
            self._flag(flag, wanted=False)
        self._store("hold_ifindex", 0)

    # -- where it went from

    def relay(self, *, wanted: bool) -> None:
        """Frames from outside reach the tap even when the port has moved."""
        if wanted:
            self._store("seen_outside", 0)
        self._flag(c.PORT_RELAYED, wanted=wanted)

    def relays(self) -> bool:
        return bool(self._read("flags") & c.PORT_RELAYED)

    # -- both

    def seen_outside(self) -> bool:
        """A held frame that is for the VM alone came from outside of the host, or the VM's MAC
        spoke there: whoever switches frames between hosts knows where the VM is now."""
        return bool(self._read("seen_outside"))

    def _flag(self, flag: int, *, wanted: bool) -> None:
        with self._lock:
            set_flag(self._c, self._local_id, flag, wanted=wanted)

    def _store(self, field: str, value: int) -> None:
        offset, size = c.LAYOUT["port"][field]
        self._c.port_store(self._local_id, offset, size, value)

    def _read(self, field: str) -> int:
        return layout.number("port", field, self._c.port_get(self._local_id))


def end_leftovers(handle: c.Datapath) -> None:
    """Of an agent that died in the middle of a hand-over."""
    for data in handle.ports():
        local_id = layout.number("port", "local_id", data)
        for flag in HANDOVER:
            set_flag(handle, local_id, flag, wanted=False)
