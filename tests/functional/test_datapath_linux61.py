"""Linux 6.1 takes the programs and the maps: it refuses some that later ones take."""

import shutil
import subprocess
from pathlib import Path

from exact_image import copy_libraries, copy_python

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
export PYTHONHOME=/usr PYTHONPATH=/bench:/site LD_LIBRARY_PATH=/lib
/bin/bpftool prog loadall /vnet.bpf.o /sys/fs/bpf/vnet && echo "all programs loaded"
busybox ls /sys/fs/bpf/vnet
/bin/bpftool prog loadall /tables.bpf.o /sys/fs/bpf/tables && echo "tables loaded"
/bin/bpftool prog loadall /xdp.bpf.o /sys/fs/bpf/short && echo "the short way loaded"
/bin/bpftool prog loadall /classifier.bpf.o /sys/fs/bpf/classifier && echo "classifier loaded"
/bin/python3.11 /make_port.py
busybox poweroff -f
"""


#: Maps are compared when an inner one is put into its array, not when the programs are loaded.
MAKE_PORT = """
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.datapath import layout
from vnet_agent.datapath.handling import TableRule
from vnet_agent.model.handler import Miss
from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import Role
port = "00000000-0000-4000-8000-000000000001"
for attempt in ("made", "adopted"):
    driver = EbpfDriver(pin_dir="/sys/fs/bpf/agent", max_ports=4)
    driver.open()
    driver.set_port(
        port, instance=port, mac="fa:16:3e:00:00:01", addresses=("10.0.0.1",), network=0,
        bridged=False, role=Role.ACTIVE, generation=1, quota=64,
    )
    driver.set_policy(port, ALLOW_ALL)
    print("a port is", attempt, len(driver.ports()), driver.counters(port).connections)
    print("rules are", attempt, [len(state.rules) for state in driver.tables()])
    drop = layout.pack("op", code=2).ljust(len(layout.pack("actions")), b"\\0")
    ports = (0).to_bytes(2, "little") + (65535).to_bytes(2, "little")
    match = layout.pack("match", source_ports=ports, destination_ports=ports)
    driver.replace_table(3, [TableRule(match, drop, 1)] * 2, Miss.CONTROLLER)
    driver.close()
"""


def make_initrd(directory: Path) -> Path:
    """busybox, bpftool, the object, and Python with the driver."""
    root = directory / "root"
    for name in ("bin", "lib", "usr/lib", "site", "bench/tests"):
        (root / name).mkdir(parents=True)
    (root / "lib64").symlink_to("lib")
    for tool in ("/bin/busybox", BPFTOOL, "/usr/bin/python3.11"):
        shutil.copy(tool, root / "bin")
        if tool != "/bin/busybox":
            copy_libraries(root, tool)
    copy_python(root)
    (root / "make_port.py").write_text(MAKE_PORT)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    build = directory / "build"
    subprocess.run(
        ["make", "-s", "-C", str(ROOT / "csrc"), f"BUILD={build}", "skeleton", "kernel"],
        check=True,
    )
    for name in ("vnet.bpf.o", "tables.bpf.o", "xdp.bpf.o", "classifier.bpf.o"):
        shutil.copy(build / name, root)
    initrd = directory / "initrd"
    subprocess.run(
        f"find . | cpio -o -H newc --quiet | gzip -1 > {initrd}", shell=True, cwd=root, check=True
    )
    return initrd


def test_datapath_loads_and_makes_ports_on_debians_kernel(tmp_path: Path) -> None:
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
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    console = done.stdout[-6000:]
    assert f"linux {kernel.version}" in console
    assert "all programs loaded" in console, console
    assert "tables loaded" in console, console
    assert "the short way loaded" in console, console
    assert "classifier loaded" in console, console
    assert "rules are made []" in console, console
    assert "rules are adopted [2]" in console, console
    for attempt in ("made", "adopted"):
        assert f"a port is {attempt} 1 0" in console, console
    for program in ("vnet_tc_from_port", "vnet_tc_to_port", "vnet_tc_uplink"):
        assert program in console, console
