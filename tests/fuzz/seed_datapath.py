"""Write the seed corpus of csrc/tests/fuzz_*.c, from frames of every kind.

Usage: PYTHONPATH=tests/twin:tests/unit:. python tests/fuzz/seed_datapath.py
"""

from pathlib import Path

import frames as f
from datapath_bench import PEER, PEER4, PEER6, VM, VM4, VM6, Bench

CORPUS = Path(__file__).resolve().parent / "corpus"
OUT, IN, UPLINK = 0, 1, 2


def packed(*steps: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([hook, len(frame)]) + frame for hook, frame in steps)


def out4(proto: int, body: bytes, **options) -> tuple[int, bytes]:
    return OUT, f.ether(VM, PEER, f.IPV4, f.ipv4(VM4, PEER4, proto, body, **options))


def in4(proto: int, body: bytes, **options) -> tuple[int, bytes]:
    return IN, f.ether(PEER, VM, f.IPV4, f.ipv4(PEER4, VM4, proto, body, **options))


def out6(proto: int, body: bytes, **options) -> tuple[int, bytes]:
    return OUT, f.ether(VM, PEER, f.IPV6, f.ipv6(VM6, PEER6, proto, body, **options))


def in6(proto: int, body: bytes, **options) -> tuple[int, bytes]:
    return IN, f.ether(PEER, VM, f.IPV6, f.ipv6(PEER6, VM6, proto, body, **options))


SYN_ACK = f.SYN | f.ACK
FRAMES = {
    "trunk": packed(
        *(
            (
                UPLINK,
                f.tagged(f.ether(PEER, target, f.IPV4, f.ipv4(PEER4, VM4, 17, f.udp(1, 2))), 100),
            )
            for target in (VM, "ff:ff:ff:ff:ff:ff")
        )
    ),
    "tcp": packed(
        out4(f.TCP, f.tcp(1, 80, f.SYN)),
        in4(f.TCP, f.tcp(80, 1, SYN_ACK)),
        out4(f.TCP, f.tcp(1, 80, f.ACK)),
        in4(f.TCP, f.tcp(80, 1, f.FIN | f.ACK)),
        out4(f.TCP, f.tcp(1, 80, f.RST)),
    ),
    "windows": packed(
        in4(f.TCP, f.tcp(9, 80, f.SYN, seq=99, options=b"\2\4\5\xb4\1" + f.window_scale(7))),
        out4(f.TCP, f.tcp(80, 9, SYN_ACK, seq=499, ack=100, options=f.window_scale(2))),
        in4(f.TCP, f.tcp(9, 80, f.ACK, b"x" * 40, seq=100, ack=500)),
        in4(f.TCP, f.tcp(9, 80, f.RST, seq=1 << 31)),
        out4(f.TCP, f.tcp(80, 9, f.FIN | f.ACK, seq=500, ack=140)),
        in4(f.TCP, f.tcp(9, 80, f.RST, seq=140)),
    ),
    "tcp6": packed(in6(f.TCP, f.tcp(9, 80, f.SYN)), out6(f.TCP, f.tcp(80, 9, SYN_ACK))),
    "udp": packed(in4(f.UDP, f.udp(9, 80)), out4(f.UDP, f.udp(80, 9))),
    "sctp": packed(out6(f.SCTP, f.udp(9, 80))),
    "echo": packed(out4(f.ICMP, f.icmp(8, ident=3)), in4(f.ICMP, f.icmp(0, ident=3))),
    "error": packed(
        out4(f.UDP, f.udp(4, 5)),
        in4(f.ICMP, f.icmp(3, 3, payload=f.ipv4(VM4, PEER4, f.UDP, f.udp(4, 5)))),
    ),
    "error6": packed(
        out6(f.UDP, f.udp(4, 5)),
        in6(f.ICMPV6, f.icmp(1, 4, payload=f.ipv6(VM6, PEER6, f.UDP, f.udp(4, 5)))),
    ),
    "fragments": packed(
        in4(f.UDP, f.udp(1, 80), more=True, ident=7),
        in4(f.UDP, b"x" * 8, fragment=2, ident=7),
        in6(44, f.fragment6(f.UDP, 7, 0, True, f.udp(1, 80))),
        in6(44, f.fragment6(f.UDP, 7, 2, False, b"x" * 8)),
    ),
    "extensions": packed(
        in6(0, bytes([60, 0, 5, 2, 0, 0, 0, 0, f.UDP, 0, 1, 4, 0, 0, 0, 0]) + f.udp(1, 80)),
        in6(51, bytes([f.TCP, 1, 0, 0]) + bytes(8) + f.tcp(1, 80, f.SYN)),
    ),
    "options": packed(out4(f.TCP, f.tcp(1, 2, f.SYN), options=b"\1" * 8)),
    "arp": packed(
        (OUT, f.ether(VM, "ff:ff:ff:ff:ff:ff", f.ARP, f.arp(VM, VM4, PEER4))),
        (OUT, f.ether(VM, "ff:ff:ff:ff:ff:ff", f.RARP, f.arp(VM, "0.0.0.0", "0.0.0.0"))),
        (UPLINK, f.ether(PEER, "ff:ff:ff:ff:ff:ff", f.ARP, f.arp(PEER, PEER4, VM4))),
    ),
    "discovery": packed(
        out6(f.ICMPV6, f.discovery(135, PEER6, VM), hops=255),
        out6(f.ICMPV6, f.discovery(136, VM6, VM, option=2), hops=255),
        out6(f.ICMPV6, f.icmp(133), hops=255),
    ),
    "dhcp": packed(
        (
            OUT,
            f.ether(
                VM,
                "ff:ff:ff:ff:ff:ff",
                f.IPV4,
                f.ipv4("0.0.0.0", "255.255.255.255", f.UDP, f.udp(68, 67)),
            ),
        ),
        in4(f.UDP, f.udp(67, 68)),
    ),
    "vlan": packed((OUT, f.ether(VM, PEER, f.VLAN, b"\0" * 30))),
}


def records() -> bytes:
    bench = Bench()
    bench.handshake_in()
    bench.handshake_out()
    bench.out(f.ipv4(VM4, PEER4, f.ICMP, f.icmp(8, ident=3)))
    bench.out(f.ipv6(VM6, PEER6, f.UDP, f.udp(1, 53)))
    return bench.records()


def main() -> None:
    for target, seeds in (("fuzz_frames", FRAMES), ("fuzz_records", {"some": records()})):
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (directory / name).write_bytes(data)


if __name__ == "__main__":
    main()
