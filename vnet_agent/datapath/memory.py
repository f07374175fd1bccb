"""The memory driver: the C core without a kernel, for tests, simulation and traces."""

from oslo_config import cfg

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.flowcache import FlowcacheDriver


class MemoryDriver(FlowcacheDriver):
    """Holds everything in this process: `close` keeps it for a later `open`, as pins would.

    Nothing runs on interfaces: a test feeds frames to `native.process`.
    """

    def __init__(self, conf: cfg.ConfigOpts | None = None, *, max_ports: int = 1024) -> None:
        super().__init__(conf.datapath.max_ports if conf is not None else max_ports, conf)
        self._kept: c.Native | None = None

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
