"""Write the seed corpus of csrc/tests/fuzz_*.c, from frames of every kind.

Usage: PYTHONPATH=tests/twin:tests/unit:. python tests/fuzz/seed_datapath.py
"""

from pathlib import Path

import frames as f
from datapath_bench import PEER, PEER4, PEER6, VM, VM4, VM6, Bench
from test_tables_driver import load

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


#: enum vnet_op_code; a SET is its field + SET, a NAT its field - 1 + NAT.
NORMAL, OUTPUT, GOTO, CONTROLLER, MIRROR, PUSH, POP = 1, 3, 4, 5, 7, 9, 10
SET, NAT = 100, 200
IPV4_ARGUMENT = 4


def rule(table: int, *ops: tuple[int, int, int]) -> bytes:
    """A rule of csrc/tests/fuzz_handlers.c that matches everything: (what, argument, value)."""
    packed = bytes([table, 0, 0, 0, 0])
    for what, argument, value in ops:
        code, field = what, 0
        if what >= SET:
            code, field = (13, what - NAT) if what >= NAT else (6, what - SET)
        packed += bytes([code, field]) + argument.to_bytes(2, "big") + value.to_bytes(4, "big")
    return packed.ljust(32, b"\0")


SETS = [
    rule(0, (SET + 1, 0, 7), (SET + 2, 0, 7), (GOTO, 1, 0)),
    rule(1, (SET + 3, 0, 9), (SET + 4, 0, 9), (GOTO, 2, 0)),
    rule(2, (SET + 5, 0, 9), (SET + 6, 0, 9), (GOTO, 3, 0)),
    rule(3, (SET + 7, 0, 53), (SET + 8, 0, 53), (GOTO, 4, 0)),
    rule(4, (SET + 9, 0, 10), (SET + 10, 0, 1), (GOTO, 5, 0)),
    rule(5, (SET + 11, 0, 5), (SET + 12, 0, 5), (OUTPUT, 0, 0)),
]
NATS = [
    rule(0, (NAT, IPV4_ARGUMENT, 0x0700000B), (NAT + 1, IPV4_ARGUMENT, 0x0200000A), (GOTO, 1, 0)),
    rule(1, (NAT + 2, 0, 0x20), (NAT, 0, 0x07), (GOTO, 2, 0)),
    rule(2, (NAT + 3, 0, 0x20), (NAT + 1, 0, 0x09), (NORMAL, 0, 0)),
]
TAGS = [
    rule(0, (PUSH, 100, 0), (MIRROR, 2, 0), (GOTO, 1, 0)),
    rule(1, (POP, 0, 0), (CONTROLLER, 60, 0)),
]


def handlers() -> dict[str, bytes]:
    kinds = {"sets": SETS, "tags": TAGS, "nats": NATS}
    return {
        f"{name}-{kind}": bytes([len(rules)]) + b"".join(rules) + frames
        for name, frames in FRAMES.items()
        for kind, rules in kinds.items()
    }


def records() -> bytes:
    bench = Bench()
    bench.handshake_in()
    bench.handshake_out()
    bench.out(f.ipv4(VM4, PEER4, f.ICMP, f.icmp(8, ident=3)))
    bench.out(f.ipv6(VM6, PEER6, f.UDP, f.udp(1, 53)))
    return bench.records()


def translations() -> bytes:
    bench = Bench()
    match = {"eth_type": "ipv4", "direction": "egress"}
    load(bench.driver, 0, {"match": match, "actions": [{"snat": "203.0.113.7"}, "normal"]})
    bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(1, 53)))
    return bench.records()


def main() -> None:
    for target, seeds in (
        ("fuzz_frames", FRAMES),
        ("fuzz_records", {"some": records(), "nat": translations()}),
        ("fuzz_handlers", handlers()),
    ):
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (directory / name).write_bytes(data)


if __name__ == "__main__":
    main()
