"""The memory driver: the C core without a kernel, for tests, simulation and traces."""

from collections import deque

from oslo_config import cfg

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.flowcache import FlowcacheDriver, guarded

#: Frames that are remembered of those that left because somebody sent one.
_SENT = 256


class MemoryDriver(FlowcacheDriver):
    """Holds everything in this process: `close` keeps it for a later `open`, as pins would.

    Nothing runs on interfaces: a test feeds frames to `native.process`.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts | None = None,
        *,
        max_ports: int = 1024,
        answers: bool = False,
        packet_rate: int = 100,
    ) -> None:
        super().__init__(
            conf.datapath.max_ports if conf is not None else max_ports,
            packet_rate=conf.packets.rate if conf is not None else packet_rate,
        )
        self._answers = conf.datapath.answer_neighbours if conf is not None else answers
        self._kept: c.Native | None = None
        #: (ifindex, frame) of what left for a packet that was sent, the last ones.
        self.sent: deque[tuple[int, bytes]] = deque(maxlen=_SENT)

    @property
    def native(self) -> c.Native:
        """The datapath itself; raises DatapathError when it is not open."""
        handle = self._c
        if not isinstance(handle, c.Native):
            raise TypeError("not a native datapath")
        return handle

    def open(self) -> None:
        if self._kept is None:
            self._kept = c.Native(self._max_ports)
        self._adopt(self._kept)

    def close(self) -> None:
        self._handle = None

    def destroy(self) -> None:
        self._handle = None
        self._kept = None

    def packet_in_fileno(self) -> int:
        with self._lock:
            guarded("packet-ins", self._handlers.open)
            return self._c.packet_fd()

    def send_packet(self, port: str, *, egress: bool, frame: bytes, through_tables: bool) -> None:
        with self._lock:
            hook = c.FROM_PORT if egress else c.TO_PORT
            tap = self._tap_of(port)
            _, _, out = self.native.run(hook, tap, frame, 0, not through_tables)
            self.sent.extend((ifindex or tap, left) for ifindex, left in out)
