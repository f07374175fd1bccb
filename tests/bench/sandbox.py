"""Where a bench works: namespaces of its own, gone with it however it ends.

`run` starts a bench's `main` again in private mount, network and process namespaces, with tmpfs
on /run and a bpf file system in it. Its first process dies with the one that started it, and with
the first all others. The machine's own network is never seen from there.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

INSIDE = "VNET_BENCH_INSIDE"
RUN = pathlib.Path("/run")
BPFFS = RUN / "bpf"
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """What could not be measured, and why."""


def run(main: Callable[[], None]) -> None:
    """Runs `main` inside and ends this process with its exit status."""
    if os.environ.get(INSIDE):
        _furnish()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            main()
        except BenchError as error:
            sys.exit(f"bench: {error}")
        except KeyboardInterrupt:
            sys.exit(130)
        return
    if os.geteuid() != 0:
        sys.exit("bench: this needs root: namespaces, BPF, tc")
    sys.exit(_start_inside())


def _start_inside() -> int:
    process = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--net", "--pid", "--mount-proc", "--kill-child"),
            *("--propagation", "private", "--", sys.executable, *sys.argv),
        ],
        env={**os.environ, INSIDE: "1"},
    )
    # The terminal's Ctrl-C reaches those inside too: they end by themselves.
    signal.signal(signal.SIGTERM, lambda *_: process.kill())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            try:
                return process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def _furnish() -> None:
    del os.environ[INSIDE]
    command("mount", "-t", "tmpfs", "none", str(RUN))
    BPFFS.mkdir()
    command("mount", "-t", "bpf", "none", str(BPFFS))


def command(*argv: str, text: str | None = None) -> str:
    """Output of a command; BenchError with what it said when it fails."""
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BenchError(f"{argv[0]} is missing: devstack/setup.sh bench") from None
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Netns:
    """A network namespace with `lo` up and without IPv6, whose frames nobody asked for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = pathlib.Path("/run/netns") / name

    def __enter__(self) -> "Netns":
        command("ip", "netns", "add", self.name)
        self.set("net/ipv6/conf/default/disable_ipv6", "1")
        self.ip("link set lo up")
        return self

    def __exit__(self, *_: object) -> None:
        command("ip", "netns", "delete", self.name)

    def ip(self, *lines: str) -> None:
        """Lines of `ip -batch`."""
        command("ip", "-n", self.name, "-batch", "-", text="".join(f"{one}\n" for one in lines))

    def run(self, *argv: str, text: str | None = None) -> str:
        return command("nsenter", f"--net={self.path}", "--", *argv, text=text)

    def set(self, name: str, value: str) -> None:
        """One of /proc/sys."""
        with self.inside():
            pathlib.Path("/proc/sys", name).write_text(value)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace meanwhile."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(here)
            os.close(there)
            os.close(here)


def _enter(netns: int) -> None:
    if _libc.setns(netns, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def daemon(argv: Sequence[str], netns: Netns, log: pathlib.Path) -> Iterator[subprocess.Popen]:
    """A process in the namespace, ended by its id when the block is left."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["nsenter", f"--net={netns.path}", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "OVS_RUNDIR": str(log.parent), "OVS_LOGDIR": str(log.parent)},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
