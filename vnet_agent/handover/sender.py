"""Puts frames into a tap, as if they came from the network."""

import errno
import logging
import socket
import struct

from vnet_agent.datapath import _flowcache as c
from vnet_agent.handover.frame import sendable

LOG = logging.getLogger(__name__)

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_QDISC_BYPASS = 20
_SO_SNDBUFFORCE = 32
_ROOM = 1 << 24


class TapSender:
    """Of one tap. `judged` frames go past the datapath, others through it. Raises OSError."""

    def __init__(self, interface: str, *, judged: bool = False) -> None:
        self.interface = interface
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            option = self._socket.setsockopt
            option(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            option(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", c.REPLAY_MARK))
            option(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _ROOM)
            if judged:
                option(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
            self._socket.setblocking(False)
            self._socket.bind((interface, 0))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> bool:
        """Whether the kernel took it. That the datapath refused it, or the tap's queue is full, is
        counted there."""
        try:
            self._socket.send(sendable(frame))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOBUFS:
                return True
            LOG.info("%s does not take a frame of %d bytes: %s", self.interface, len(frame), error)
            return False
        return True
