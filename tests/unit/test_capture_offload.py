"""Checksums that are left to the device: found, and made."""

import ipaddress
import struct

import frames as f
import pytest
from datapath_bench import PEER, PEER4, PEER6, VM, VM4, VM6
from twin_sums import ones, seal

from vnet_agent.capture.offload import finish_checksum, is_checksum_unfinished


def packet(family, proto, body):
    if family == 4:
        return f.ether(VM, PEER, f.IPV4, f.ipv4(VM4, PEER4, proto, body))
    return f.ether(VM, PEER, f.IPV6, f.ipv6(VM6, PEER6, proto, body))


def unfinished(family, proto, body):
    """As the kernel leaves it: the sum of the pseudo-header."""
    frame = bytearray(seal(packet(family, proto, body)))
    ends = (VM4, PEER4) if family == 4 else (VM6, PEER6)
    pseudo = b"".join(ipaddress.ip_address(end).packed for end in ends)
    total = ones(pseudo + struct.pack(">II", len(body), proto))
    at = len(frame) - len(body) + (16 if proto == f.TCP else 6)
    frame[at : at + 2] = total.to_bytes(2, "big")
    return bytes(frame)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", [f.TCP, f.UDP])
@pytest.mark.parametrize("payload", [b"", b"x", b"xyz" * 400])
def test_what_was_left_to_the_device_is_made(family, proto, payload):
    body = f.tcp(1, 2, f.SYN, payload) if proto == f.TCP else f.udp(1, 2, payload)
    frame, right = unfinished(family, proto, body), seal(packet(family, proto, body))
    assert is_checksum_unfinished(frame)
    assert finish_checksum(frame) == right
    assert finish_checksum(right) == right
    # Behind a tag, and with the padding of a short frame.
    assert finish_checksum(f.tagged(frame, 7) + b"pad") == f.tagged(right, 7) + b"pad"


def test_what_is_wrong_or_cut_short_is_left_alone():
    frame = unfinished(4, f.UDP, f.udp(1, 2, b"x" * 40))
    for cut in range(len(frame)):
        assert finish_checksum(frame[:cut]) == frame[:cut]
    wrong = frame[:-1] + b"?"
    wrong = wrong[:40] + b"\1\2" + wrong[42:]
    assert finish_checksum(wrong) == wrong
