"""A frame on its way from one host's tap to another's, as taps and packet sockets have it.

Ten bytes of struct virtio_net_hdr (virtio 1.2, 5.1.6, without num_buffers; include/uapi/linux/
virtio_net.h), which say what checksum is still to be made and how a long frame is to be cut, and
then the Ethernet frame.
"""

#: Bytes of the header.
HEADER = 10
#: A frame that says nothing: whole, and its checksums are made.
PLAIN = bytes(HEADER)
#: The longest frame of an interface: 64 KiB of segmentation offload, and its headers.
MOST = HEADER + 65536 + 256

#: For no guest: to a locally administered address that none has (IEEE 802-2014, 8.4), with the
#: EtherType of local experiments. QEMU's filter drops it, unless the guest listens to everything.
NOBODYS = PLAIN + bytes.fromhex("02564e455400 02564e455401 88b5") + b"vnet-agent".ljust(46, b"\0")

#: Of the header's flags only this one may be sent: others are what a receiver was told.
_NEEDS_CSUM = 1
_GROUP_BIT = 1
_SHORTEST = HEADER + 14


def sendable(frame: bytes) -> bytes:
    """The frame as a packet socket takes it; ValueError when it can be none."""
    if not _SHORTEST <= len(frame) <= MOST:
        raise ValueError(f"a frame of {len(frame) - HEADER} bytes")
    flags = frame[0] & _NEEDS_CSUM
    return frame if flags == frame[0] else bytes((flags,)) + frame[1:]


def ethernet(frame: bytes) -> bytes:
    """Without the header."""
    return frame[HEADER:]


def is_group(frame: bytes) -> bool:
    """Whether it is for more than one receiver: a broadcast, or a multicast."""
    return len(frame) > HEADER and bool(frame[HEADER] & _GROUP_BIT)
