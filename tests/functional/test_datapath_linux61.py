"""The programs load on Linux 6.1, whose verifier refuses code that later ones take."""

import shutil
import subprocess
from pathlib import Path

from devstack.lab.cache import cache_directory, cache_lock
from devstack.lab.kernel import find_kernel

ROOT = Path(__file__).resolve().parents[2]
BPFTOOL = "/usr/sbin/bpftool"

INIT = """#!/bin/busybox sh
busybox() { /bin/busybox "$@"; }
busybox mkdir -p /proc /sys
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t bpf bpf /sys/fs/bpf
echo "linux $(busybox uname -r)"
/bin/bpftool prog loadall /vnet.bpf.o /sys/fs/bpf/vnet && echo "all programs loaded"
busybox ls /sys/fs/bpf/vnet
busybox poweroff -f
"""


def make_initrd(directory: Path) -> Path:
    """busybox, bpftool with its libraries, and the object."""
    root = directory / "root"
    (root / "bin").mkdir(parents=True)
    for tool in ("/bin/busybox", BPFTOOL):
        shutil.copy(tool, root / "bin")
    libraries = subprocess.run(["ldd", BPFTOOL], capture_output=True, text=True, check=True)
    for word in libraries.stdout.split():
        if word.startswith("/"):
            target = root / word.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, target)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    build = directory / "build"
    subprocess.run(
        ["make", "-s", "-C", str(ROOT / "csrc"), f"BUILD={build}", "skeleton"], check=True
    )
    shutil.copy(build / "vnet.bpf.o", root)
    initrd = directory / "initrd"
    subprocess.run(
        f"find . | cpio -o -H newc --quiet | gzip -1 > {initrd}", shell=True, cwd=root, check=True
    )
    return initrd


def test_datapath_programs_load_on_debians_kernel(tmp_path: Path) -> None:
    cache = cache_directory()
    with cache_lock(cache):
        kernel = find_kernel(cache)
    assert kernel.version.startswith("6.1.")
    initrd = make_initrd(tmp_path)
    done = subprocess.run(
        [
            *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512"),
            *("-nographic", "-no-reboot", "-kernel", str(kernel.bootable)),
            *("-initrd", str(initrd), "-append", "console=ttyS0 quiet panic=-1"),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=180,
        stdin=subprocess.DEVNULL,
    )
    console = done.stdout[-6000:]
    assert f"linux {kernel.version}" in console
    assert "all programs loaded" in console, console
    for program in ("vnet_tc_from_port", "vnet_tc_to_port", "vnet_tc_uplink"):
        assert program in console, console
