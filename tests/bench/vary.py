"""Builds and runs vary.c, and makes the frames that it runs."""

import dataclasses
import functools
import ipaddress
import pathlib
import struct

import result
from sandbox import BenchError, command
from tenants import Guest

HERE = pathlib.Path(__file__).parent
SOURCES = (HERE / "vary.c", HERE / "vary.bpf.c")
FLAGS = ("-O2", "-g", "-Wall", "-Wextra", "-Werror")

SYN, RST, ACK = 0x02, 0x04, 0x10


@functools.cache
def build() -> pathlib.Path:
    program = result.BUILD / "vary"
    newest = max(source.stat().st_mtime for source in SOURCES)
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    result.BUILD.mkdir(parents=True, exist_ok=True)
    includes = f"-I/usr/include/{command('gcc', '-print-multiarch').strip()}"
    bpf, skeleton = result.BUILD / "vary.bpf.o", result.BUILD / "vary.skel.h"
    command(
        *("clang-16", "-target", "bpf", "-mcpu=v3", *FLAGS, includes),
        *("-c", str(SOURCES[1]), "-o", str(bpf)),
    )
    skeleton.write_text(
        command("/usr/sbin/bpftool", "gen", "skeleton", str(bpf), "name", "vary_bpf")
    )
    command(
        *("gcc", "-std=gnu11", *FLAGS, f"-I{result.BUILD}", "-o", str(program)),
        *(str(SOURCES[0]), "-lbpf"),
    )
    return program


def make_frame(source: Guest, target: Guest, flags: int, ports: tuple[int, int]) -> bytes:
    """A TCP segment without data; 54 bytes. Checksums are 0: the datapath leaves them to the
    guests."""
    tcp = struct.pack("!HHIIBBHHH", *ports, 1000, 2000, 5 << 4, flags, 65535, 0, 0)
    addresses = [ipaddress.IPv4Address(guest.address).packed for guest in (source, target)]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + b"".join(addresses)
    macs = b"".join(bytes.fromhex(guest.mac.replace(":", "")) for guest in (target, source))
    return macs + b"\x08\x00" + ip + tcp


@dataclasses.dataclass(frozen=True)
class Pass:
    """Frames over `count` pairs of ports; `incoming` to the VM, `one`: the VM's port stays."""

    frame: bytes
    count: int
    incoming: bool = False
    random: bool = False
    one: bool = False

    def run(self, ifindex: int, runs: int, expected: int | None) -> int:
        """Mean nanoseconds a frame. `expected` is what the program answers (TC_ACT_*); None runs
        an empty one in its place."""
        answer = command(
            *(str(build()), str(ifindex), "to" if self.incoming else "from"),
            *("empty" if expected is None else "program", str(runs), str(self.count)),
            *("random" if self.random else "sequence", "one" if self.one else "both"),
            self.frame.hex(),
        )
        nanoseconds, told = (int(word) for word in answer.split())
        if told != (-1 if expected is None else expected):
            raise BenchError(f"the program answers {told}, not {expected}")
        return nanoseconds
