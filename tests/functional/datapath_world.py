"""Namespaces of a test's own: nothing of what runs in them is seen outside, or stays.

`private` runs a function in a child process with mount and network namespaces of its own and a
bpf file system; when the child is gone, so is all of it. A `Place` is a further network
namespace, such as a VM's.
"""

import contextlib
import ctypes
import functools
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC_PRIVATE = (1 << 18) | 16384

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def eventually(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Poll until the condition is true; returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def private(test: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the test runs in namespaces of its own, and gets `bpffs`, a path, as keyword."""

    @functools.wraps(test)
    def run() -> None:
        if os.geteuid() != 0:
            raise AssertionError("functional tests need root: namespaces, bpf, tc")
        sys.stdout.flush()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            status = _run_inside(test, writer)
            os._exit(status)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            report = pipe.read()
        _, status = os.waitpid(child, 0)
        assert status == 0, f"in the private namespaces (status {status}):\n{report}"

    # pytest must not ask for fixtures named as the test's own keywords.
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def _run_inside(test: Callable[..., None], report: int) -> int:
    try:
        os.setpgid(0, 0)
        _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare")
        _check(_libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None), "make mounts private")
        # In a tmpfs of the private namespace: not even the directory stays.
        mountpoint = "/mnt"  # not /tmp: the checkout may be there
        _check(_libc.mount(b"none", mountpoint.encode(), b"tmpfs", 0, None), "mount tmpfs")
        bpffs = os.path.join(mountpoint, "bpf")
        os.mkdir(bpffs)
        _check(_libc.mount(b"none", bpffs.encode(), b"bpf", 0, None), "mount bpf")
        ip("link set lo up")
        test(bpffs=bpffs)
    except BaseException:
        os.write(report, traceback.format_exc().encode())
        return 1
    else:
        return 0
    finally:
        _kill_children()


def _kill_children() -> None:
    """Of this test's process group, which only its own processes are in."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(0, signal.SIGTERM)
    for pid in Place.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Place:
    """A network namespace with one veth pair into the one it was made in.

    No end makes itself an address: nothing is sent there but by the test.
    """

    pids: list[int] = []

    def __init__(self, name: str, mac: str, *addresses: str) -> None:
        self.mac = mac
        self.outer = f"tap-{name}"
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            os.write(writer, b"x")
            os.close(writer)
            signal.pause()
            os._exit(0)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        Place.pids.append(self.pid)
        ip(f"link add {self.outer} type veth peer name eth0 netns {self.pid}")
        ip(f"link set {self.outer} addrgenmode none up")
        with self.inside():
            ip("link set lo up")
            ip(f"link set eth0 addrgenmode none address {mac} up")
            for address in addresses:
                ip(f"addr add {address} dev eth0" + (" nodad" if ":" in address else ""))

    @property
    def ifindex(self) -> int:
        return socket.if_nametoindex(self.outer)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace meanwhile; sockets made there stay there."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            _check(_libc.setns(there, CLONE_NEWNET), "setns")
            yield
        finally:
            _check(_libc.setns(here, CLONE_NEWNET), "setns back")
            os.close(there)
            os.close(here)

    def udp(self, address: str = "", port: int = 0) -> socket.socket:
        with self.inside():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.bind((address, port))
            sock.settimeout(5)
            return sock

    def listen(self, port: int) -> socket.socket:
        with self.inside():
            sock = socket.create_server(("", port))
            sock.settimeout(5)
            return sock

    def connect(self, address: str, port: int, timeout: float = 5.0) -> socket.socket:
        with self.inside():
            return socket.create_connection((address, port), timeout)

    def ping(self, address: str, *options: str) -> bool:
        with self.inside():
            return (
                subprocess.run(
                    ["busybox", "ping", "-c", "1", "-W", "2", *options, address],
                    capture_output=True,
                    check=False,
                ).returncode
                == 0
            )
