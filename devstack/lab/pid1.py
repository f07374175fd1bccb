"""PID 1 of a lab host: gives it directories of its own, then reaps. Standard library only.

Without a parent that reaps, libvirt learns of the end of a QEMU a second late.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def set_up(settings: dict[str, object]) -> None:
    socket.sethostname(str(settings["name"]))
    binds = settings["binds"]
    assert isinstance(binds, dict)
    for inside, outside in binds.items():
        mount("--bind", outside, inside)
    # A sysfs that shows this host's network devices, and below it a bpf file system of its own.
    mount("-t", "sysfs", "sysfs", "/sys")
    mount("-t", "bpf", "bpf", "/sys/fs/bpf")
    mount("-t", "tracefs", "tracefs", "/sys/kernel/tracing")
    # Guests that find KVM where it is only half there spin for minutes. A file that cannot be
    # opened for writing makes libvirt say that there is none.
    if os.path.exists("/dev/kvm"):
        mount("--bind", str(settings["empty"]), "/dev/kvm")
        mount("-o", "remount,bind,ro", "/dev/kvm")


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    set_up(json.loads(sys.argv[1]))
    with open(sys.argv[2], "w") as ready:
        ready.write("ready\n")
    while True:
        reap()
        signal.sigwait({signal.SIGCHLD})


if __name__ == "__main__":
    main()
