"""The ebpf driver: the C core in the kernel, behind maps that outlive the agent."""

import errno
import logging

from oslo_config import cfg

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.flowcache import FlowcacheDriver, guarded
from vnet_agent.exceptions import DatapathError

LOG = logging.getLogger(__name__)

#: A program stamps a connection with the time at which its frame came, and writes it a little
#: later: an export in between must not make the next one miss it. In ns; a sweep takes 10 ms.
STAMP_NS = 50_000_000


class EbpfDriver(FlowcacheDriver):
    """Pins under `pin_dir`, which must lie in a bpf file system.

    Interfaces are those of the network namespace that the process runs in. `max_ports` counts
    when the datapath is first created; an adopted one keeps its own.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts | None = None,
        *,
        pin_dir: str = "/sys/fs/bpf/vnet",
        max_ports: int = 1024,
        answers: bool = False,
        packet_rate: int = 100,
        shortcut: bool = True,
    ) -> None:
        super().__init__(
            conf.datapath.max_ports if conf is not None else max_ports,
            conf,
            packet_rate=conf.packets.rate if conf is not None else packet_rate,
        )
        self._answers = conf.datapath.answer_neighbours if conf is not None else answers
        self._shortcut = conf.datapath.shortcut if conf is not None else shortcut
        self._pin_dir: str = conf.datapath.pin_dir if conf is not None else pin_dir

    @property
    def kernel(self) -> c.Kernel:
        """The datapath itself; raises DatapathError when it is not open."""
        handle = self._c
        if not isinstance(handle, c.Kernel):
            raise TypeError("not the kernel's datapath")
        return handle

    def open(self) -> None:
        with self._lock:
            if self._handle is not None:
                return
            kernel = guarded("open", c.Kernel, self._pin_dir.rstrip("/"), self._max_ports)
            try:
                guarded("adopt", self._adopt, kernel)
                self._max_ports = kernel.max_ports
                self._replace_programs()
            except DatapathError:
                self.close()
                raise

    def close(self) -> None:
        with self._lock:
            if self._handle is not None:
                self.kernel.close()
                self._handle = None

    def destroy(self) -> None:
        with self._lock:
            for ifindex, uplink in self._topology.ifaces():
                guarded("destroy", self.kernel.detach, ifindex, uplink)
            guarded("destroy", self.kernel.unpin)
            self.close()

    def cursor(self) -> int:
        return max(super().cursor() - STAMP_NS, 0)

    def packet_in_fileno(self) -> int:
        """There from the beginning; the ring comes with the first table."""
        return self.kernel.packet_fd()

    def send_packet(self, port: str, *, egress: bool, frame: bytes, through_tables: bool) -> None:
        with self._lock:
            ifindex = self._tap_of(port)
            guarded("send_packet", self._handlers.open)
            try:
                guarded("send_packet", self.kernel.send, ifindex, egress, through_tables, frame)
            except DatapathError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno == errno.EINVAL:
                    detail = f"the kernel takes no frame of {len(frame)} bytes"
                    raise DatapathError(operation="send_packet", detail=detail) from error
                raise

    def _attach_interface(self, ifindex: int, *, uplink: bool) -> None:
        self.kernel.attach(ifindex, uplink)

    def _detach_interface(self, ifindex: int, *, uplink: bool) -> None:
        self.kernel.detach(ifindex, uplink)

    def _set_short(self, ifindex: int) -> int:
        """Where the kernel cannot, frames go the long way; nothing else changes for them."""
        try:
            if self._shortcut:
                return self.kernel.set_short(ifindex)
            self.kernel.leave_short(ifindex)
        except OSError as error:
            LOG.warning("Interface %d has no short way between VMs: %s", ifindex, error)
        return 0

    def _replace_programs(self) -> None:
        """This version's programs take over, each in one step; what is gone is forgotten."""
        kept = 0
        for ifindex, uplink in self._topology.ifaces():
            try:
                guarded("adopt", self.kernel.attach, ifindex, uplink)
            except DatapathError as error:
                if self._is_gone(error):
                    LOG.info("Interface %d is no longer there", ifindex)
                    self._forget_interface(ifindex, uplink=uplink)
                else:  # what guarded it before still does, if anything
                    LOG.error("Interface %d keeps its old programs: %s", ifindex, error)
                    kept += 1
                continue
            local_id = self._topology.port_of(ifindex)
            if local_id is not None and not uplink:
                self._settle(local_id, ifindex)
        # While old programs run, what they know must stay; the next start tries again.
        if not kept and guarded("upgrade", self.kernel.finish_upgrade):
            LOG.info("Connections were carried over from the version before of the datapath")

    @staticmethod
    def _is_gone(error: DatapathError) -> bool:
        """Of all failures only this one may make the datapath forget what it guards."""
        cause = error.__cause__
        return isinstance(cause, OSError) and cause.errno == errno.ENODEV

    def _forget_interface(self, ifindex: int, *, uplink: bool) -> None:
        local_id = self._topology.port_of(ifindex)
        if uplink:
            self._segments.remove(ifindex)
        else:
            self._topology.remove_iface(ifindex)
        if local_id is not None:
            self._store(local_id, "ifindex", 0)
